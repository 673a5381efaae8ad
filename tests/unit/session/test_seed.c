/* Goal: a node's seed follows the documented rule, byte for byte, on every machine.
 * Method: known answers that were computed with an independent SHA-256 (Python's hashlib):
 *   c = sha256(b"".join(struct.pack("<I", i) for i in ids)).digest()
 *   sha256(b"personad/1" + struct.pack("<Q", S) + c + b"".join(struct.pack("<I", o) ...))[:8]
 * and variants that must differ. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "session/seed.h"

static uint64_t seed_of(uint64_t s, const uint32_t *ids, uint32_t count, const uint32_t *ordinals,
                        uint32_t ordinal_count)
{
    struct seed_context context;
    uint8_t digest[SHA256_BYTES];

    seed_context_init(&context);
    seed_context_add(&context, ids, count);
    seed_context_finish(&context, digest);
    return seed_of_node(s, digest, ordinals, ordinal_count);
}

static void test_known_answers_hold(void **state)
{
    const uint32_t ids[] = {1, 9690, 198, 2683};
    const uint32_t ordinals[] = {0, 3, 1};
    uint32_t many[1000];

    (void)state;
    for (uint32_t i = 0; i < 1000; i++) {
        many[i] = i * 2654435761u;
    }
    assert_true(seed_of(0, ids, 0, ordinals, 1) == UINT64_C(0x88b99cacc45235e0));
    assert_true(seed_of(7, ids, 4, ordinals, 3) == UINT64_C(0x0db5b26d23a7cb80));
    assert_true(seed_of(UINT64_C(0x0123456789abcdef), many, 1000, many, 300) ==
                UINT64_C(0x0a53dac68dc34455));
}

static void test_runs_of_any_cutting_give_the_same_digest(void **state)
{
    uint32_t ids[700];
    uint8_t whole[SHA256_BYTES];
    uint8_t cut[SHA256_BYTES];
    struct seed_context context;

    (void)state;
    for (uint32_t i = 0; i < 700; i++) {
        ids[i] = i + 1;
    }
    seed_context_init(&context);
    seed_context_add(&context, ids, 700);
    seed_context_finish(&context, whole);
    for (uint32_t at = 0; at <= 700; at += 35) {
        seed_context_init(&context);
        seed_context_add(&context, ids, at);
        seed_context_add(&context, ids + at, 700 - at);
        seed_context_finish(&context, cut);
        assert_memory_equal(whole, cut, SHA256_BYTES);
    }
    /* The twin: one id missing at the seam is seen. */
    seed_context_init(&context);
    seed_context_add(&context, ids, 349);
    seed_context_add(&context, ids + 350, 350);
    seed_context_finish(&context, cut);
    assert_memory_not_equal(whole, cut, SHA256_BYTES);
}

static void test_every_part_of_the_rule_counts(void **state)
{
    const uint32_t ids[] = {5, 6};
    const uint32_t other_ids[] = {5, 7};
    const uint32_t ordinals[] = {0, 0};
    const uint32_t other_ordinals[] = {0, 1};
    const uint64_t seed = seed_of(1, ids, 2, ordinals, 2);

    (void)state;
    assert_true(seed == seed_of(1, ids, 2, ordinals, 2));
    assert_true(seed != seed_of(2, ids, 2, ordinals, 2));
    assert_true(seed != seed_of(1, other_ids, 2, ordinals, 2));
    assert_true(seed != seed_of(1, ids, 2, other_ordinals, 2));
    assert_true(seed != seed_of(1, ids, 2, ordinals, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_answers_hold),
        cmocka_unit_test(test_runs_of_any_cutting_give_the_same_digest),
        cmocka_unit_test(test_every_part_of_the_rule_counts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
