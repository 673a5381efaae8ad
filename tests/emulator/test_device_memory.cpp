/* Goal: a test that hands the host's memory to a kernel, or touches the card's from the host, is
 * found out here and not on a card.
 * Method: each is planted, beside the right way to do the same.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern "C" {
#include <cmocka.h>
}

#include "tests/emulator/card.h"
#include "tests/emulator/device_memory.h"
#include "tests/emulator/emulator_rig.h"

enum { COUNT = 40, THREADS = 32, HEAP_COUNT = 1 << 18 };

struct arrays {
    const uint32_t *from;
    uint32_t *to;
};

static KERNEL void add_kernel(struct arrays arrays, uint32_t addend)
{
    prim_depend_wait();
    for (uint32_t i = PRIM_THREAD; i < COUNT; i += PRIM_THREADS) {
        arrays.to[i] = arrays.from[i] + addend;
    }
}

/* The same by way of a plan on the card. */
static KERNEL void add_planned_kernel(const struct arrays *arrays, uint32_t addend)
{
    prim_depend_wait();
    for (uint32_t i = PRIM_THREAD; i < COUNT; i += PRIM_THREADS) {
        arrays->to[i] = arrays->from[i] + addend;
    }
}

static void arrays_on_the_card_come_back(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < CONFIG_COUNT; i++) {
        uint32_t from[COUNT], to[COUNT] = {};
        struct card card;

        configure(i);
        card_open(&card);
        for (uint32_t j = 0; j < COUNT; j++) {
            from[j] = 3 * j;
        }
        const struct arrays arrays = {card_give<const uint32_t>(&card, from, COUNT),
                                      card_give(&card, to, COUNT)};
        assert_int_equal(device_launch<add_kernel>(card.device, 1, 1, THREADS, 0, arrays, 5),
                         STATUS_OK);
        card_take(&card);
        assert_int_equal(to[COUNT - 1], 3 * (COUNT - 1) + 5);
        assert_int_equal(
            device_launch<add_planned_kernel>(card.device, 1, 1, THREADS, 0,
                                              card_give<const struct arrays>(&card, &arrays, 1), 6),
            STATUS_OK);
        card_take(&card);
        assert_int_equal(to[COUNT - 1], 3 * (COUNT - 1) + 6);
        card_finish(&card);
    }
}

/* An array of the host as an argument, in a struct that is one, and in what is uploaded. */
static void the_hosts_memory_is_not_the_cards(void **state)
{
    static uint32_t still[COUNT];
    uint32_t moving[COUNT] = {};
    uint32_t *heap = (uint32_t *)calloc(HEAP_COUNT, sizeof(uint32_t));
    struct card card;

    (void)state;
    configure(0);
    card_open(&card);
    uint32_t *there = card_give(&card, moving, COUNT);
    for (uint32_t *host : {still, moving, heap}) {
        const struct arrays wrong = {there, host};
        void *plan = NULL;

        assert_int_equal(device_launch<add_kernel>(card.device, 1, 1, THREADS, 0, wrong, 5),
                         STATUS_DEVICE);
        assert_non_null(strstr(device_fault_text(card.device), "address of the host's memory"));
        assert_int_equal(
            device_launch<add_planned_kernel>(card.device, 1, 1, THREADS, 0, &wrong, 5),
            STATUS_DEVICE);
        assert_int_equal(device_alloc(card.device, sizeof wrong, &plan), STATUS_OK);
        assert_int_equal(device_upload(card.device, plan, &wrong, sizeof wrong), STATUS_DEVICE);
        assert_non_null(strstr(device_fault_text(card.device), "an upload holds an address"));
        device_free(card.device, plan);
        assert_int_equal(host[0], 0);
    }
    card_finish(&card);
    free(heap);
}

/* Whether a process that does it ends by itself. */
template <typename Body> static bool survives(Body body)
{
    const pid_t child = fork();
    int status = 0;

    if (child == 0) {
        (void)signal(SIGSEGV, SIG_DFL);
        (void)close(STDERR_FILENO); /* a sanitizer's report of what is meant to fail */
        body();
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void the_cards_memory_is_not_the_hosts(void **state)
{
    uint32_t numbers[COUNT] = {7};
    struct card card;

    (void)state;
    configure(0);
    card_open(&card);
    volatile uint32_t *there = card_give(&card, numbers, COUNT);
    assert_true(survives([&] { card_take(&card); }));
    assert_false(survives([&] { numbers[1] = there[0]; }));
    assert_false(survives([&] { there[0] = 1; }));
    card_finish(&card);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arrays_on_the_card_come_back),
        cmocka_unit_test(the_hosts_memory_is_not_the_cards),
        cmocka_unit_test(the_cards_memory_is_not_the_hosts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
