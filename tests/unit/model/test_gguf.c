/* Goal: a GGUF file is read as its bytes say, and no file, however wrong, makes the reader touch
 * what is not its own or believe a number that the file cannot hold.
 *
 * Method: good files come from support/gguf_writer.h; bad ones are good ones with one number
 * changed, and each must be refused with a sentence that names the culprit. Every prefix and many
 * random changes of a file are read as well: they may be good or bad, but the sanitizers must stay
 * quiet. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/memory.h"
#include "base/sha256.h"
#include "kernels/dtype.h"
#include "model/gguf.h"
#include "support/gguf_writer.h"

enum { FILE_BYTES_MAX = 4096 };

/* A small file with a value of every kind and two tensors. */
struct sample {
    uint8_t bytes[FILE_BYTES_MAX];
    size_t size;
};

static struct sample sample_make(void)
{
    const struct bytes texts[] = {bytes_of_text("one"), bytes_of_text(""), bytes_of_text("three")};
    const int32_t numbers[] = {-1, 0, 2147483647};
    const float reals[] = {0.5f, -2.0f};
    struct gguf_writer *writer = gguf_writer_create();
    struct sample sample = {.size = 0};
    uint64_t size = 0;

    gguf_writer_add_u32(writer, "number", 4000000000u);
    gguf_writer_add_f32(writer, "real", 0.25f);
    gguf_writer_add_bool(writer, "truth", true);
    gguf_writer_add_text(writer, "text", bytes_of_text("hello"));
    gguf_writer_add_text_array(writer, "texts", texts, 3);
    gguf_writer_add_i32_array(writer, "numbers", numbers, 3);
    gguf_writer_add_f32_array(writer, "reals", reals, 2);
    const uint32_t a = gguf_writer_add_tensor(writer, bytes_of_text("a.weight"), DTYPE_F32, 4, 3);
    (void)gguf_writer_add_tensor(writer, bytes_of_text("b.weight"), DTYPE_Q8_0, 64, 0);
    const struct bytes file = gguf_writer_finish(writer);
    uint8_t *data = gguf_writer_tensor(writer, a, &size);
    for (uint64_t i = 0; i < size; i++) {
        data[i] = (uint8_t)(i + 1);
    }
    assert_true(file.size <= FILE_BYTES_MAX);
    memcpy(sample.bytes, file.data, file.size);
    sample.size = file.size;
    gguf_writer_destroy(writer);
    return sample;
}

static struct gguf *sample_open(const struct sample *sample)
{
    struct error error = {0};
    struct gguf *gguf = NULL;

    const enum status status =
        gguf_open_bytes(bytes_of(sample->bytes, sample->size), "x.gguf", &error, &gguf);
    if (status != STATUS_OK) {
        print_message("%s\n", error.text);
    }
    assert_int_equal(status, STATUS_OK);
    return gguf;
}

/* Opening it fails with this status and a sentence that holds both words. */
static void sample_refused(const struct sample *sample, enum status status, const char *word)
{
    struct error error = {0};
    struct gguf *gguf = NULL;

    const enum status got =
        gguf_open_bytes(bytes_of(sample->bytes, sample->size), "x.gguf", &error, &gguf);
    if (got != status || strstr(error.text, word) == NULL) {
        print_message("wanted '%s', got %s: %s\n", word, status_name(got), error.text);
    }
    assert_int_equal(got, status);
    assert_int_equal(error.status, status);
    assert_non_null(strstr(error.text, "x.gguf"));
    assert_non_null(strstr(error.text, word));
    assert_null(gguf);
}

/* Where these bytes first stand in the file. */
static size_t sample_find(const struct sample *sample, const char *bytes, size_t size)
{
    for (size_t i = 0; i + size <= sample->size; i++) {
        if (memcmp(sample->bytes + i, bytes, size) == 0) {
            return i;
        }
    }
    fail_msg("'%s' is not in the file", bytes);
    return 0;
}

static size_t sample_after(const struct sample *sample, const char *text)
{
    return sample_find(sample, text, strlen(text)) + strlen(text);
}

