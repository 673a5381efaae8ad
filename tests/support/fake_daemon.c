#include "support/fake_daemon.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

static void sleep_ms(size_t count)
{
    (void)usleep((useconds_t)(count * 1000));
}

void fake_daemon_init(struct fake_daemon *daemon)
{
    memset(daemon, 0, sizeof *daemon);
    daemon->listener = -1;
}

void fake_daemon_add(struct fake_daemon *daemon, enum fake_daemon_act act, size_t count)
{
    assert_true(daemon->step_count < FAKE_DAEMON_STEP_COUNT_MAX);
    daemon->steps[daemon->step_count++] = (struct fake_daemon_step){act, daemon->byte_count, count};
}

void fake_daemon_add_bytes(struct fake_daemon *daemon, enum fake_daemon_act act, const void *bytes,
                           size_t size)
{
    assert_true(size <= sizeof daemon->bytes - daemon->byte_count);
    fake_daemon_add(daemon, act, size);
    if (size > 0) {
        memcpy(daemon->bytes + daemon->byte_count, bytes, size);
        daemon->byte_count += size;
    }
}

void fake_daemon_add_frame(struct fake_daemon *daemon, enum fake_daemon_act act, const void *body,
                           size_t size)
{
    uint8_t *frame = malloc(size + 4);
    assert_non_null(frame);
    for (size_t i = 0; i < 4; i++) {
        frame[i] = (uint8_t)(size >> (8 * i));
    }
    if (size > 0) {
        memcpy(frame + 4, body, size);
    }
    fake_daemon_add_bytes(daemon, act, frame, size + 4);
    free(frame);
}

/* ---------------------------------------------------------------- the thread */

static size_t read_fully(int fd, uint8_t *bytes, size_t size)
{
    size_t at = 0;
    while (at < size) {
        const ssize_t count = recv(fd, bytes + at, size - at, 0);
        if (count <= 0) {
            break;
        }
        at += (size_t)count;
    }
    return at;
}

static void hear(struct fake_daemon *daemon, int fd)
{
    uint8_t head[4];
    if (read_fully(fd, head, sizeof head) != sizeof head) {
        return;
    }
    size_t left =
        (size_t)head[0] | (size_t)head[1] << 8 | (size_t)head[2] << 16 | (size_t)head[3] << 24;
    daemon->heard_bytes = left;
    const size_t at = daemon->heard_count % FAKE_DAEMON_HEARD_COUNT_MAX;
    daemon->heard_sizes[at] = left;
    for (bool is_first = true; left > 0; is_first = false) {
        uint8_t body[4096];
        const size_t count = read_fully(fd, body, left < sizeof body ? left : sizeof body);
        if (count == 0) {
            return;
        }
        if (is_first) {
            memcpy(daemon->heard[at], body,
                   count < sizeof daemon->heard[at] ? count : sizeof daemon->heard[at]);
        }
        left -= count;
    }
    daemon->heard_count++;
}

static void step_play(struct fake_daemon *daemon, const struct fake_daemon_step *step, int *at)
{
    const uint8_t *bytes = daemon->bytes + step->begin;
    const int fd = *at;
    switch (step->act) {
    case FAKE_DAEMON_HEAR:
        hear(daemon, fd);
        break;
    case FAKE_DAEMON_SEND:
        (void)send(fd, bytes, step->count, MSG_NOSIGNAL);
        break;
    case FAKE_DAEMON_CRUMBS:
        for (size_t i = 0; i < step->count; i++) {
            (void)send(fd, bytes + i, 1, MSG_NOSIGNAL);
            (void)usleep(50);
        }
        break;
    case FAKE_DAEMON_SLEEP:
        sleep_ms(step->count);
        break;
    case FAKE_DAEMON_SIGNAL:
        for (size_t i = 0; i < step->count; i++) {
            (void)pthread_kill(daemon->starter, SIGUSR1);
            sleep_ms(1);
        }
        break;
    case FAKE_DAEMON_RESTART:
        (void)close(fd);
        *at = accept(daemon->listener, NULL, NULL);
        break;
    }
}

static void *play(void *context)
{
    struct fake_daemon *daemon = context;
    int fd = accept(daemon->listener, NULL, NULL);
    for (size_t i = 0; fd >= 0 && i < daemon->step_count; i++) {
        step_play(daemon, &daemon->steps[i], &fd);
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    return NULL;
}

void fake_daemon_start(struct fake_daemon *daemon)
{
    (void)snprintf(daemon->folder, sizeof daemon->folder, "/tmp/pd-fake-XXXXXX");
    assert_non_null(mkdtemp(daemon->folder));
    (void)snprintf(daemon->path, sizeof daemon->path, "%s/s", daemon->folder);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s", daemon->path);
    daemon->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(daemon->listener >= 0);
    assert_int_equal(bind(daemon->listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(daemon->listener, 1), 0);
    daemon->starter = pthread_self();
    assert_int_equal(pthread_create(&daemon->thread, NULL, play, daemon), 0);
}

void fake_daemon_finish(struct fake_daemon *daemon)
{
    assert_int_equal(pthread_join(daemon->thread, NULL), 0);
    (void)close(daemon->listener);
    (void)unlink(daemon->path);
    (void)rmdir(daemon->folder);
}
