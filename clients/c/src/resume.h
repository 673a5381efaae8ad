/* Going on after the daemon went away: what of each open stream was handed out, and the requests
 * to send again.
 *
 * Thread: that of the handle. A stream keeps the bytes of its request. A daemon that came back is
 * sent the same request under the same id and the same client key, so that it answers with the same
 * nodes; what the program has already seen of them is left out of what comes.
 */
#ifndef PERSONAD_CLIENTS_C_SRC_RESUME_H
#define PERSONAD_CLIENTS_C_SRC_RESUME_H

#include "client.h"

/* How much of one node was handed out. */
struct progress {
    uint64_t node;
    uint32_t tokens, bytes, numbers;
    bool is_finished;
};

struct stream {
    struct stream *next;
    uint64_t id;
    uint8_t *body; /* owned: the packed request */
    size_t body_size;
    bool is_created;
    bool is_paused;         /* the daemon is about to stop */
    struct progress *nodes; /* owned */
    size_t node_count, node_capacity;
};

/* Remembers the request that was sent last as a stream. Nothing to do unless resuming is on. */
int resume_stream_open(struct personad_client *client, uint64_t id);

/* False: the program has seen this event. Else it holds only what is new of it. A stream's last
 * event ends it. */
bool resume_event_take(struct personad_client *client, struct personad_event *event);

/* The connection has ended: connects again and sends what is open, waiting at most timeout_ms
 * (negative: as long as resuming may). AGAIN: that time passed, try later. CLOSED: it took too
 * long, or resuming is off. */
int resume_connect(struct personad_client *client, int timeout_ms);

/* The client key of the next request, valid until the one after it is made: the program's, else one
 * of its own, else (resuming is off) size 0. */
ProtobufCBinaryData resume_key(struct personad_client *client);

void resume_finish(struct personad_client *client);

#endif
