/* The seed of a node, from what it is and nothing else.
 *
 * Thread: any, pure. The rule, with every number little endian:
 *
 *   seed = first 8 bytes of SHA-256("personad/1" || S as u64 || SHA-256(context ids as u32)
 *          || ordinals of the nodes on the path, the node's own last, as u32)
 *
 * S is the request's seed or else the session's. So runs repeat, siblings and repeated turns
 * differ, and sessions that share S but not their text do not share their noise.
 */
#ifndef PERSONAD_SESSION_SEED_H
#define PERSONAD_SESSION_SEED_H

#include <stdint.h>

#include "base/sha256.h"

/* Digest of context ids, fed run by run. */
struct seed_context {
    struct sha256 hash;
};

void seed_context_init(struct seed_context *context);
void seed_context_add(struct seed_context *context, const uint32_t *ids, uint32_t count);
void seed_context_finish(struct seed_context *context, uint8_t out[SHA256_BYTES]);

/* ordinals: of the nodes on the path from the root, the node's own last. */
uint64_t seed_of_node(uint64_t s, const uint8_t context_digest[SHA256_BYTES],
                      const uint32_t *ordinals, uint32_t ordinal_count);

#endif
