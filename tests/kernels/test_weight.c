/* Goal: weights mean exactly what the model file says, before and after they are repacked, and a
 * tensor that cannot be held is refused with its name.
 * Method: dtype_dequantize_row and the repacked rows against values that another implementation
 * made (tests/fixtures/dequant.bin, scripts/fixtures/dequant.py), by memcmp; one flipped bit must
 * be caught; rows that do not fill a panel; wrong types, shapes and sizes; failing allocations.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "kernels/cpu/weight.h"
#include "support/random_weight.h"

enum { FILE_BYTES_MAX = 1024 * 1024, COLS_MAX = 8192 };

struct entry {
    uint32_t dtype, cols, bytes;
    const uint8_t *raw;
    const uint8_t *values;
};

struct fixture {
    uint8_t *bytes;
    uint32_t count;
    struct entry entries[16];
};

static uint32_t read_u32(const uint8_t **at)
{
    uint32_t value;

    memcpy(&value, *at, sizeof(value));
    *at += sizeof(value);
    return value;
}

static void fixture_init(struct fixture *fixture)
{
    FILE *file = fopen("tests/fixtures/dequant.bin", "rb");
    const uint8_t *at;
    size_t size;

    assert_non_null(file);
    fixture->bytes = memory_alloc(FILE_BYTES_MAX, 1);
    assert_non_null(fixture->bytes);
    size = fread(fixture->bytes, 1, FILE_BYTES_MAX, file);
    fclose(file);
    assert_true(size > 12);
    assert_memory_equal(fixture->bytes, "PDEQUAN1", 8);
    at = fixture->bytes + 8;
    fixture->count = read_u32(&at);
    assert_int_equal(fixture->count, 11);
    for (uint32_t i = 0; i < fixture->count; i++) {
        struct entry *entry = &fixture->entries[i];

        entry->dtype = read_u32(&at);
        entry->cols = read_u32(&at);
        entry->bytes = read_u32(&at);
        assert_true(entry->cols <= COLS_MAX);
        entry->raw = at;
        entry->values = at + entry->bytes;
        at += entry->bytes + (size_t)entry->cols * sizeof(float);
    }
    assert_ptr_equal(at, fixture->bytes + size);
}

static void test_dequantised_rows_equal_the_reference_bit_for_bit(void **state)
{
    static float out[COLS_MAX];
    struct fixture fixture;

    (void)state;
    fixture_init(&fixture);
    for (uint32_t i = 0; i < fixture.count; i++) {
        const struct entry *entry = &fixture.entries[i];

        dtype_dequantize_row(entry->dtype, entry->raw, entry->cols, out);
        if (memcmp(out, entry->values, (size_t)entry->cols * sizeof(float)) != 0) {
            fail_msg("%s", dtype_name(entry->dtype));
        }
    }
    memory_free(fixture.bytes);
}

static void test_one_flipped_bit_of_a_row_is_caught(void **state)
{
    static float out[COLS_MAX];
    struct fixture fixture;

    (void)state;
    fixture_init(&fixture);
    for (uint32_t i = 0; i < fixture.count; i++) {
        const struct entry *entry = &fixture.entries[i];
        uint8_t *raw = fixture.bytes + (entry->raw - fixture.bytes);

        raw[dtype_block_bytes(entry->dtype) / 2 + 1] ^= 0x40;
        dtype_dequantize_row(entry->dtype, raw, entry->cols, out);
        assert_memory_not_equal(out, entry->values, (size_t)entry->cols * sizeof(float));
    }
    memory_free(fixture.bytes);
}

/* The fixture's row in some lane of a panel, the others random. */
static void check_repacked(const struct entry *entry, bool with_pairs, uint32_t rows, uint32_t row)
{
    static float out[COLS_MAX];
    uint64_t state = 5;
    struct weight_source source = random_weight(&state, entry->dtype, rows, entry->cols);
    uint8_t *bytes = (uint8_t *)(uintptr_t)source.data;
    struct backend_weight *weight;

    memcpy(bytes + (size_t)row * entry->bytes, entry->raw, entry->bytes);
    assert_int_equal(cpu_weight_create(&source, with_pairs, NULL, NULL, NULL, &weight), STATUS_OK);
    cpu_weight_row(weight, row, out);
    if (memcmp(out, entry->values, (size_t)entry->cols * sizeof(float)) != 0) {
        fail_msg("%s, row %u of %u", dtype_name(entry->dtype), row, rows);
    }
    cpu_weight_destroy(weight);
    memory_free(bytes);
}