/* ---- good files ---- */

static void values_are_read_as_written(void **state)
{
    const struct sample sample = sample_make();
    struct gguf *gguf = sample_open(&sample);
    const struct bytes *texts = NULL;
    const int32_t *numbers = NULL;
    const float *reals = NULL;
    struct bytes text = {0};
    uint64_t count = 0;
    uint32_t number = 0;
    double real = 0;
    bool truth = false;

    (void)state;
    assert_int_equal(gguf_get_u32(gguf, "number", NULL, &number), STATUS_OK);
    assert_int_equal(number, 4000000000u);
    assert_int_equal(gguf_get_f64(gguf, "real", NULL, &real), STATUS_OK);
    assert_true(real == 0.25);
    assert_int_equal(gguf_get_f64(gguf, "number", NULL, &real), STATUS_OK);
    assert_true(real == 4e9);
    assert_int_equal(gguf_get_bool(gguf, "truth", NULL, &truth), STATUS_OK);
    assert_true(truth);
    assert_int_equal(gguf_get_text(gguf, "text", NULL, &text), STATUS_OK);
    assert_true(bytes_equal(text, bytes_of_text("hello")));
    assert_int_equal(gguf_get_text_array(gguf, "texts", NULL, &texts, &count), STATUS_OK);
    assert_int_equal(count, 3);
    assert_true(bytes_equal(texts[1], bytes_of_text("")));
    assert_true(bytes_equal(texts[2], bytes_of_text("three")));
    assert_int_equal(gguf_get_i32_array(gguf, "numbers", NULL, &numbers, &count), STATUS_OK);
    assert_int_equal(count, 3);
    assert_int_equal(numbers[0], -1);
    assert_int_equal(numbers[2], 2147483647);
    assert_int_equal(gguf_get_f32_array(gguf, "reals", NULL, &reals, &count), STATUS_OK);
    assert_int_equal(count, 2);
    assert_true(reals[1] == -2.0f);
    gguf_close(gguf);
}

static void a_wrong_question_is_answered_with_a_sentence(void **state)
{
    const struct sample sample = sample_make();
    struct gguf *gguf = sample_open(&sample);
    struct error error = {0};
    struct bytes text = {0};
    const int32_t *numbers = NULL;
    uint64_t count = 77;
    uint32_t number = 77;

    (void)state;
    assert_int_equal(gguf_get_u32(gguf, "nothing", &error, &number), STATUS_NOT_FOUND);
    assert_non_null(strstr(error.text, "'nothing' is missing"));
    assert_int_equal(gguf_get_u32(gguf, "text", &error, &number), STATUS_BAD_INPUT);
    assert_non_null(strstr(error.text, "'text' is not an integer"));
    assert_int_equal(gguf_get_text(gguf, "number", &error, &text), STATUS_BAD_INPUT);
    assert_int_equal(gguf_get_i32_array(gguf, "texts", &error, &numbers, &count), STATUS_BAD_INPUT);
    assert_int_equal(gguf_get_i32_array(gguf, "number", &error, &numbers, &count),
                     STATUS_BAD_INPUT);
    assert_int_equal(number, 77);
    assert_int_equal(count, 77);
    gguf_close(gguf);
}

static void tensors_are_found_and_read(void **state)
{
    const struct sample sample = sample_make();
    struct gguf *gguf = sample_open(&sample);
    const struct model_tensor *tensor = gguf_tensor_find(gguf, "a.weight");
    uint8_t bytes[48];

    (void)state;
    assert_int_equal(gguf_tensor_count(gguf), 2);
    assert_null(gguf_tensor_find(gguf, "a.weigh"));
    assert_non_null(tensor);
    assert_ptr_equal(tensor, gguf_tensor_at(gguf, 0));
    assert_int_equal(tensor->dimensions[0], 4);
    assert_int_equal(tensor->dimensions[1], 3);
    assert_int_equal(tensor->size_bytes, 48);
    assert_int_equal(gguf_tensor_read(gguf, tensor, NULL, bytes), STATUS_OK);
    assert_int_equal(bytes[47], 48);
    assert_int_equal(gguf_tensor_find(gguf, "b.weight")->size_bytes, 68);
    gguf_close(gguf);
}

