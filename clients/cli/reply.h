/* Following the replies of one request, for `say` and `complete`.
 *
 * Thread: one. With --json one object a reply is printed as it finishes:
 *   session, node, ordinal, seed, prompt_tokens, tokens (all sampled ids), logprobs, entropies, top
 * (K pairs of id and log probability for each token; all under the model before any step, in nats),
 * text, finish. For people one reply streams as it comes; several are printed as they finish.
 */
#ifndef PERSONAD_CLIENTS_CLI_REPLY_H
#define PERSONAD_CLIENTS_CLI_REPLY_H

#include "cli.h"

/* Follows the request to its end. CLI_FAILED when it, or one of its nodes, failed. */
int reply_follow(struct cli *cli, uint64_t session, uint64_t request, uint32_t n);

/* Prints one reply as a line of JSON. context: the ids before it, as far as they are known. */
void reply_print_json(uint64_t session, const struct personad_node *node, const uint32_t *context,
                      size_t context_count);

#endif
