/* Goal: a journal in which any value is another one than was written never ends the daemon: it is
 * refused with a sentence, or the session is, or what it says is served; requests are answered, and
 * nothing hangs or reads what is not there.
 * Method: a random tree is played (tree_play.h) and stopped; then, in processes of their own, one
 * value of one row of any table is changed (damage.h), the daemon started again, and everything
 * asked about every session and node. Twin: a loader that overlooks what is damaged is caught.
 * Usage: sim_test_damage [first seed [count [damages [tell]]]]; a failure prints what was changed.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "sim/tree_damage.h"
#include "sim/tree_plant.h"
#include "sim/tree_play.h"

enum {
    SEED_COUNT = 3,
    DAMAGE_COUNT = 40,
    OPERATION_COUNT = 50,
    RUN_SECONDS_MAX = 60,
};

static struct tree_damage *damage; /* shared with the runs */
static struct {
    uint64_t done, refused, answers, errors;
} * sum;

/* What has ended it before its time, or NULL. A sanitizer makes an exit of it. */
static const char *wait_for(pid_t child)
{
    int how = 0;

    CHECK(waitpid(child, &how, 0) == child);
    if (WIFSIGNALED(how)) {
        return strsignal(WTERMSIG(how));
    }
    return WEXITSTATUS(how) == 0 ? NULL : "it ended itself";
}

/* In a process that has played the tree. */
static bool explore(uint64_t seed, uint64_t number)
{
    const char *end;
    pid_t child;

    memset(damage, 0, sizeof(*damage));
    (void)fflush(NULL);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        (void)alarm(RUN_SECONDS_MAX);
        tree_explore(seed * 100000 + number, damage);
        _exit(0);
    }
    end = wait_for(child);
    if (end != NULL || damage->problem[0] != '\0') {
        (void)printf("seed %llu, damage %llu of %s: %s\n", (unsigned long long)seed,
                     (unsigned long long)number, damage->what, end != NULL ? end : damage->problem);
        return false;
    }
    return true;
}

/* The damages of one seed, in a process that plays its tree once. How many were found wanting. */
static int play_seed(uint64_t seed, uint64_t count, bool is_told)
{
    static struct tree_op ops[OPERATION_COUNT];
    pid_t child;
    int how = 0;

    (void)fflush(NULL);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        int failures = 0;

        if (!is_told) {
            (void)freopen("/dev/null", "w", stderr); /* the tree is played with faults */
        }
        tree_play_draw(seed, ops, OPERATION_COUNT);
        tree_build(seed, ops, OPERATION_COUNT);
        for (uint64_t number = 0; number < count; number++) {
            failures += !explore(seed, number);
            sum->done += damage->is_done;
            sum->refused += damage->is_refused;
            sum->answers += damage->answers;
            sum->errors += damage->errors;
        }
        (void)fflush(stdout);
        _exit(failures < 200 ? failures : 200);
    }
    CHECK(waitpid(child, &how, 0) == child);
    return WIFEXITED(how) ? WEXITSTATUS(how) : 1;
}

int main(int argc, char **argv)
{
    const uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    const uint64_t count = argc > 2 ? strtoull(argv[2], NULL, 10) : SEED_COUNT;
    const uint64_t damages = argc > 3 ? strtoull(argv[3], NULL, 10) : DAMAGE_COUNT;
    int failures = 0;

    log_level_set(LOG_ERROR);
    damage = mmap(NULL, sizeof(*damage), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    sum = mmap(NULL, sizeof(*sum), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(damage != MAP_FAILED && sum != MAP_FAILED);
    for (uint64_t seed = first; seed < first + count; seed++) {
        failures += play_seed(seed, damages, argc > 4);
    }
    printf("%llu values changed; %llu times it did not start, else %llu answers and %llu errors\n",
           (unsigned long long)sum->done, (unsigned long long)sum->refused,
           (unsigned long long)sum->answers, (unsigned long long)sum->errors);
    if (argc == 1) {
        printf("%s, which must be caught:\n", tree_plant_name(PLANT_LOAD));
        tree_plant_set(PLANT_LOAD);
        if (play_seed(first, 2 * DAMAGE_COUNT, false) == 0) {
            (void)fprintf(stderr, "planted and not caught: %s\n", tree_plant_name(PLANT_LOAD));
            failures++;
        }
        failures += sum->done < count * damages / 2 || sum->errors == 0;
    }
    return failures == 0 ? 0 : 1;
}
