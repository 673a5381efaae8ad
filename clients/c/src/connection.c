#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "client.h"
#include "resume.h"

struct block {
    struct block *next;
    _Alignas(16) uint8_t bytes[];
};

void *message_alloc(struct message *message, size_t count, size_t bytes)
{
    if (bytes != 0 && count > (SIZE_MAX - sizeof(struct block)) / bytes) {
        return NULL;
    }
    struct block *block = calloc(1, sizeof *block + count * bytes);
    if (block == NULL) {
        return NULL;
    }
    block->next = message->blocks;
    message->blocks = block;
    return block->bytes;
}

void message_destroy(struct message *message)
{
    if (message == NULL) {
        return;
    }
    while (message->blocks != NULL) {
        struct block *next = message->blocks->next;
        free(message->blocks);
        message->blocks = next;
    }
    personad__v1__reply__free_unpacked(message->reply, NULL);
    free(message);
}

int client_fail(struct personad_client *client, int code, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    client->error.code = code;
    (void)vsnprintf(client->error.text, sizeof client->error.text, format, list);
    va_end(list);
    return code;
}

void client_release_current(struct personad_client *client)
{
    message_destroy(client->current);
    client->current = NULL;
}

static bool room_make(uint8_t **bytes, size_t *capacity, size_t wanted)
{
    if (wanted <= *capacity) {
        return true;
    }
    size_t grown = *capacity == 0 ? 4096 : *capacity;
    while (grown < wanted) {
        grown *= 2;
    }
    uint8_t *moved = realloc(*bytes, grown);
    if (moved == NULL) {
        return false;
    }
    *bytes = moved;
    *capacity = grown;
    return true;
}

/* ---------------------------------------------------------------- bytes */

static int output_flush(struct personad_client *client)
{
    size_t sent = 0;
    int code = PERSONAD_OK;
    while (sent < client->out_size) {
        const ssize_t count =
            send(client->fd, client->out + sent, client->out_size - sent, MSG_NOSIGNAL);
        if (count < 0 && errno == EINTR) {
            continue;
        }
        if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            break;
        }
        if (count < 0) {
            code = client_fail(client, PERSONAD_CLOSED, "the daemon closed the connection: %s",
                               strerror(errno));
            break;
        }
        sent += (size_t)count;
    }
    if (sent > 0) {
        memmove(client->out, client->out + sent, client->out_size - sent);
        client->out_size -= sent;
    }
    return code;
}

static uint32_t length_load(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
           (uint32_t)bytes[3] << 24;
}

static int message_queue(struct personad_client *client, const uint8_t *body, size_t size)
{
    if (client->queue_count >= CLIENT_QUEUE_COUNT_MAX) {
        return client_fail(client, PERSONAD_LIMIT, "%d events wait; take them with personad_next()",
                           CLIENT_QUEUE_COUNT_MAX);
    }
    struct message *message = calloc(1, sizeof *message);
    if (message == NULL) {
        return client_fail(client, PERSONAD_OUT_OF_MEMORY, "out of memory");
    }
    message->reply = personad__v1__reply__unpack(NULL, size, body);
    if (message->reply == NULL) {
        message_destroy(message);
        return client_fail(client, PERSONAD_PROTOCOL, "the daemon sent a malformed reply");
    }
    if (client->last == NULL) {
        client->first = message;
    } else {
        client->last->next = message;
    }
    client->last = message;
    client->queue_count++;
    return PERSONAD_OK;
}

/* A frame that cannot be taken stays: nothing is skipped, and what is no frame stays an error. */
static int input_parse(struct personad_client *client)
{
    size_t at = 0;
    int code = PERSONAD_OK;
    while (code == PERSONAD_OK && client->in_size - at >= CLIENT_FRAME_HEADER_BYTES) {
        const uint32_t size = length_load(client->in + at);
        if (size > client->frame_bytes_max) {
            code =
                client_fail(client, PERSONAD_PROTOCOL, "the daemon sent a frame of %u bytes", size);
            break;
        }
        if (client->in_size - at - CLIENT_FRAME_HEADER_BYTES < size) {
            break;
        }
        code = message_queue(client, client->in + at + CLIENT_FRAME_HEADER_BYTES, size);
        at += code == PERSONAD_OK ? CLIENT_FRAME_HEADER_BYTES + size : 0;
    }
    if (at > 0) {
        memmove(client->in, client->in + at, client->in_size - at);
        client->in_size -= at;
    }
    return code;
}

