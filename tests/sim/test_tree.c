/* Goal: a tree is what was done to it: whatever is opened, said, generated, forked, edited, cut,
 * deleted, evicted, killed or left without power, in any order and at any moment, each node has the
 * place, the tokens and the numbers that the definitions give it, and no page is lost.
 * Method: seeded operations on a whole daemon without sockets (tree_world.h) and on a naive twin
 * that keeps everything in arrays and computes each reply from its definition (tree_model.h);
 * after each operation what the daemon shows is compared, its pages are counted at each step.
 * Faults planted in the daemon's own functions (tree_plant.h) must be caught.
 * Usage: sim_test_tree [first seed [count [operations]]]; a failing list of operations is made
 * short and printed.
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
#include "sim/tree_plant.h"
#include "sim/tree_play.h"

enum {
    SEED_COUNT = 60,
    OPERATION_COUNT = 120,
    OPERATION_COUNT_MAX = 4096,
    PLANT_SEED_COUNT = 12,
    RUN_SECONDS_MAX = 120,
    SHRINK_RUN_COUNT_MAX = 400,
};

static struct tree_progress *progress; /* shared with the runs, which are processes of their own */
static struct tree_counts sum;

static void add_counts(const struct tree_counts *counts)
{
    sum.operations += counts->operations;
    sum.refusals += counts->refusals;
    sum.repeats += counts->repeats;
    sum.stops += counts->stops;
    sum.kills += counts->kills;
    sum.power_cuts += counts->power_cuts;
    sum.device_restarts += counts->device_restarts;
    sum.disk_faults += counts->disk_faults;
    sum.memory_faults += counts->memory_faults;
    sum.nodes += counts->nodes;
    sum.sampled_tokens += counts->sampled_tokens;
    sum.cuts += counts->cuts;
    sum.purged += counts->purged;
    sum.slid += counts->slid;
    sum.notes += counts->notes;
    sum.chosen += counts->chosen;
    sum.distinct += counts->distinct;
    sum.expanded += counts->expanded;
    sum.kept += counts->kept;
    sum.copies += counts->copies;
    sum.interrupted += counts->interrupted;
    sum.joint += counts->joint;
    sum.crowds += counts->crowds;
    sum.preemptions += counts->preemptions;
    sum.context_tokens += counts->context_tokens;
    sum.context_cached += counts->context_cached;
}

static void print_counts(void)
{
    const struct {
        const char *name;
        uint64_t count;
    } told[] = {
        {"operations", sum.operations},
        {"refused", sum.refusals},
        {"nodes", sum.nodes},
        {"sampled tokens", sum.sampled_tokens},
        {"cut", sum.cuts},
        {"purged", sum.purged},
        {"behind a slid window", sum.slid},
        {"joint casts", sum.joint},
        {"casts of more than two", sum.crowds},
        {"notes", sum.notes},
        {"held to choices", sum.chosen},
        {"begun distinctly", sum.distinct},
        {"expanded", sum.expanded},
        {"kept of them", sum.kept},
        {"sessions imported", sum.copies},
        {"nodes in them interrupted", sum.interrupted},
        {"stops", sum.stops},
        {"kills", sum.kills},
        {"power cuts", sum.power_cuts},
        {"deaths under a request that was repeated", sum.repeats},
        {"failures of the disk", sum.disk_faults},
        {"of the device", sum.device_restarts},
        {"of memory", sum.memory_faults},
        {"preemptions", sum.preemptions},
        {"context tokens", sum.context_tokens},
        {"shared", sum.context_cached},
    };

    for (size_t i = 0; i < sizeof(told) / sizeof(told[0]); i++) {
        printf("%s%llu %s", i > 0 ? ", " : "", (unsigned long long)told[i].count, told[i].name);
    }
    printf("\n");
}

/* A simulation in which nothing happened has shown nothing. */
static bool is_rich(void)
{
    return sum.nodes > SEED_COUNT * 20 && sum.cuts > SEED_COUNT && sum.purged > SEED_COUNT &&
           sum.repeats > SEED_COUNT && sum.disk_faults > SEED_COUNT / 2 &&
           sum.device_restarts > 0 && sum.memory_faults > SEED_COUNT / 2 && sum.slid > SEED_COUNT &&
           sum.preemptions > SEED_COUNT && sum.context_cached * 4 > sum.context_tokens &&
           sum.joint > SEED_COUNT / 4 && sum.crowds > SEED_COUNT && sum.notes > SEED_COUNT &&
           sum.chosen > SEED_COUNT && sum.distinct > SEED_COUNT && sum.expanded > SEED_COUNT &&
           sum.kept > SEED_COUNT / 2 && sum.copies > SEED_COUNT && sum.interrupted > SEED_COUNT / 2;
}

