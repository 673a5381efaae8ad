/* Goal: the socket is the daemon's own from its first moment, a left-over one is replaced, one that
 * somebody serves is not, and every refusal names the path.
 * Method: a folder of the test's own; modes are read back, a second bind plays the second daemon,
 * a socket closed without unlink plays the crash. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "limits.h"
#include "wire/socket.h"

static char folder[64];
static char path[80];

static int setup(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof folder, "/tmp/pd-socket-XXXXXX");
    if (mkdtemp(folder) == NULL) {
        return -1;
    }
    (void)snprintf(path, sizeof path, "%s/s", folder);
    return 0;
}

static int teardown(void **state)
{
    char lock[90];
    (void)state;
    (void)snprintf(lock, sizeof lock, "%s.lock", path);
    (void)unlink(path);
    (void)unlink(lock);
    return rmdir(folder);
}

static struct socket_listening bind_well(void)
{
    struct socket_listening made = {-1, -1};
    struct error error = {STATUS_OK, "", NULL, 0};
    const enum status status = socket_bind(path, NULL, &error, &made);
    if (status != STATUS_OK) {
        fail_msg("%s", error.text);
    }
    return made;
}

static void expect_refusal(const char *where, const char *group, enum status status,
                           const char *word)
{
    struct socket_listening made = {-1, -1};
    struct error error = {STATUS_OK, "", NULL, 0};
    assert_int_equal(socket_bind(where, group, &error, &made), status);
    assert_non_null(strstr(error.text, word));
    assert_int_equal(made.descriptor, -1);
    assert_int_equal(made.lock, -1);
}

static void the_owner_alone_may_connect_whatever_the_umask(void **state)
{
    struct stat info;
    (void)state;
    const mode_t before = umask(0);
    struct socket_listening made = bind_well();
    (void)umask(before);
    assert_int_equal(stat(path, &info), 0);
    assert_true(S_ISSOCK(info.st_mode));
    assert_int_equal(info.st_mode & 0777, 0600);
    assert_true((fcntl(made.descriptor, F_GETFD) & FD_CLOEXEC) != 0);
    assert_true((fcntl(made.descriptor, F_GETFL) & O_NONBLOCK) != 0);
    (void)close(made.descriptor);
    socket_release(path, &made);
    assert_int_not_equal(access(path, F_OK), 0);
}

static void a_second_daemon_is_refused_until_the_first_lets_go(void **state)
{
    (void)state;
    struct socket_listening first = bind_well();
    expect_refusal(path, NULL, STATUS_CONFLICT, path);
    (void)close(first.descriptor);
    socket_release(path, &first);
    struct socket_listening second = bind_well();
    (void)close(second.descriptor);
    socket_release(path, &second);
}

static void what_a_crash_left_is_replaced(void **state)
{
    (void)state;
    struct socket_listening crashed = bind_well();
    (void)close(crashed.descriptor);
    (void)close(crashed.lock);
    assert_int_equal(access(path, F_OK), 0);
    struct socket_listening next = bind_well();
    (void)close(next.descriptor);
    socket_release(path, &next);
}

static void a_socket_that_is_served_and_a_plain_file_stay(void **state)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)state;
    memcpy(address.sun_path, path, strlen(path));
    const int other = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(other, (const struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(other, 1), 0);
    expect_refusal(path, NULL, STATUS_CONFLICT, path);
    assert_int_equal(access(path, F_OK), 0);
    (void)close(other);
    (void)unlink(path);

    const int file = open(path, O_CREAT | O_WRONLY, 0600);
    assert_true(file >= 0);
    (void)close(file);
    expect_refusal(path, NULL, STATUS_CONFLICT, path);
    assert_int_equal(access(path, F_OK), 0);
}

static void paths_and_groups_that_cannot_be_are_named(void **state)
{
    char longest[SOCKET_PATH_BYTES_MAX + 2];
    (void)state;
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    expect_refusal(longest, NULL, STATUS_BAD_INPUT, "107");
    expect_refusal("", NULL, STATUS_BAD_INPUT, "--socket");
    expect_refusal(path, "no such group here", STATUS_BAD_INPUT, "no such group here");
    expect_refusal("/nonexistent-folder/s", NULL, STATUS_IO, "/nonexistent-folder/s");
}

static void a_peer_is_the_user_that_connected(void **state)
{
    int pair[2];
    uint32_t uid = 0;
    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_int_equal(socket_peer_uid(pair[0], &uid), STATUS_OK);
    assert_int_equal(uid, getuid());
    (void)close(pair[0]);
    (void)close(pair[1]);
    assert_int_equal(socket_peer_uid(pair[0], &uid), STATUS_IO);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_owner_alone_may_connect_whatever_the_umask),
        TEST(a_second_daemon_is_refused_until_the_first_lets_go),
        TEST(what_a_crash_left_is_replaced),
        TEST(a_socket_that_is_served_and_a_plain_file_stay),
        TEST(paths_and_groups_that_cannot_be_are_named),
        TEST(a_peer_is_the_user_that_connected),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