/* ---- files on disk ---- */

static void file_write(const char *path, const void *bytes, size_t size)
{
    FILE *stream = fopen(path, "wb");

    assert_non_null(stream);
    assert_int_equal(fwrite(bytes, 1, size, stream), size);
    assert_int_equal(fclose(stream), 0);
}

static void a_file_on_disk_reads_the_same(void **state)
{
    const struct sample sample = sample_make();
    char path[] = "/tmp/personad-gguf-XXXXXX";
    uint8_t wanted[SHA256_BYTES];
    uint8_t hash[32];
    uint8_t bytes[48];
    struct error error = {0};
    struct gguf *gguf = NULL;
    const int fd = mkstemp(path);

    (void)state;
    assert_true(fd >= 0);
    (void)close(fd);
    file_write(path, sample.bytes, sample.size);
    assert_int_equal(gguf_open(path, &error, &gguf), STATUS_OK);
    sha256_bytes(bytes_of(sample.bytes, sample.size), wanted);
    assert_int_equal(gguf_hash(gguf, &error, hash), STATUS_OK);
    assert_memory_equal(hash, wanted, 32);
    const struct model_tensor *tensor = gguf_tensor_find(gguf, "a.weight");
    assert_int_equal(gguf_tensor_read(gguf, tensor, &error, bytes), STATUS_OK);
    assert_int_equal(bytes[0], 1);

    /* Somebody cuts the file while it is open. */
    assert_int_equal(truncate(path, (off_t)tensor->offset + 10), 0);
    assert_int_equal(gguf_tensor_read(gguf, tensor, &error, bytes), STATUS_IO);
    assert_non_null(strstr(error.text, "shorter"));
    gguf_close(gguf);

    assert_int_equal(gguf_open(path, &error, &gguf), STATUS_BAD_INPUT);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(gguf_open(path, &error, &gguf), STATUS_IO);
    assert_non_null(strstr(error.text, path));
    assert_int_equal(gguf_open("/", &error, &gguf), STATUS_IO);
    assert_non_null(strstr(error.text, "not a regular file"));
}

/* ---- bad files ---- */

static void wrong_starts_are_refused(void **state)
{
    struct sample sample = sample_make();

    (void)state;
    sample.bytes[0] = 'X';
    sample_refused(&sample, STATUS_BAD_INPUT, "not a GGUF file");
    sample = sample_make();
    bytes_store_u32(sample.bytes + 4, 1);
    sample_refused(&sample, STATUS_UNSUPPORTED, "another version");
    bytes_store_u32(sample.bytes + 4, 0x03000000u);
    sample_refused(&sample, STATUS_UNSUPPORTED, "big-endian");
    bytes_store_u32(sample.bytes + 4, 2);
    gguf_close(sample_open(&sample));
    sample.size = 3;
    sample_refused(&sample, STATUS_BAD_INPUT, "too short");
}

static void counts_beyond_the_file_are_refused(void **state)
{
    struct sample sample = sample_make();

    (void)state;
    bytes_store_u64(sample.bytes + 8, UINT64_MAX);
    sample_refused(&sample, STATUS_BAD_INPUT, "tensors, more than the file can hold");
    sample = sample_make();
    bytes_store_u64(sample.bytes + 16, 1u << 20);
    sample_refused(&sample, STATUS_BAD_INPUT, "keys, more than the file can hold");
    sample = sample_make();
    bytes_store_u64(sample.bytes + sample_after(&sample, "texts") + 8, UINT64_MAX / 8);
    sample_refused(&sample, STATUS_BAD_INPUT, "'texts' claims");
    sample = sample_make();
    bytes_store_u64(sample.bytes + sample_after(&sample, "numbers") + 8, UINT64_MAX / 4 + 2);
    sample_refused(&sample, STATUS_BAD_INPUT, "'numbers' claims");
    sample = sample_make();
    bytes_store_u64(sample.bytes + sample_after(&sample, "text") + 4, UINT64_MAX);
    sample_refused(&sample, STATUS_BAD_INPUT, "cut short");
    sample = sample_make();
    bytes_store_u64(sample.bytes + 24, 1u << 30); /* the first key's length */
    sample_refused(&sample, STATUS_BAD_INPUT, "cut short");
}