/* A daemon that ends itself must not end the simulator. */
static bool run(uint64_t seed, const struct tree_op *ops, uint32_t count, enum tree_plant plant,
                bool is_told)
{
    int how = 0;
    pid_t child;

    memset(progress, 0, sizeof(*progress));
    (void)fflush(NULL);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        if (!is_told) {
            (void)freopen("/dev/null", "w", stderr); /* of what ends itself only the list is told */
        }
        (void)alarm(RUN_SECONDS_MAX);
        tree_plant_set(plant);
        tree_play(seed, ops, count, is_told, progress);
        _exit(progress->problem[0] == '\0' ? 0 : 1);
    }
    CHECK(waitpid(child, &how, 0) == child);
    if (WIFSIGNALED(how)) {
        (void)snprintf(progress->problem, sizeof(progress->problem), "it was ended by a signal: %s",
                       strsignal(WTERMSIG(how)));
    } else if (WEXITSTATUS(how) != 0 && progress->problem[0] == '\0') {
        /* A sanitizer does so. */
        (void)snprintf(progress->problem, sizeof(progress->problem), "it ended with %d",
                       WEXITSTATUS(how));
    }
    return progress->problem[0] == '\0';
}

/* Numbers do not count: they change with what is taken out. */
static bool is_same(const char *a, const char *b)
{
    for (;;) {
        a += strspn(a, "0123456789");
        b += strspn(b, "0123456789");
        if (*a != *b || *a == '\0') {
            return *a == *b;
        }
        a++;
        b++;
    }
}

/* Takes operations out for as long as what is left fails the same: halves first, then single ones.
 */
static uint32_t make_short(uint64_t seed, struct tree_op *ops, uint32_t count,
                           enum tree_plant plant)
{
    static struct tree_op fewer[OPERATION_COUNT_MAX];
    char problem[sizeof(progress->problem)];
    uint32_t runs = 0;

    memcpy(problem, progress->problem, sizeof(problem));

    for (uint32_t part = count / 2; part > 0; part = part > 1 ? (part + 1) / 2 : 0) {
        for (uint32_t at = 0; at < count && runs < SHRINK_RUN_COUNT_MAX;) {
            const uint32_t gone = part < count - at ? part : count - at;

            memcpy(fewer, ops, at * sizeof(*ops));
            memcpy(fewer + at, ops + at + gone, (count - at - gone) * sizeof(*ops));
            runs++;
            if (run(seed, fewer, count - gone, plant, false) ||
                !is_same(problem, progress->problem)) {
                at += gone;
            } else {
                memcpy(ops, fewer, (count - gone) * sizeof(*ops));
                count -= gone;
            }
        }
    }
    return count;
}

static bool play_seed(uint64_t seed, uint32_t count, enum tree_plant plant)
{
    static struct tree_op ops[OPERATION_COUNT_MAX];

    tree_play_draw(seed, ops, count);
    if (run(seed, ops, count, plant, false)) {
        add_counts(&progress->counts);
        return true;
    }
    if (plant != PLANT_NONE) {
        return false;
    }
    (void)fprintf(stderr, "seed %llu, operation %u: %s\n", (unsigned long long)seed, progress->at,
                  progress->problem);
    count = make_short(seed, ops, progress->at + 1 < count ? progress->at + 1 : count, plant);
    (void)fprintf(stderr, "the same with %u operations:\n", count);
    (void)run(seed, ops, count, plant, true);
    (void)fprintf(stderr, "%s\n", progress->problem);
    return false;
}

/* Says which of the faults no seed has caught. */
static int play_plants(void)
{
    int failures = 0;

    for (enum tree_plant plant = PLANT_NONE + 1; plant < PLANT_COUNT; plant++) {
        uint32_t seed = 1;

        while (seed <= PLANT_SEED_COUNT && play_seed(seed, OPERATION_COUNT, plant)) {
            seed++;
        }
        if (seed > PLANT_SEED_COUNT) {
            (void)fprintf(stderr, "planted and not caught: %s\n", tree_plant_name(plant));
            failures++;
        } else {
            printf("%s: caught by seed %u, operation %u: %s\n", tree_plant_name(plant), seed,
                   progress->at, progress->problem);
        }
    }
    return failures;
}

int main(int argc, char **argv)
{
    const uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    const uint64_t count = argc > 2 ? strtoull(argv[2], NULL, 10) : SEED_COUNT;
    const uint32_t wanted = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : OPERATION_COUNT;
    const uint32_t operations = wanted < OPERATION_COUNT_MAX ? wanted : OPERATION_COUNT_MAX;
    int failures = 0;

    log_level_set(LOG_ERROR);
    progress =
        mmap(NULL, sizeof(*progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(progress != MAP_FAILED);
    for (uint64_t seed = first; seed < first + count && failures == 0; seed++) {
        failures += !play_seed(seed, operations, PLANT_NONE);
    }
    if (failures == 0) {
        printf("%llu seeds from %llu: ", (unsigned long long)count, (unsigned long long)first);
        print_counts();
    }
    if (argc == 1 && failures == 0) {
        failures += !is_rich() + play_plants();
    }
    return failures == 0 ? 0 : 1;
}