static void test_repacked_rows_read_back_bit_for_bit(void **state)
{
    struct fixture fixture;

    (void)state;
    fixture_init(&fixture);
    for (uint32_t i = 0; i < fixture.count; i++) {
        for (uint32_t pairs = 0; pairs < 2; pairs++) {
            check_repacked(&fixture.entries[i], pairs != 0, 1, 0);
            check_repacked(&fixture.entries[i], pairs != 0, 16, 15);
            check_repacked(&fixture.entries[i], pairs != 0, 35, 34);
        }
    }
    memory_free(fixture.bytes);
}

/* A weight whose panels are laid by several threads. */
static struct backend_weight *packed_by(const struct weight_source *source, struct pool *pool)
{
    struct backend_weight *weight = NULL;

    assert_int_equal(cpu_weight_create(source, false, NULL, pool, NULL, &weight), STATUS_OK);
    return weight;
}

static bool same_panels(const struct backend_weight *a, const struct backend_weight *b)
{
    return a->panel_count == b->panel_count && a->panel_bytes == b->panel_bytes &&
           memcmp(a->panels, b->panels, a->panel_count * a->panel_bytes) == 0;
}

static void test_panels_have_the_same_bytes_however_many_threads_lay_them(void **state)
{
    static const uint32_t dtypes[] = {
#define X(name, number, elements, bytes) number,
        DTYPE_MAP(X)
#undef X
    };
    static const uint32_t row_counts[] = {1, 16, 65, 333};
    uint64_t seed = 77;
    struct pool *pool;

    (void)state;
    assert_int_equal(pool_create(3, &pool), STATUS_OK);
    for (size_t i = 0; i < sizeof(dtypes) / sizeof(dtypes[0]); i++) {
        for (size_t r = 0; r < sizeof(row_counts) / sizeof(row_counts[0]); r++) {
            struct weight_source source = random_weight(&seed, dtypes[i], row_counts[r], 512);
            struct backend_weight *alone = packed_by(&source, NULL);
            struct backend_weight *together = packed_by(&source, pool);

            if (!same_panels(alone, together)) {
                fail_msg("%s, %u rows", dtype_name(dtypes[i]), row_counts[r]);
            }
            /* A panel that was left out, or laid in another's place, would be caught. */
            together->panels[(together->panel_count - 1) * together->panel_bytes] ^= 1;
            assert_false(same_panels(alone, together));
            cpu_weight_destroy(alone);
            cpu_weight_destroy(together);
            memory_free((void *)(uintptr_t)source.data);
        }
    }
    pool_destroy(pool);
}

static bool overlap(const struct backend_weight *a, const struct backend_weight *b)
{
    return a->panels < b->panels + b->panel_count * b->panel_bytes &&
           b->panels < a->panels + a->panel_count * a->panel_bytes;
}

/* Enough for a second block, and one weight that is too large for any. */
static void test_weights_in_a_store_have_their_own_bytes_side_by_side(void **state)
{
    enum { COUNT = 28 };
    const int64_t live = memory_live_count();
    struct backend_weight *stored[COUNT];
    struct panel_store store = {NULL};
    uint64_t seed = 5;

    (void)state;
    for (uint32_t i = 0; i < COUNT; i++) {
        const uint32_t rows = i == 5 ? 1700 : 1000 + 16 * i;
        struct weight_source source = random_weight(&seed, DTYPE_Q8_0, rows, 1280);
        struct backend_weight *alone = packed_by(&source, NULL);

        assert_int_equal(cpu_weight_create(&source, false, &store, NULL, NULL, &stored[i]),
                         STATUS_OK);
        assert_int_equal((uintptr_t)stored[i]->panels % 64, 0);
        assert_int_equal(stored[i]->is_stored, i != 5);
        assert_true(same_panels(alone, stored[i]));
        cpu_weight_destroy(alone);
        memory_free((void *)(uintptr_t)source.data);
        for (uint32_t j = 0; j < i; j++) {
            assert_false(overlap(stored[i], stored[j]));
        }
        assert_true(overlap(stored[i], stored[i]));
    }
    for (uint32_t i = 0; i < COUNT; i++) {
        cpu_weight_destroy(stored[i]);
    }
    panel_store_finish(&store);
    assert_int_equal(memory_live_count(), live);
}

