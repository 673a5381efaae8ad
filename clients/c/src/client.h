/* Inside the C client: the handle, one received message, and what the files share.
 *
 * Thread: that of the handle. Messages are owned by the handle: `current` lives until the next
 * call.
 */
#ifndef PERSONAD_CLIENTS_C_SRC_CLIENT_H
#define PERSONAD_CLIENTS_C_SRC_CLIENT_H

#include "personad.pb-c.h"
#include "personad_client.h"

enum {
    CLIENT_FRAME_HEADER_BYTES = 4,
    CLIENT_FRAME_BYTES_MAX = 64 * 1024 * 1024, /* what Hello answers is lower */
    CLIENT_QUEUE_COUNT_MAX = 65536, /* events that wait while a blocking call is answered */
    CLIENT_HELLO_MS_MAX = 10000,    /* a daemon that hangs must not hang a health check */
    CLIENT_PATH_BYTES_MAX = 512,
};

/* One Reply and the memory of what it was converted to. */
struct message {
    struct message *next;
    Personad__V1__Reply *reply; /* owned */
    struct block *blocks;       /* owned */
};

struct personad_client {
    int fd;
    uint8_t *in; /* owned */
    size_t in_size, in_capacity;
    uint8_t *out; /* owned */
    size_t out_size, out_capacity;
    uint8_t *sent; /* owned: the body of the last request */
    size_t sent_size, sent_capacity;
    char path[CLIENT_PATH_BYTES_MAX];
    uint64_t next_id;
    uint32_t frame_bytes_max;
    struct message *first, *last; /* received, not handed out */
    size_t queue_count;
    struct message *current; /* handed out */
    struct personad_event event;
    struct personad_error error;

    /* resume.h */
    int resume_ms;          /* 0: off */
    int64_t lost_ms;        /* when the connection was lost; 0: it was not */
    struct stream *streams; /* owned */
    uint64_t key_random[2];
    char key[65];
    char next_key[65]; /* the program's, for the next request; empty: none */
    void (*on_change)(void *context, bool is_back);
    void *on_change_context;
};

/* Fills the handle's error and returns the code. */
int client_fail(struct personad_client *client, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The same from what the daemon said. */
int client_error(struct personad_client *client, const Personad__V1__Error *error);

/* Appends the request to the output with a fresh id, which is returned; 0 on failure. While
 * resuming is on, a request without a client key gets one. */
uint64_t client_send(struct personad_client *client, Personad__V1__Request *request);

/* The same of a packed request. */
int client_send_body(struct personad_client *client, const uint8_t *body, size_t size);

/* Connects to client->path, anew if need be, and says Hello. What streams have queued stays. */
int client_open(struct personad_client *client);

int64_t client_now_ms(void); /* monotonic */

/* Sends and waits for the one reply, which becomes `current`. An Error reply becomes the code.
 * timeout_ms negative: no limit; else AGAIN when it passed. */
int client_call(struct personad_client *client, Personad__V1__Request *request, int timeout_ms,
                const Personad__V1__Reply **reply);

/* A request of that operation with that body, which is borrowed: one of the messages in
 * Request.op. */
Personad__V1__Request client_request(Personad__V1__Request__OpCase op, void *body);

/* client_call() of such a request without a time limit, for a reply of that kind. Anything else is
 * PERSONAD_PROTOCOL. */
int client_ask(struct personad_client *client, Personad__V1__Request__OpCase op, void *body,
               Personad__V1__Reply__ResultCase wanted, const Personad__V1__Reply **reply);

/* The next reply to a request that was answered with `more`, in the same way; a lost connection is
 * PERSONAD_CLOSED. */
int client_more(struct personad_client *client, uint64_t id, int wanted,
                const Personad__V1__Reply **reply);

/* The protocol's form of cast entries; borrows their texts. */
struct client_cast {
    Personad__V1__CastEntry entries[PERSONAD_CAST_COUNT_MAX];
    Personad__V1__CastEntry *list[PERSONAD_CAST_COUNT_MAX];
};

int client_cast(struct personad_client *client, const struct personad_cast_entry *entries,
                size_t count, struct client_cast *out);

int client_no_memory(struct personad_client *client);

/* The first node of a Created reply. */
int client_one_node(struct personad_client *client, const Personad__V1__Reply *reply,
                    const struct personad_node **out);

/* Takes the oldest queued message, reading for at most timeout_ms when there is none. */
int client_receive(struct personad_client *client, int timeout_ms, struct message **out);

/* Frees what was handed out last. */
void client_release_current(struct personad_client *client);

/* Zeroed memory that dies with the message; NULL when there is none. */
void *message_alloc(struct message *message, size_t count, size_t bytes);
void message_destroy(struct message *message);

/* The protocol's form: what is borrowed stays borrowed. A position that is NULL leaves its field
 * out. */
ProtobufCBinaryData data_of(struct personad_text text);
ProtobufCBinaryData data_of_string(const char *text);
Personad__V1__Position *client_position(const struct personad_position *position,
                                        Personad__V1__Position *room);

/* Conversions; arrays live in the message. NULL or false: out of memory. */
struct personad_text text_of(bool has, ProtobufCBinaryData data);
struct personad_position position_of(const Personad__V1__Position *position);
struct personad_numbers numbers_of(const Personad__V1__Numbers *numbers);
struct personad_node node_of(const Personad__V1__NodeInfo *node);
struct personad_persona persona_of(const Personad__V1__PersonaInfo *persona);
bool session_of(struct message *message, const Personad__V1__SessionInfo *session,
                struct personad_session *out);
const struct personad_node *nodes_of(struct message *message, Personad__V1__NodeInfo *const *nodes,
                                     size_t count);

#endif
