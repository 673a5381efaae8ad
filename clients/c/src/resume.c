#include "resume.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum {
    RETRY_MS = 100, /* between two tries to connect */
    NODE_CAPACITY_FIRST = 8,
};

void personad_resume(personad_client *client, int timeout_ms,
                     void (*on_change)(void *context, bool is_back), void *context)
{
    client->resume_ms = timeout_ms;
    client->on_change = on_change;
    client->on_change_context = context;
}

void personad_next_key(personad_client *client, const char *key)
{
    (void)snprintf(client->next_key, sizeof client->next_key, "%s", key);
}

ProtobufCBinaryData resume_key(struct personad_client *client)
{
    if (client->next_key[0] != '\0') {
        const size_t length = strlen(client->next_key);
        memcpy(client->key, client->next_key, length);
        client->next_key[0] = '\0';
        return (ProtobufCBinaryData){length, (uint8_t *)client->key};
    }
    if (client->resume_ms == 0) {
        return (ProtobufCBinaryData){0, NULL};
    }
    uint64_t *random = client->key_random;
    if (random[0] == 0 && getrandom(random, sizeof client->key_random, 0) < 0) {
        return (ProtobufCBinaryData){0, NULL};
    }
    const int size =
        snprintf(client->key, sizeof client->key, "%016" PRIx64 "%016" PRIx64 "-%" PRIu64,
                 random[0], random[1], client->next_id);
    return (ProtobufCBinaryData){(size_t)size, (uint8_t *)client->key};
}

/* ---------------------------------------------------------------- streams */

static struct stream *stream_find(struct personad_client *client, uint64_t id)
{
    struct stream *stream = client->streams;
    while (stream != NULL && stream->id != id) {
        stream = stream->next;
    }
    return stream;
}

static void stream_destroy(struct stream *stream)
{
    free(stream->body);
    free(stream->nodes);
    free(stream);
}

static void stream_close(struct personad_client *client, struct stream *gone)
{
    struct stream **link = &client->streams;
    while (*link != gone) {
        link = &(*link)->next;
    }
    *link = gone->next;
    stream_destroy(gone);
}

int resume_stream_open(struct personad_client *client, uint64_t id)
{
    if (client->resume_ms == 0 || id == 0) {
        return PERSONAD_OK;
    }
    struct stream *stream = calloc(1, sizeof *stream);
    uint8_t *body = malloc(client->sent_size);
    if (stream == NULL || body == NULL) {
        free(stream);
        free(body);
        return client_fail(client, PERSONAD_OUT_OF_MEMORY, "out of memory");
    }
    memcpy(body, client->sent, client->sent_size);
    *stream = (struct stream){
        .next = client->streams, .id = id, .body = body, .body_size = client->sent_size};
    client->streams = stream;
    return PERSONAD_OK;
}

static struct progress *progress_of(struct stream *stream, uint64_t node)
{
    for (size_t i = 0; i < stream->node_count; i++) {
        if (stream->nodes[i].node == node) {
            return &stream->nodes[i];
        }
    }
    if (stream->node_count == stream->node_capacity) {
        const size_t capacity =
            stream->node_capacity == 0 ? NODE_CAPACITY_FIRST : 2 * stream->node_capacity;
        struct progress *moved = realloc(stream->nodes, capacity * sizeof *moved);
        if (moved == NULL) {
            return NULL;
        }
        stream->nodes = moved;
        stream->node_capacity = capacity;
    }
    struct progress *progress = &stream->nodes[stream->node_count++];
    *progress = (struct progress){.node = node};
    return progress;
}

/* ---------------------------------------------------------------- what is new of an event */

static void numbers_trim(struct personad_numbers *numbers, struct progress *progress)
{
    const size_t end = numbers->first + numbers->count;
    const size_t seen = progress->numbers > numbers->first ? progress->numbers - numbers->first : 0;
    const size_t cut = seen < numbers->count ? seen : numbers->count;
    if (cut > 0) {
        numbers->first += (uint32_t)cut;
        numbers->count -= cut;
        numbers->tokens += cut;
        numbers->logprobs += cut;
        numbers->sampler_logprobs += cut;
        numbers->entropies += cut;
        if (numbers->top_count > 0) {
            numbers->top_tokens += cut * numbers->top_count;
            numbers->top_logprobs += cut * numbers->top_count;
        }
    }
    if (end > progress->numbers) {
        progress->numbers = (uint32_t)end;
    }
}