static int input_read(struct personad_client *client)
{
    for (;;) {
        const int code = input_parse(client);
        if (code != PERSONAD_OK) {
            return code;
        }
        if (!room_make(&client->in, &client->in_capacity, client->in_size + 65536)) {
            return client_fail(client, PERSONAD_OUT_OF_MEMORY, "out of memory");
        }
        const ssize_t count = recv(client->fd, client->in + client->in_size,
                                   client->in_capacity - client->in_size, MSG_DONTWAIT);
        if (count < 0 && errno == EINTR) {
            continue;
        }
        if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            return PERSONAD_OK;
        }
        if (count <= 0) {
            return client_fail(client, PERSONAD_CLOSED, "the daemon closed the connection");
        }
        client->in_size += (size_t)count;
    }
}

int personad_pump(personad_client *client)
{
    /* Read in any case: a daemon that closes says why before. */
    const int sent = output_flush(client);
    const int code = input_read(client);
    return code != PERSONAD_OK ? code : sent;
}

int64_t client_now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int socket_wait(const struct personad_client *client, int timeout_ms)
{
    struct pollfd poll_fd = {.fd = client->fd,
                             .events = client->out_size > 0 ? POLLIN | POLLOUT : POLLIN};
    return poll(&poll_fd, 1, timeout_ms);
}

int client_receive(struct personad_client *client, int timeout_ms, struct message **out)
{
    const int64_t end_ms = client_now_ms() + timeout_ms;
    while (client->first == NULL) {
        const int code = personad_pump(client);
        if (client->first != NULL) {
            break; /* what came before the end is handed out first */
        }
        if (code != PERSONAD_OK) {
            return code;
        }
        const int64_t left_ms = timeout_ms < 0 ? -1 : end_ms - client_now_ms();
        if (timeout_ms >= 0 && left_ms <= 0) {
            return client_fail(client, PERSONAD_AGAIN, "no event within %d ms", timeout_ms);
        }
        if (socket_wait(client, (int)left_ms) < 0 && errno == EINTR) {
            return client_fail(client, PERSONAD_AGAIN, "interrupted by a signal");
        }
    }
    struct message *message = client->first;
    client->first = message->next;
    if (client->first == NULL) {
        client->last = NULL;
    }
    message->next = NULL;
    client->queue_count--;
    *out = message;
    return PERSONAD_OK;
}

/* ---------------------------------------------------------------- requests */

int client_send_body(struct personad_client *client, const uint8_t *body, size_t size)
{
    if (!room_make(&client->out, &client->out_capacity,
                   client->out_size + CLIENT_FRAME_HEADER_BYTES + size)) {
        return client_fail(client, PERSONAD_OUT_OF_MEMORY, "out of memory");
    }
    uint8_t *to = client->out + client->out_size;
    for (int i = 0; i < CLIENT_FRAME_HEADER_BYTES; i++) {
        to[i] = (uint8_t)(size >> (8 * i));
    }
    memcpy(to + CLIENT_FRAME_HEADER_BYTES, body, size);
    client->out_size += CLIENT_FRAME_HEADER_BYTES + size;
    (void)output_flush(client); /* a broken connection shows when the answer is awaited */
    return PERSONAD_OK;
}

uint64_t client_send(struct personad_client *client, Personad__V1__Request *request)
{
    client_release_current(client);
    request->id = client->next_id;
    request->has_id = true;
    if (!request->has_client_key && request->op_case != PERSONAD__V1__REQUEST__OP_HELLO) {
        request->client_key = resume_key(client);
        request->has_client_key = request->client_key.len > 0;
    }
    const size_t size = personad__v1__request__get_packed_size(request);
    if (size > client->frame_bytes_max) {
        client_fail(client, PERSONAD_LIMIT, "the request has %zu bytes; a frame holds %u", size,
                    client->frame_bytes_max);
        return 0;
    }
    if (!room_make(&client->sent, &client->sent_capacity, size)) {
        client_fail(client, PERSONAD_OUT_OF_MEMORY, "out of memory");
        return 0;
    }
    client->sent_size = personad__v1__request__pack(request, client->sent);
    if (client_send_body(client, client->sent, client->sent_size) != PERSONAD_OK) {
        return 0;
    }
    client->next_id++;
    return request->id;
}

/* Takes the message that answers `id` out of the queue; NULL when it is not there. */
static struct message *queue_take(struct personad_client *client, uint64_t id)
{
    struct message *before = NULL;
    for (struct message *message = client->first; message != NULL; message = message->next) {
        if (message->reply->id == id || message->reply->id == 0) {
            if (before == NULL) {
                client->first = message->next;
            } else {
                before->next = message->next;
            }
            if (client->last == message) {
                client->last = before;
            }
            message->next = NULL;
            client->queue_count--;
            return message;
        }
        before = message;
    }
    return NULL;
}

