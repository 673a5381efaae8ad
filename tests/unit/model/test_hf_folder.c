/* Goal: a model in the layout of Hugging Face gives the same bits as the same weights and
 * vocabulary in a GGUF file, whatever its element type, in one file or several; its fingerprint
 * covers every file and not the place; what can stand in a directory can be opened from there.
 *
 * Method: tiny random GGUF models, written as folders by support/tiny_folder.h, then logits by
 * memcmp and the vocabulary token by token. Twin: a folder whose rows of Q and K lie in GGUF's
 * order must be caught. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/memory.h"
#include "kernels/dtype.h"
#include "model/hf_config.h"
#include "support/model_rig.h"
#include "support/tiny_folder.h"
#include "support/tiny_model.h"

enum {
    TEXT_COUNT = 140, /* more than two chunks of attention */
    PAGES_EACH = 10,
    VOCABULARY_MAX = 1024,
};

static void logits_of(struct model *model, uint32_t count, float *logits)
{
    const struct rig_settings settings = {
        .thread_count = 1,
        .row_count_max = 256,
        .sample_count_max = 4,
        .position_max = PAGES_EACH * KV_PAGE_TOKEN_COUNT - 1,
        .page_count = PAGES_EACH,
    };
    uint32_t pages[PAGES_EACH];
    uint32_t ids[TEXT_COUNT];
    struct rig rig;

    for (uint32_t i = 0; i < PAGES_EACH; i++) {
        pages[i] = i;
    }
    for (uint32_t i = 0; i < count; i++) {
        ids[i] = (i * 7919 + 13) % model_config(model)->vocabulary_count;
    }
    rig_open(&rig, model, &settings);
    rig_feed(&rig, pages, 0, ids, count, count, logits);
    rig_close(&rig);
}

static struct model *open_folder(const struct tiny_folder *folder)
{
    struct error error = {.text = ""};
    struct model *model = NULL;

    if (model_open_files(folder->files, folder->count, "some/tiny", &error, &model) != STATUS_OK) {
        print_message("%s\n", error.text);
    }
    assert_non_null(model);
    return model;
}

static bool bits_are_equal(const struct tiny_spec *tiny, const struct tiny_folder_spec *spec)
{
    const struct bytes file = tiny_model_create(tiny);
    static float wanted[VOCABULARY_MAX];
    static float got[VOCABULARY_MAX];
    struct tiny_folder folder;

    tiny_folder_create(file, spec, &folder);
    logits_of(rig_model_of(file), TEXT_COUNT, wanted);
    logits_of(open_folder(&folder), TEXT_COUNT, got);
    tiny_folder_destroy(&folder);
    memory_free((void *)(uintptr_t)file.data);
    return memcmp(wanted, got, tiny->vocabulary_count * sizeof(float)) == 0;
}

static void the_bits_are_those_of_the_same_weights_in_gguf(void **state)
{
    const uint32_t dtypes[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        const struct tiny_folder_spec spec = {.sharded = i == 1, .merge_pairs = i == 2};
        struct tiny_spec tiny = tiny_spec_of(dtypes[i], VOCABULARY_BPE, 7);
        assert_true(bits_are_equal(&tiny, &spec));
        tiny.tied = true;
        tiny.biases = true;
        tiny.head_count = 6;
        tiny.head_size = 32;
        assert_true(bits_are_equal(&tiny, &spec));
    }
}

static void rows_in_the_wrong_order_are_caught(void **state)
{
    const struct tiny_folder_spec spec = {.rows_as_are = true};
    const struct tiny_spec tiny = tiny_spec_of(DTYPE_F32, VOCABULARY_BPE, 7);

    (void)state;
    assert_false(bits_are_equal(&tiny, &spec));
}

/* ---- the vocabulary ---- */

static void assert_same_vocabulary(const struct vocabulary *a, const struct vocabulary *b)
{
    assert_int_equal(a->kind, b->kind);
    assert_int_equal(a->token_count, b->token_count);
    for (uint32_t id = 0; id < a->token_count; id++) {
        assert_int_equal(a->types[id], b->types[id]);
        if (a->types[id] != TOKEN_UNUSED) {
            assert_true(bytes_equal(a->tokens[id], b->tokens[id]));
        }
    }
    assert_int_equal(a->bos, b->bos);
    assert_int_equal(a->eos, b->eos);
    assert_int_equal(a->add_bos, b->add_bos);
    assert_int_equal(a->add_space_prefix, b->add_space_prefix);
    assert_true(bytes_equal(a->chat_template, b->chat_template));
}

static void the_vocabulary_is_that_of_the_gguf_file(void **state)
{
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        const struct tiny_spec tiny =
            tiny_spec_of(DTYPE_F16, kind == 0 ? VOCABULARY_BPE : VOCABULARY_SPM, 7);
        const struct bytes file = tiny_model_create(&tiny);
        const struct tiny_folder_spec spec = {.merge_pairs = kind == 0};
        struct tiny_folder folder;
        tiny_folder_create(file, &spec, &folder);
        struct model *gguf = rig_model_of(file);
        struct model *hf = open_folder(&folder);
        const struct vocabulary *vocabulary = model_vocabulary(hf);
        assert_same_vocabulary(model_vocabulary(gguf), vocabulary);
        if (kind == 0) {
            assert_true(bytes_equal(vocabulary->pre, bytes_of_text("smollm")));
            assert_int_equal(vocabulary->merge_count, model_vocabulary(gguf)->merge_count);
        }
        assert_true(vocabulary->merge_count > 0);
        assert_true(vocabulary->end_count >= 1);
        model_close(hf);
        model_close(gguf);
        tiny_folder_destroy(&folder);
        memory_free((void *)(uintptr_t)file.data);
    }
}

