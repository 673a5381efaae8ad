/* A daemon that does what a script says: a thread behind a Unix socket that hears requests and
 * answers with prepared bytes, whole or in crumbs, or not at all.
 *
 * Thread: the script is written before fake_daemon_start() and is the thread's until
 * fake_daemon_finish(), which joins it. One connection at a time. Knows frames, not messages.
 */
#ifndef PERSONAD_TESTS_SUPPORT_FAKE_DAEMON_H
#define PERSONAD_TESTS_SUPPORT_FAKE_DAEMON_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

enum {
    FAKE_DAEMON_STEP_COUNT_MAX = 64,
    FAKE_DAEMON_SCRIPT_BYTES_MAX = 1 << 16,
    FAKE_DAEMON_HEARD_COUNT_MAX = 16,
    FAKE_DAEMON_HEARD_BYTES_MAX = 512,
};

enum fake_daemon_act {
    FAKE_DAEMON_HEAR,    /* reads one request frame */
    FAKE_DAEMON_SEND,    /* sends these bytes at once */
    FAKE_DAEMON_CRUMBS,  /* sends them one by one */
    FAKE_DAEMON_SLEEP,   /* `count` milliseconds */
    FAKE_DAEMON_SIGNAL,  /* sends SIGUSR1 to the thread that started it, every millisecond, `count`
                            times */
    FAKE_DAEMON_RESTART, /* closes the connection and waits for the next one */
};

struct fake_daemon_step {
    enum fake_daemon_act act;
    size_t begin, count; /* bytes of the script */
};

struct fake_daemon {
    char folder[32], path[64];
    int listener;
    pthread_t thread, starter;
    struct fake_daemon_step steps[FAKE_DAEMON_STEP_COUNT_MAX];
    size_t step_count;
    uint8_t bytes[FAKE_DAEMON_SCRIPT_BYTES_MAX];
    size_t byte_count;
    size_t heard_count, heard_bytes; /* requests, and the size of the last; read after finish */
    uint8_t heard[FAKE_DAEMON_HEARD_COUNT_MAX][FAKE_DAEMON_HEARD_BYTES_MAX]; /* how each began */
    size_t heard_sizes[FAKE_DAEMON_HEARD_COUNT_MAX];
};

void fake_daemon_init(struct fake_daemon *daemon);
void fake_daemon_add(struct fake_daemon *daemon, enum fake_daemon_act act, size_t count);

/* Adds the body with its length before it. */
void fake_daemon_add_frame(struct fake_daemon *daemon, enum fake_daemon_act act, const void *body,
                           size_t size);

/* Adds bytes as they are. */
void fake_daemon_add_bytes(struct fake_daemon *daemon, enum fake_daemon_act act, const void *bytes,
                           size_t size);

/* Listens, then plays the script to the first client and closes. */
void fake_daemon_start(struct fake_daemon *daemon);

/* Call it when the client's handle is closed. */
void fake_daemon_finish(struct fake_daemon *daemon);

#endif