static void wrong_types_are_refused(void **state)
{
    struct sample sample = sample_make();

    (void)state;
    bytes_store_u32(sample.bytes + sample_after(&sample, "real"), 13);
    sample_refused(&sample, STATUS_BAD_INPUT, "'real' has type 13");
    sample = sample_make();
    bytes_store_u32(sample.bytes + sample_after(&sample, "texts") + 4, 9);
    sample_refused(&sample, STATUS_UNSUPPORTED, "'texts' is an array of elements of type 9");
    sample = sample_make();
    sample.bytes[sample_find(&sample, "number", 6)] = 7;
    sample_refused(&sample, STATUS_BAD_INPUT, "printable");
}

static void doubles_are_refused(void **state)
{
    struct sample sample = sample_make();

    (void)state;
    memcpy(sample.bytes + sample_find(&sample, "real", 4), "text", 4);
    sample_refused(&sample, STATUS_BAD_INPUT, "'text' is there twice");
    sample = sample_make();
    sample.bytes[sample_find(&sample, "b.weight", 8)] = 'a';
    sample_refused(&sample, STATUS_BAD_INPUT, "'a.weight' is there twice");
}

/* After a tensor's name: dimension count, dimensions, type, offset. */
static void wrong_tensors_are_refused(void **state)
{
    const struct sample good = sample_make();
    const size_t a = sample_after(&good, "a.weight");
    const size_t b = sample_after(&good, "b.weight");
    struct sample sample = good;

    (void)state;
    bytes_store_u32(sample.bytes + a, 5);
    sample_refused(&sample, STATUS_BAD_INPUT, "'a.weight' needs 1 to 4 dimensions");
    sample = good;
    bytes_store_u64(sample.bytes + a + 4, 0);
    sample_refused(&sample, STATUS_BAD_INPUT, "'a.weight' needs 1 to 4 dimensions");
    sample = good;
    bytes_store_u64(sample.bytes + a + 4, INT64_MAX / 2);
    sample_refused(&sample, STATUS_BAD_INPUT, "'a.weight' needs 1 to 4 dimensions");
    sample = good;
    bytes_store_u64(sample.bytes + a + 4, 1u << 20);
    sample_refused(&sample, STATUS_BAD_INPUT, "'a.weight' is larger than the file");
    sample = good;
    bytes_store_u64(sample.bytes + b + 4, 63);
    sample_refused(&sample, STATUS_BAD_INPUT, "'b.weight' has rows of 63");
    sample = good;
    bytes_store_u64(sample.bytes + b + 4 + 8 + 4, 1u << 20);
    sample_refused(&sample, STATUS_BAD_INPUT, "outside the file");
    sample = good;
    bytes_store_u64(sample.bytes + b + 4 + 8 + 4, UINT64_MAX - 31);
    sample_refused(&sample, STATUS_BAD_INPUT, "outside the file");
    sample = good;
    bytes_store_u64(sample.bytes + b + 4 + 8 + 4, 8);
    sample_refused(&sample, STATUS_BAD_INPUT, "not aligned");
    sample = good;
    bytes_store_u64(sample.bytes + b + 4 + 8 + 4, 32);
    sample_refused(&sample, STATUS_BAD_INPUT, "overlap");
    sample = good;
    sample.size -= 40;
    sample_refused(&sample, STATUS_BAD_INPUT, "outside the file");
}