/* ---- the fingerprint, and a directory ---- */

static void the_fingerprint_covers_every_file(void **state)
{
    const struct tiny_spec tiny = tiny_spec_of(DTYPE_F16, VOCABULARY_BPE, 7);
    const struct tiny_folder_spec spec = {.sharded = true};
    const struct bytes file = tiny_model_create(&tiny);
    uint8_t plain[MODEL_HASH_BYTES];
    struct tiny_folder folder;

    (void)state;
    tiny_folder_create(file, &spec, &folder);
    struct model *model = open_folder(&folder);
    memcpy(plain, model_hash(model), sizeof plain);
    model_close(model);
    for (uint32_t i = 0; i < folder.count; i++) {
        struct hf_file *one = &folder.files[i];
        uint8_t *last = (uint8_t *)(uintptr_t)one->bytes.data + one->bytes.size - 1;
        if (strstr(one->name, "index") != NULL) {
            continue; /* it says where the tensors lie, which their files say as well */
        }
        /* The last byte of a document is the end of its line, which may as well be a blank. */
        const uint8_t change = strstr(one->name, ".json") != NULL ? '\n' ^ ' ' : 1;
        *last ^= change;
        model = open_folder(&folder);
        assert_memory_not_equal(model_hash(model), plain, sizeof plain);
        model_close(model);
        *last ^= change;
    }
    model = open_folder(&folder);
    assert_memory_equal(model_hash(model), plain, sizeof plain);
    model_close(model);
    tiny_folder_destroy(&folder);
    memory_free((void *)(uintptr_t)file.data);
}

static void a_directory_is_opened_by_its_path(void **state)
{
    const struct tiny_spec tiny = tiny_spec_of(DTYPE_BF16, VOCABULARY_SPM, 7);
    const struct tiny_folder_spec spec = {.sharded = true};
    const struct bytes file = tiny_model_create(&tiny);
    char path[] = "/tmp/personad-folder-XXXXXX";
    struct error error = {.text = ""};
    struct model *from_memory = NULL;
    struct model *model = NULL;
    struct tiny_folder folder;

    (void)state;
    assert_non_null(mkdtemp(path));
    tiny_folder_create(file, &spec, &folder);
    tiny_folder_write(&folder, path);
    assert_int_equal(model_open(path, &error, &model), STATUS_OK);
    from_memory = open_folder(&folder);
    assert_memory_equal(model_hash(model), model_hash(from_memory), MODEL_HASH_BYTES);
    assert_true(bytes_equal(model_config(model)->name, bytes_of_text(path + strlen("/tmp/"))));
    assert_true(bytes_equal(model_config(model)->weights, bytes_of_text("BF16")));
    model_close(model);
    model_close(from_memory);
    for (uint32_t i = 0; i < folder.count; i++) {
        char name[1024];
        (void)snprintf(name, sizeof name, "%s/%s", path, folder.files[i].name);
        assert_int_equal(unlink(name), 0);
    }
    model = NULL;
    assert_int_equal(model_open(path, &error, &model), STATUS_BAD_INPUT);
    assert_non_null(strstr(error.text, "holds no config.json"));
    assert_int_equal(rmdir(path), 0);
    tiny_folder_destroy(&folder);
    memory_free((void *)(uintptr_t)file.data);
}

/* ---- rotary positions ---- */

/* Llama 3.1's numbers, computed by hand in double with its published formula: base 500000, 64
 * pairs, factor 8, low 1, high 4, 8192 positions. Pair 0 stays, the last is stretched by 8, and
 * those between go over. */
static void llama3_scaling_stretches_long_waves(void **state)
{
    const struct hf_rope rope = {500000, 8, 1, 4, 8192};
    const struct hf_rope plain = {500000, 1, 0, 0, 0};
    const struct hf_rope linear = {500000, 4, 0, 0, 0};
    double *scaled = NULL;
    double *unscaled = NULL;
    double *divided = NULL;
    int between = 0;

    (void)state;
    assert_int_equal(hf_config_rope(&rope, 64, &scaled), STATUS_OK);
    assert_int_equal(hf_config_rope(&plain, 64, &unscaled), STATUS_OK);
    assert_int_equal(hf_config_rope(&linear, 64, &divided), STATUS_OK);
    for (int i = 0; i < 64; i++) {
        const double wave = 6.283185307179586 / unscaled[i];
        const double ratio = unscaled[i] / scaled[i];
        assert_true(divided[i] * 4 == unscaled[i]);
        if (wave < 8192.0 / 4) {
            assert_true(ratio == 1);
        } else if (wave > 8192) {
            assert_true(ratio > 7.999999 && ratio < 8.000001);
        } else {
            const double smooth = (8192 / wave - 1) / 3;
            const double wanted = 1 / ((1 - smooth) / 8 + smooth);
            assert_true(ratio > wanted * 0.999999 && ratio < wanted * 1.000001);
            between++;
        }
    }
    assert_true(between > 2 && between < 12);
    memory_free(scaled);
    memory_free(unscaled);
    memory_free(divided);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_bits_are_those_of_the_same_weights_in_gguf),
        cmocka_unit_test(rows_in_the_wrong_order_are_caught),
        cmocka_unit_test(the_vocabulary_is_that_of_the_gguf_file),
        cmocka_unit_test(the_fingerprint_covers_every_file),
        cmocka_unit_test(a_directory_is_opened_by_its_path),
        cmocka_unit_test(llama3_scaling_stretches_long_waves),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