int client_error(struct personad_client *client, const Personad__V1__Error *error)
{
    const struct personad_text text = text_of(error->has_text, error->text);
    const int code = error->has_code ? (int)error->code : PERSONAD_PROTOCOL;
    return client_fail(client, code > 0 ? code : PERSONAD_PROTOCOL, "%.*s", (int)text.size,
                       text.data != NULL ? text.data : "");
}

/* Waits for the answer to request `id`, which is taken out of the queue. */
static int answer_wait(struct personad_client *client, uint64_t id, int timeout_ms,
                       struct message **out)
{
    const int64_t end_ms = client_now_ms() + timeout_ms;
    for (;;) {
        const int code = personad_pump(client);
        *out = queue_take(client, id); /* what came before the end is still an answer */
        if (*out != NULL || code != PERSONAD_OK) {
            return *out != NULL ? PERSONAD_OK : code;
        }
        const int64_t left_ms = timeout_ms < 0 ? -1 : end_ms - client_now_ms();
        if (timeout_ms >= 0 && left_ms <= 0) {
            return client_fail(client, PERSONAD_AGAIN, "no answer within %d ms", timeout_ms);
        }
        /* A signal does not end a call: the answer is on its way. */
        (void)socket_wait(client, (int)left_ms);
    }
}

static bool is_stopping(const struct message *message)
{
    const Personad__V1__Reply *reply = message->reply;
    return reply->result_case == PERSONAD__V1__REPLY__RESULT_ERROR &&
           reply->error->code == PERSONAD__V1__ERROR_CODE__STOPPING;
}

/* A call that a daemon did not answer before it went away is sent to the one that came back. */
static int call_resume(struct personad_client *client, uint64_t id, struct message **out)
{
    const size_t size = client->sent_size;
    uint8_t *body = malloc(size); /* connecting sends requests of its own */
    if (body == NULL) {
        return client_fail(client, PERSONAD_OUT_OF_MEMORY, "out of memory");
    }
    memcpy(body, client->sent, size);
    int code = PERSONAD_CLOSED;
    while (code == PERSONAD_CLOSED) {
        message_destroy(*out);
        *out = NULL;
        do {
            code = resume_connect(client, -1);
        } while (code == PERSONAD_AGAIN); /* a signal does not end a call */
        if (code != PERSONAD_OK) {
            break;
        }
        code = client_send_body(client, body, size);
        if (code == PERSONAD_OK) {
            code = answer_wait(client, id, -1, out);
        }
        if (code == PERSONAD_OK && is_stopping(*out)) {
            code = PERSONAD_CLOSED;
        }
    }
    free(body);
    return code;
}

/* The message becomes the current one; an Error is the code. */
static int answer_take(struct personad_client *client, struct message *message,
                       const Personad__V1__Reply **reply)
{
    client_release_current(client); /* a Hello, if the connection was made anew */
    client->current = message;
    if (message->reply->result_case == PERSONAD__V1__REPLY__RESULT_ERROR) {
        return client_error(client, message->reply->error);
    }
    *reply = message->reply;
    return PERSONAD_OK;
}

int client_call(struct personad_client *client, Personad__V1__Request *request, int timeout_ms,
                const Personad__V1__Reply **reply)
{
    const uint64_t id = client_send(client, request);
    if (id == 0) {
        return client->error.code;
    }
    struct message *message = NULL;
    int code = answer_wait(client, id, timeout_ms, &message);
    const bool is_lost = code == PERSONAD_CLOSED || (code == PERSONAD_OK && is_stopping(message));
    if (is_lost && client->resume_ms != 0 && timeout_ms < 0) {
        code = call_resume(client, id, &message);
    }
    return code != PERSONAD_OK ? code : answer_take(client, message, reply);
}

int client_more(struct personad_client *client, uint64_t id, int wanted,
                const Personad__V1__Reply **reply)
{
    struct message *message = NULL;
    client_release_current(client);
    int code = answer_wait(client, id, -1, &message);
    if (code == PERSONAD_OK) {
        code = answer_take(client, message, reply);
    }
    if (code == PERSONAD_OK && (int)(*reply)->result_case != wanted) {
        code = client_fail(client, PERSONAD_PROTOCOL, "the daemon answered something else");
    }
    return code;
}

/* ---------------------------------------------------------------- connecting */

bool personad_default_socket(char *path, size_t size)
{
    const char *named = getenv("PERSONAD_SOCKET");
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    int made;
    if (named != NULL && named[0] != '\0') {
        made = snprintf(path, size, "%s", named);
    } else if (runtime != NULL && runtime[0] == '/') {
        made = snprintf(path, size, "%s/personad/personad.sock", runtime);
    } else {
        made = snprintf(path, size, "/tmp/personad-%lu/personad.sock", (unsigned long)getuid());
    }
    return made > 0 && (size_t)made < size;
}