static void an_unknown_storage_type_is_refused_when_it_is_read(void **state)
{
    struct sample sample = sample_make();
    struct error error = {0};
    uint8_t bytes[128];

    (void)state;
    bytes_store_u32(sample.bytes + sample_after(&sample, "b.weight") + 4 + 8, 99);
    struct gguf *gguf = sample_open(&sample);
    assert_int_equal(gguf_tensor_read(gguf, gguf_tensor_find(gguf, "b.weight"), &error, bytes),
                     STATUS_UNSUPPORTED);
    assert_non_null(strstr(error.text, "'b.weight' has storage type 99"));
    gguf_close(gguf);
}

static void alignment_must_be_a_power_of_two(void **state)
{
    static const uint32_t bad[] = {0, 3, 24, 1u << 31};

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct gguf_writer *writer = gguf_writer_create();
        struct error error = {0};
        struct gguf *gguf = NULL;
        gguf_writer_add_u32(writer, "general.alignment", bad[i]);
        assert_int_equal(gguf_open_bytes(gguf_writer_finish(writer), "x", &error, &gguf),
                         STATUS_BAD_INPUT);
        assert_non_null(strstr(error.text, "general.alignment"));
        gguf_writer_destroy(writer);
    }
}

/* ---- every cut, many changes, no memory ---- */

static void every_prefix_is_refused(void **state)
{
    const struct sample sample = sample_make();

    (void)state;
    for (size_t size = 0; size + 1 < sample.size - 28; size++) {
        struct error error = {0};
        struct gguf *gguf = NULL;
        uint8_t *copy = memory_alloc(1, size + 1); /* its own block: a step too far is seen */
        assert_non_null(copy);
        memcpy(copy, sample.bytes, size);
        assert_int_not_equal(gguf_open_bytes(bytes_of(copy, size), "x", &error, &gguf), STATUS_OK);
        memory_free(copy);
    }
}

static void random_changes_do_no_harm(void **state)
{
    const struct sample good = sample_make();
    uint32_t random = 12345;
    uint32_t opened = 0;

    (void)state;
    for (int i = 0; i < 20000; i++) {
        struct sample sample = good;
        struct gguf *gguf = NULL;
        for (int j = 0; j < 3; j++) {
            random = random * 1664525u + 1013904223u;
            sample.bytes[(random >> 8) % sample.size] ^= (uint8_t)(1u << (random >> 29));
        }
        if (gguf_open_bytes(bytes_of(sample.bytes, sample.size), "x", NULL, &gguf) == STATUS_OK) {
            opened++;
            gguf_close(gguf);
        }
    }
    assert_true(opened > 0);
}

static void running_out_of_memory_is_an_answer(void **state)
{
    const struct sample sample = sample_make();
    const int64_t before = memory_live_count();
    bool opened = false;

    (void)state;
    for (int64_t survivors = 0; !opened; survivors++) {
        struct error error = {0};
        struct gguf *gguf = NULL;
        memory_fault_set(survivors);
        const enum status status =
            gguf_open_bytes(bytes_of(sample.bytes, sample.size), "x", &error, &gguf);
        memory_fault_set(-1);
        opened = status == STATUS_OK;
        assert_true(opened || status == STATUS_MEMORY);
        gguf_close(gguf);
        assert_int_equal(memory_live_count(), before);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_read_as_written),
        cmocka_unit_test(a_wrong_question_is_answered_with_a_sentence),
        cmocka_unit_test(tensors_are_found_and_read),
        cmocka_unit_test(a_file_on_disk_reads_the_same),
        cmocka_unit_test(wrong_starts_are_refused),
        cmocka_unit_test(counts_beyond_the_file_are_refused),
        cmocka_unit_test(wrong_types_are_refused),
        cmocka_unit_test(doubles_are_refused),
        cmocka_unit_test(wrong_tensors_are_refused),
        cmocka_unit_test(an_unknown_storage_type_is_refused_when_it_is_read),
        cmocka_unit_test(alignment_must_be_a_power_of_two),
        cmocka_unit_test(every_prefix_is_refused),
        cmocka_unit_test(random_changes_do_no_harm),
        cmocka_unit_test(running_out_of_memory_is_an_answer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