static void test_packed_weights_are_about_the_size_of_the_file(void **state)
{
    static const uint32_t dtypes[] = {DTYPE_F32,  DTYPE_F16,  DTYPE_BF16, DTYPE_Q4_0,
                                      DTYPE_Q4_1, DTYPE_Q8_0, DTYPE_Q4_K};
    uint64_t state_bits = 9;

    (void)state;
    for (size_t i = 0; i < sizeof(dtypes) / sizeof(dtypes[0]); i++) {
        struct weight_source source = random_weight(&state_bits, dtypes[i], 64, 2048);
        struct backend_weight *weight;

        assert_int_equal(cpu_weight_create(&source, false, NULL, NULL, NULL, &weight), STATUS_OK);
        assert_true((double)(weight->panel_bytes * weight->panel_count) <
                    1.03 * (double)source.size_bytes);
        cpu_weight_destroy(weight);
        memory_free((void *)(uintptr_t)source.data);
    }
}

static void test_what_cannot_be_held_is_refused_by_name(void **state)
{
    const uint8_t bytes[64] = {0};
    const struct weight_source wrong[] = {
        {"blk.0.odd", 99, 1, 32, bytes, 18},         /* no such type */
        {"blk.0.odd", DTYPE_Q4_0, 1, 33, bytes, 18}, /* no whole blocks */
        {"blk.0.odd", DTYPE_Q4_0, 0, 32, bytes, 0},  /* empty */
        {"blk.0.odd", DTYPE_Q4_0, 1, 32, bytes, 17}, /* cut off */
    };

    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct backend_weight *weight = NULL;
        struct error error = {0};
        const enum status status = cpu_weight_create(&wrong[i], false, NULL, NULL, &error, &weight);

        assert_int_equal(status, i == 3 ? STATUS_BAD_INPUT : STATUS_UNSUPPORTED);
        assert_int_equal(error.status, status);
        assert_non_null(strstr(error.text, "blk.0.odd"));
        assert_null(weight);
    }
}

static void test_a_failing_allocation_leaves_nothing_behind(void **state)
{
    const uint8_t bytes[36] = {0};
    const struct weight_source source = {"w", DTYPE_Q4_0, 2, 32, bytes, 36};
    const int64_t live = memory_live_count();

    (void)state;
    for (int64_t survivors = 0;; survivors++) {
        struct backend_weight *weight = NULL;
        struct panel_store store = {NULL};
        enum status status;

        memory_fault_set(survivors);
        status = cpu_weight_create(&source, false, &store, NULL, NULL, &weight);
        memory_fault_set(-1);
        if (status == STATUS_OK) {
            cpu_weight_destroy(weight);
            panel_store_finish(&store);
            assert_int_equal(memory_live_count(), live);
            return;
        }
        assert_int_equal(status, STATUS_MEMORY);
        assert_null(weight);
        assert_int_equal(memory_live_count(), live);
    }
}

static void test_names_and_sizes_come_from_the_map(void **state)
{
    (void)state;
    assert_string_equal(dtype_name(DTYPE_Q6_K), "Q6_K");
    assert_int_equal(dtype_block_elements(DTYPE_Q5_1), 32);
    assert_int_equal(dtype_block_bytes(DTYPE_Q5_K), 176);
    assert_null(dtype_name(4));
    assert_int_equal(dtype_block_elements(4), 0);
    assert_int_equal(dtype_block_bytes(4), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dequantised_rows_equal_the_reference_bit_for_bit),
        cmocka_unit_test(test_one_flipped_bit_of_a_row_is_caught),
        cmocka_unit_test(test_repacked_rows_read_back_bit_for_bit),
        cmocka_unit_test(test_panels_have_the_same_bytes_however_many_threads_lay_them),
        cmocka_unit_test(test_weights_in_a_store_have_their_own_bytes_side_by_side),
        cmocka_unit_test(test_packed_weights_are_about_the_size_of_the_file),
        cmocka_unit_test(test_what_cannot_be_held_is_refused_by_name),
        cmocka_unit_test(test_a_failing_allocation_leaves_nothing_behind),
        cmocka_unit_test(test_names_and_sizes_come_from_the_map),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