static bool tokens_trim(struct personad_event *event, struct progress *progress)
{
    const uint32_t token_end = event->first_token + event->token_count;
    const uint32_t byte_end = event->first_byte + (uint32_t)event->text.size;
    if (token_end <= progress->tokens && byte_end <= progress->bytes) {
        return false;
    }
    if (event->first_token < progress->tokens) {
        const uint32_t cut = progress->tokens - event->first_token;
        event->token_count -= cut < event->token_count ? cut : event->token_count;
        event->first_token = progress->tokens;
    }
    if (event->first_byte < progress->bytes) {
        const size_t seen = progress->bytes - event->first_byte;
        const size_t cut = seen < event->text.size ? seen : event->text.size;
        event->text.data = cut > 0 ? event->text.data + cut : event->text.data;
        event->text.size -= cut;
        event->first_byte = progress->bytes;
    }
    progress->tokens = token_end > progress->tokens ? token_end : progress->tokens;
    progress->bytes = byte_end > progress->bytes ? byte_end : progress->bytes;
    numbers_trim(&event->numbers, progress);
    return true;
}

static bool is_new(struct stream *stream, struct personad_event *event)
{
    if (event->type == PERSONAD_EVENT_CREATED) {
        const bool is_first = !stream->is_created;
        stream->is_created = true;
        return is_first || event->last;
    }
    if (event->type != PERSONAD_EVENT_TOKENS && event->type != PERSONAD_EVENT_FINISHED) {
        return true;
    }
    struct progress *progress = progress_of(stream, event->node_id);
    if (progress == NULL) {
        return true; /* without memory the program may see a piece twice, but misses none */
    }
    if (event->type == PERSONAD_EVENT_TOKENS) {
        return tokens_trim(event, progress);
    }
    const bool is_first = !progress->is_finished;
    progress->is_finished = true;
    return is_first;
}

/* A daemon that stops ends what it reads out, and goes on with it after its next start: the node is
 * interrupted, and its error says why. */
static bool is_pause(const struct personad_client *client, const struct personad_event *event)
{
    const Personad__V1__Reply *reply = client->current->reply;
    if (event->type == PERSONAD_EVENT_ERROR) {
        return event->error.code == PERSONAD_STOPPING;
    }
    if (event->type != PERSONAD_EVENT_FINISHED || reply->finished->node->error == NULL) {
        return false;
    }
    return reply->finished->node->error->code == PERSONAD__V1__ERROR_CODE__STOPPING;
}

bool resume_event_take(struct personad_client *client, struct personad_event *event)
{
    struct stream *stream = stream_find(client, event->request);
    if (stream == NULL) {
        return true;
    }
    if (is_pause(client, event)) {
        stream->is_paused = true;
    }
    if (stream->is_paused && event->type != PERSONAD_EVENT_TOKENS) {
        return false; /* the connection ends soon, and the next daemon is asked again */
    }
    const bool wanted = is_new(stream, event);
    if (event->last) {
        stream_close(client, stream);
    }
    return wanted;
}

/* ---------------------------------------------------------------- coming back */

static int streams_send(struct personad_client *client)
{
    /* Oldest first, as they were sent before. */
    uint64_t after = 0;
    for (;;) {
        struct stream *next = NULL;
        for (struct stream *stream = client->streams; stream != NULL; stream = stream->next) {
            if (stream->id > after && (next == NULL || stream->id < next->id)) {
                next = stream;
            }
        }
        if (next == NULL) {
            return PERSONAD_OK;
        }
        next->is_paused = false;
        const int code = client_send_body(client, next->body, next->body_size);
        if (code != PERSONAD_OK) {
            return code;
        }
        after = next->id;
    }
}

static void tell(struct personad_client *client, bool is_back)
{
    if (client->on_change != NULL) {
        client->on_change(client->on_change_context, is_back);
    }
}

int resume_connect(struct personad_client *client, int timeout_ms)
{
    if (client->resume_ms == 0) {
        return PERSONAD_CLOSED;
    }
    const int64_t begin_ms = client_now_ms();
    if (client->lost_ms == 0) {
        client->lost_ms = begin_ms;
        tell(client, false);
    }
    for (;;) {
        int code = client_open(client);
        if (code == PERSONAD_OK) {
            code = streams_send(client);
        }
        if (code == PERSONAD_OK) {
            client->lost_ms = 0;
            tell(client, true);
            return PERSONAD_OK;
        }
        const int64_t now_ms = client_now_ms();
        if (client->resume_ms > 0 && now_ms - client->lost_ms >= client->resume_ms) {
            return client_fail(client, PERSONAD_CLOSED,
                               "the daemon went away and did not come back within %d s",
                               client->resume_ms / 1000);
        }
        if (timeout_ms >= 0 && now_ms - begin_ms >= timeout_ms) {
            return client_fail(client, PERSONAD_AGAIN, "the daemon is not back yet");
        }
        if (poll(NULL, 0, RETRY_MS) < 0 && errno == EINTR) {
            return client_fail(client, PERSONAD_AGAIN, "interrupted by a signal");
        }
    }
}

void resume_finish(struct personad_client *client)
{
    while (client->streams != NULL) {
        stream_close(client, client->streams);
    }
}
