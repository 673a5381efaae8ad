/* Requests that change no tree: what is there, where the reader is, cancelling, and tokens.
 *
 * Thread: loop. Each answers through the store's events; Cancel when its cuts are committed.
 */
#ifndef PERSONAD_SESSION_SERVICE_H
#define PERSONAD_SESSION_SERVICE_H

#include "session/state.h"

void service_info(struct store *store, const struct request *request, struct reply_to to);
void service_stats(struct store *store, const struct request *request, struct reply_to to);
void service_walk(struct store *store, const struct request *request, struct reply_to to);
void service_follow(struct store *store, const struct request *request, struct reply_to to);
void service_head(struct store *store, const struct request *request, struct reply_to to);
void service_cancel(struct store *store, const struct request *request, struct reply_to to);
void service_backup(struct store *store, const struct request *request, struct reply_to to);
void service_tokenize(struct store *store, const struct request *request, struct reply_to to);
void service_detokenize(struct store *store, const struct request *request, struct reply_to to);

#endif
