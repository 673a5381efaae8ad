/* Verify: sampled nodes computed again and compared bit for bit.
 *
 * Thread: loop. A node is a look along its stored context and its own tokens that also draws: what
 * seed and steps pick at each index, and all numbers, must be what is stored. Looks of a Verify
 * share no KV with anything, read none and leave none, and have the lowest priority; a few run at a
 * time. It ends early when nobody waits for its replies any more.
 */
#ifndef PERSONAD_SESSION_VERIFY_H
#define PERSONAD_SESSION_VERIFY_H

#include "session/node.h"
#include "session/request.h"

struct store;
struct look;

void verify_execute(struct store *store, const struct request *request, struct reply_to to);

/* The first difference between what a node stores and a look along it, and the largest one of its
 * log probabilities. other_tokens has room for VERIFY_OTHER_TOKEN_COUNT_MAX. True: all bits are
 * equal. */
bool verify_compare(const struct branch_output *stored, uint32_t count,
                    const struct branch_output *computed, uint32_t *other_tokens,
                    struct verified_node_view *out);

#endif