static int socket_connect(struct personad_client *client, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) {
        return client_fail(client, PERSONAD_USAGE, "%s: the path is too long for a socket", path);
    }
    memcpy(address.sun_path, path, strlen(path));
    client->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (client->fd < 0 || connect(client->fd, (struct sockaddr *)&address, sizeof address) != 0) {
        return client_fail(client, PERSONAD_NO_DAEMON, "no daemon answers on %s: %s", path,
                           strerror(errno));
    }
    const int flags = fcntl(client->fd, F_GETFL);
    if (flags < 0 || fcntl(client->fd, F_SETFL, flags | O_NONBLOCK) != 0) {
        return client_fail(client, PERSONAD_IO, "%s: %s", path, strerror(errno));
    }
    return PERSONAD_OK;
}

static int hello(struct personad_client *client)
{
    static uint8_t name[] = "personad C client";
    Personad__V1__HelloRequest body = PERSONAD__V1__HELLO_REQUEST__INIT;
    body.has_protocol = true;
    body.protocol = 1;
    body.has_client = true;
    body.client = (ProtobufCBinaryData){sizeof name - 1, name};
    Personad__V1__Request request = PERSONAD__V1__REQUEST__INIT;
    request.op_case = PERSONAD__V1__REQUEST__OP_HELLO;
    request.hello = &body;
    const Personad__V1__Reply *reply = NULL;
    const int code = client_call(client, &request, CLIENT_HELLO_MS_MAX, &reply);
    if (code == PERSONAD_AGAIN) {
        return client_fail(client, PERSONAD_NO_DAEMON,
                           "the socket is there, but no daemon "
                           "answers within %d ms",
                           CLIENT_HELLO_MS_MAX);
    }
    if (code != PERSONAD_OK) {
        return code;
    }
    if (reply == NULL || reply->result_case != PERSONAD__V1__REPLY__RESULT_HELLO) {
        return client_fail(client, PERSONAD_PROTOCOL, "what answers there is no personad");
    }
    if (reply->hello->has_frame_bytes_max) {
        client->frame_bytes_max = reply->hello->frame_bytes_max;
    }
    return PERSONAD_OK;
}

/* What the connection itself said belongs to the one that has ended. */
static void queue_drop_connection(struct personad_client *client)
{
    struct message **link = &client->first;
    client->last = NULL;
    while (*link != NULL) {
        struct message *message = *link;
        if (message->reply->id == 0) {
            *link = message->next;
            message_destroy(message);
            client->queue_count--;
        } else {
            client->last = message;
            link = &message->next;
        }
    }
}

int client_open(struct personad_client *client)
{
    if (client->fd >= 0) {
        (void)close(client->fd);
        client->fd = -1;
    }
    client->in_size = client->out_size = 0;
    queue_drop_connection(client);
    const int code = socket_connect(client, client->path);
    return code == PERSONAD_OK ? hello(client) : code;
}

personad_client *personad_connect(const char *path, struct personad_error *error)
{
    struct personad_error ignored;
    struct personad_error *told = error != NULL ? error : &ignored;
    *told = (struct personad_error){PERSONAD_OUT_OF_MEMORY, "out of memory"};
    struct personad_client *client = calloc(1, sizeof *client);
    if (client == NULL) {
        return NULL;
    }
    client->fd = -1;
    client->next_id = 1;
    client->frame_bytes_max = CLIENT_FRAME_BYTES_MAX;
    const bool fits = path != NULL ? snprintf(client->path, sizeof client->path, "%s", path) <
                                         (int)sizeof client->path
                                   : personad_default_socket(client->path, sizeof client->path);
    const int code =
        fits ? client_open(client)
             : client_fail(client, PERSONAD_USAGE, "the path of the socket is too long");
    if (code != PERSONAD_OK) {
        *told = client->error;
        personad_close(client);
        return NULL;
    }
    *told = (struct personad_error){PERSONAD_OK, ""};
    return client;
}

void personad_close(personad_client *client)
{
    if (client == NULL) {
        return;
    }
    while (client->first != NULL) {
        struct message *next = client->first->next;
        message_destroy(client->first);
        client->first = next;
    }
    client_release_current(client);
    if (client->fd >= 0) {
        (void)close(client->fd);
    }
    resume_finish(client);
    free(client->in);
    free(client->out);
    free(client->sent);
    free(client);
}

int personad_fd(const personad_client *client)
{
    return client->fd;
}

bool personad_wants_write(const personad_client *client)
{
    return client->out_size > 0;
}

const struct personad_error *personad_last_error(const personad_client *client)
{
    return &client->error;
}
