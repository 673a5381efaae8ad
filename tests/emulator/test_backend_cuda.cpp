/* Goal: a whole small model through the CUDA backend answers what the CPU backend answers within a
 * tolerance, with two steps in flight, and gives a row the same bits however its prompt was cut.
 * Method: the same weights, programs and plans for both; the prompt in one plan, then in two; a
 * decode step that names the token drawn by the step before it, given before that one was waited
 * for; a forked page. Logits within 2 percent of the largest (activations round to bf16 eight times
 * on the way, 2^-9 each; weights are bf16 for both), and by memcmp between cuts. Twins (a page
 * table that names another page, a copy that is one slot short) must be caught.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

extern "C" {
#include <cmocka.h>
}

#include "base/memory.h"
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/plan.cuh"
#include "tests/emulator/emulator_rig.h"

extern "C" const struct backend_ops backend_cuda_ops;

enum {
    WIDTH = 128,
    HEAD_COUNT = 4,
    KV_HEAD_COUNT = 2,
    HEAD_SIZE = 64,
    HIDDEN = 96,
    VOCABULARY = 70,
    LAYER_COUNT = 2,
    ROW_MAX = 24,
    PAGE_COUNT = 8,
    PROMPT_COUNT = 20,
};

static double inverse_frequency[HEAD_SIZE / 2];

struct layer {
    struct backend_weight *wq, *wk, *wv, *wo, *wg, *wu, *wd;
};

struct model {
    const struct backend_ops *ops;
    struct backend *backend;
    struct backend_kv *kv;
    struct backend_program *program;
    struct backend_weight *table;
    struct backend_buffer *x, *q, *a, *h, *logits, *norm;
    struct layer layers[LAYER_COUNT];
};

static struct backend_weight *load(const struct model *model, uint32_t rows, uint32_t cols)
{
    uint16_t *data = (uint16_t *)memory_alloc((size_t)rows * cols, sizeof *data);
    struct backend_weight *weight = NULL;
    struct weight_source source = {};

    for (uint32_t i = 0; i < rows * cols; i++) {
        data[i] = steps_bf16_from_float(2 * random_value() / sqrtf((float)cols));
    }
    source.name = "random";
    source.dtype = DTYPE_BF16;
    source.rows = rows;
    source.cols = cols;
    source.data = data;
    source.size_bytes = (uint64_t)rows * cols * sizeof *data;
    assert_int_equal(model->ops->weight_load(model->backend, &source, NULL, &weight), STATUS_OK);
    memory_free(data);
    return weight;
}

static struct backend_buffer *buffer(const struct model *model, uint64_t count)
{
    struct backend_buffer *made = NULL;

    assert_int_equal(model->ops->buffer_create(model->backend, count, NULL, &made), STATUS_OK);
    return made;
}

static void record_layer(struct model *model, uint32_t at)
{
    const struct layer *layer = &model->layers[at];
    struct attn_in_args in = {};
    struct attention_args attention = {};
    const struct attn_out_args out = {model->x, model->a, layer->wo, NULL};
    const struct ffn_in_args ffn_in = {model->x,  model->h,  model->norm,    1e-5f,
                                       layer->wg, layer->wu, ACTIVATION_SILU};
    const struct ffn_out_args ffn_out = {model->x, model->h, layer->wd};

    in.x = model->x;
    in.q = model->q;
    in.kv = model->kv;
    in.layer = attention.layer = at;
    in.norm = model->norm;
    in.epsilon = 1e-5f;
    in.wq = layer->wq;
    in.wk = layer->wk;
    in.wv = layer->wv;
    in.head_count = attention.head_count = HEAD_COUNT;
    in.kv_head_count = attention.kv_head_count = KV_HEAD_COUNT;
    in.head_size = attention.head_size = HEAD_SIZE;
    in.rope_pair_count = HEAD_SIZE / 2;
    in.rope_style = ROPE_HALVES;
    in.inverse_frequency = inverse_frequency;
    attention.q = model->q;
    attention.out = model->a;
    attention.kv = model->kv;
    attention.scale = 0.125f;
    assert_int_equal(model->ops->op.attn_in(model->program, &in, NULL), STATUS_OK);
    assert_int_equal(model->ops->op.attention(model->program, &attention, NULL), STATUS_OK);
    assert_int_equal(model->ops->op.attn_out(model->program, &out, NULL), STATUS_OK);
    assert_int_equal(model->ops->op.ffn_in(model->program, &ffn_in, NULL), STATUS_OK);
    assert_int_equal(model->ops->op.ffn_out(model->program, &ffn_out, NULL), STATUS_OK);
}

static void record(struct model *model)
{
    const struct kv_copy_args copy = {model->kv};
    const struct embed_args embed = {model->x, model->table, 1.0f};
    const struct logits_args logits = {model->x, model->logits, model->norm,
                                       1e-5f,    model->table,  0.0f};
    const struct sample_args sample = {model->logits};

    assert_int_equal(model->ops->op.kv_copy(model->program, &copy, NULL), STATUS_OK);
    assert_int_equal(model->ops->op.embed(model->program, &embed, NULL), STATUS_OK);
    for (uint32_t at = 0; at < LAYER_COUNT; at++) {
        record_layer(model, at);
    }
    assert_int_equal(model->ops->op.logits(model->program, &logits, NULL), STATUS_OK);
    assert_int_equal(model->ops->op.sample(model->program, &sample, NULL), STATUS_OK);
    assert_int_equal(model->ops->program_finish(model->program, NULL), STATUS_OK);
}

static void open_model(struct model *model, const struct backend_ops *ops,
                       enum kv_type kv_type = KV_TYPE_F16)
{
    const struct kv_shape shape = {LAYER_COUNT, KV_HEAD_COUNT, HEAD_SIZE, PAGE_COUNT};
    struct backend_settings settings = {};
    float norm[WIDTH];

    settings.thread_count = 1;
    settings.row_count_max = ROW_MAX;
    settings.sample_count_max = settings.slot_count = 4;
    settings.history_tokens_max = 64;
    settings.vocabulary_count = VOCABULARY;
    settings.partial_count_max = 64;
    settings.kv_type = kv_type;
    random_state = 7; /* the same weights for both */
    model->ops = ops;
    assert_int_equal(ops->create(&settings, NULL, &model->backend), STATUS_OK);
    assert_int_equal(ops->kv_create(model->backend, &shape, NULL, &model->kv), STATUS_OK);
    assert_int_equal(ops->program_create(model->backend, ROW_MAX, NULL, &model->program),
                     STATUS_OK);
    model->table = load(model, VOCABULARY, WIDTH);
    for (uint32_t at = 0; at < LAYER_COUNT; at++) {
        struct layer *layer = &model->layers[at];

        layer->wq = load(model, HEAD_COUNT * HEAD_SIZE, WIDTH);
        layer->wk = load(model, KV_HEAD_COUNT * HEAD_SIZE, WIDTH);
        layer->wv = load(model, KV_HEAD_COUNT * HEAD_SIZE, WIDTH);
        layer->wo = load(model, WIDTH, HEAD_COUNT * HEAD_SIZE);
        layer->wg = load(model, HIDDEN, WIDTH);
        layer->wu = load(model, HIDDEN, WIDTH);
        layer->wd = load(model, WIDTH, HIDDEN);
    }
    model->x = buffer(model, ROW_MAX * WIDTH);
    model->q = buffer(model, ROW_MAX * HEAD_COUNT * HEAD_SIZE);
    model->a = buffer(model, ROW_MAX * HEAD_COUNT * HEAD_SIZE);
    model->h = buffer(model, ROW_MAX * HIDDEN);
    model->logits = buffer(model, 4 * VOCABULARY);
    model->norm = buffer(model, WIDTH);
    for (uint32_t i = 0; i < WIDTH; i++) {
        norm[i] = 1 + 0.25f * random_value();
        inverse_frequency[i % (HEAD_SIZE / 2)] = pow(1e4, -(double)(i % 32) / 32);
    }
    assert_int_equal(ops->buffer_write(model->norm, norm, WIDTH), STATUS_OK);
    record(model);
}

/* Rows of one branch at positions [begin, begin + count), the last one sampled greedily. */
struct stretch {
    uint32_t pages[2];
    struct plan_row rows[ROW_MAX];
    struct plan_item item;
    uint32_t item_rows[ROW_MAX], row_partials[ROW_MAX], logits_row;
    struct plan_sample sample;
    struct plan_kv_copy copy;
    struct step_list list;
    struct plan plan;
};

static void fill_stretch(struct stretch *stretch, uint32_t begin, uint32_t count,
                         uint32_t first_page, uint32_t second_page)
{
    struct plan *plan = &stretch->plan;

    memset(stretch, 0, sizeof *stretch);
    stretch->pages[0] = first_page;
    stretch->pages[1] = second_page;
    for (uint32_t i = 0; i < count; i++) {
        struct plan_row *row = &stretch->rows[i];
        row->token = (begin + i) * 7 % VOCABULARY;
        row->position = begin + i;
        row->partial_first = i;
        row->partial_count = 1;
        row->writes_kv = 1;
        stretch->item_rows[i] = stretch->row_partials[i] = i;
    }
    stretch->item.end = begin + count;
    stretch->item.row_count = count;
    stretch->logits_row = count - 1;
    stretch->list.count = 1;
    stretch->list.steps[0].type = STEP_TEMPERATURE;
    stretch->sample.steps = &stretch->list;
    stretch->sample.top_count = 4;
    plan->row_count = plan->item_row_count = plan->row_partial_count = plan->partial_count = count;
    plan->page_entry_count = 2;
    plan->item_count = plan->logits_row_count = plan->sample_count = 1;
    plan->rows = stretch->rows;
    plan->pages = stretch->pages;
    plan->items = &stretch->item;
    plan->item_rows = stretch->item_rows;
    plan->row_partials = stretch->row_partials;
    plan->logits_rows = &stretch->logits_row;
    plan->samples = &stretch->sample;
    plan->kv_copies = &stretch->copy;
}

static uint32_t submit(struct model *model, const struct stretch *stretch)
{
    uint32_t ticket = 0;

    assert_int_equal(model->ops->step_submit(model->program, &stretch->plan, &ticket), STATUS_OK);
    return ticket;
}

static struct sample_result wait(struct model *model, uint32_t ticket, uint32_t row_count)
{
    struct step_result result;

    assert_int_equal(model->ops->step_wait(model->backend, ticket, &result), STATUS_OK);
    for (uint32_t row = 0; row < row_count; row++) {
        assert_int_equal(result.row_faults[row], 0);
    }
    assert_int_equal(result.samples[0].flags, 0);
    return result.samples[0];
}

/* The logits of the last row. */
static void run(struct model *model, const struct stretch *stretch, float *logits)
{
    (void)wait(model, submit(model, stretch), stretch->plan.row_count);
    assert_int_equal(model->ops->buffer_read(model->logits, 0, logits, VOCABULARY), STATUS_OK);
}

static float largest_difference(const float *a, const float *b)
{
    float largest = 0, difference = 0;

    for (uint32_t i = 0; i < VOCABULARY; i++) {
        largest = fabsf(b[i]) > largest ? fabsf(b[i]) : largest;
        difference = !(fabsf(a[i] - b[i]) <= difference) ? fabsf(a[i] - b[i]) : difference;
    }
    return difference / largest;
}

static void a_model_answers_as_the_cpu_does(void **state)
{
    struct stretch prompt, decode, forked;
    float expected[3][VOCABULARY], logits[3][VOCABULARY];

    (void)state;
    fill_stretch(&prompt, 0, PROMPT_COUNT, 3, 1);
    fill_stretch(&decode, PROMPT_COUNT, 1, 3, 1);
    fill_stretch(&forked, PROMPT_COUNT - 2, 1, 3, 6);
    forked.plan.kv_copy_count = 1;
    forked.copy.from = 1;
    forked.copy.to = 6;
    forked.copy.slot_count = PROMPT_COUNT - 2 - KV_PAGE_TOKEN_COUNT;
    for (uint32_t i = 0; i < CONFIG_COUNT; i += emulator_runs_long() ? 1 : 5) {
        struct model cpu, cuda;

        configure(i);
        open_model(&cpu, &backend_cpu_ops);
        open_model(&cuda, &backend_cuda_ops);
        run(&cpu, &prompt, expected[0]);
        run(&cuda, &prompt, logits[0]);
        run(&cpu, &decode, expected[1]);
        run(&cuda, &decode, logits[1]);
        run(&cpu, &forked, expected[2]);
        run(&cuda, &forked, logits[2]);
        for (uint32_t j = 0; j < 3; j++) {
            assert_true(largest_difference(logits[j], expected[j]) < 0.02f);
        }
        cpu.ops->destroy(cpu.backend);
        cuda.ops->destroy(cuda.backend);
    }
}

/* bf16 has 8 bits, fp8 4; both of what went in. A twin: types must differ in their bits. */
static void other_types_of_keys_and_values_answer_nearly_so(void **state)
{
    static const enum kv_type types[] = {KV_TYPE_F16, KV_TYPE_BF16, KV_TYPE_FP8};
    static const float bounds[] = {0.02f, 0.03f, 0.15f};
    static float expected[VOCABULARY], logits[3][VOCABULARY];
    struct stretch prompt, decode;
    struct model model;

    (void)state;
    configure(2);
    fill_stretch(&prompt, 0, PROMPT_COUNT, 3, 1);
    fill_stretch(&decode, PROMPT_COUNT, 1, 3, 1);
    open_model(&model, &backend_cpu_ops);
    run(&model, &prompt, expected);
    run(&model, &decode, expected);
    model.ops->destroy(model.backend);
    for (uint32_t i = 0; i < 3; i++) {
        open_model(&model, &backend_cuda_ops, types[i]);
        run(&model, &prompt, logits[i]);
        run(&model, &decode, logits[i]);
        const float difference = largest_difference(logits[i], expected);
        print_message("kv type %u: %.4f of the largest logit\n", i, (double)difference);
        assert_true(difference < bounds[i]);
        model.ops->destroy(model.backend);
    }
    assert_memory_not_equal(logits[0], logits[1], sizeof expected);
    assert_memory_not_equal(logits[1], logits[2], sizeof expected);
}

static void two_steps_are_in_flight(void **state)
{
    struct stretch prompt, decode;
    struct model model;
    float logits[VOCABULARY], apart[VOCABULARY];
    uint32_t spare = 0;

    (void)state;
    configure(0);
    open_model(&model, &backend_cuda_ops);
    assert_int_equal(model.ops->step_slot_count(model.backend), 2);
    fill_stretch(&prompt, 0, PROMPT_COUNT, 3, 1);
    fill_stretch(&decode, PROMPT_COUNT, 1, 3, 1);
    decode.rows[0].token = PLAN_TOKEN_LAST | 0;
    const uint32_t first = submit(&model, &prompt);
    const uint32_t second = submit(&model, &decode);
    assert_int_equal(model.ops->step_submit(model.program, &decode.plan, &spare), STATUS_AGAIN);
    const struct sample_result drawn = wait(&model, first, PROMPT_COUNT);
    assert_int_equal(drawn.top_count, 4);
    assert_int_equal(drawn.token, drawn.top[0].token);
    (void)wait(&model, second, 1);
    assert_int_equal(model.ops->buffer_read(model.logits, 0, logits, VOCABULARY), STATUS_OK);

    decode.rows[0].token = drawn.token;
    run(&model, &decode, apart);
    assert_memory_equal(logits, apart, sizeof logits);
    decode.rows[0].token = (drawn.token + 1) % VOCABULARY;
    run(&model, &decode, apart);
    assert_memory_not_equal(logits, apart, sizeof logits);
    model.ops->destroy(model.backend);
}

/* Steps of one bucket and of others, each against a backend that ran nothing else. */
static void a_step_does_not_remember_the_one_before(void **state)
{
    static const uint32_t counts[] = {3, 7, 1, PROMPT_COUNT, 8, 9};
    enum { STEPS = sizeof counts / sizeof counts[0] };
    static float logits[STEPS][VOCABULARY], alone[VOCABULARY];
    struct stretch stretch;
    struct model model;

    (void)state;
    for (uint32_t i = 0; i < (emulator_runs_long() ? 4u : 1u); i++) {
        configure(i);
        open_model(&model, &backend_cuda_ops);
        for (uint32_t j = 0; j < STEPS; j++) {
            fill_stretch(&stretch, 0, counts[j], j % 3, 5);
            run(&model, &stretch, logits[j]);
        }
        model.ops->destroy(model.backend);
        for (uint32_t j = 0; j < STEPS; j++) {
            open_model(&model, &backend_cuda_ops);
            fill_stretch(&stretch, 0, counts[j], 4, 7);
            run(&model, &stretch, alone);
            assert_memory_equal(alone, logits[j], sizeof alone);
            model.ops->destroy(model.backend);
        }
    }
    assert_memory_not_equal(logits[0], logits[1], sizeof alone);
}

static void cuts_of_the_prompt_change_no_bit(void **state)
{
    static const uint32_t cuts[] = {1, 7, 16, 19};
    struct stretch whole, head, tail;
    float logits[VOCABULARY], cut[VOCABULARY];
    struct model model;

    (void)state;
    configure(3);
    open_model(&model, &backend_cuda_ops);
    fill_stretch(&whole, 0, PROMPT_COUNT, 3, 1);
    run(&model, &whole, logits);
    for (uint32_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
        fill_stretch(&head, 0, cuts[i], 2, 5);
        fill_stretch(&tail, cuts[i], PROMPT_COUNT - cuts[i], 2, 5);
        run(&model, &head, cut);
        run(&model, &tail, cut);
        assert_memory_equal(cut, logits, sizeof cut);
    }
    /* Twins: another page; a copy that is one slot short of what the row sees. */
    fill_stretch(&tail, PROMPT_COUNT - 1, 1, 2, 7);
    run(&model, &tail, cut);
    assert_memory_not_equal(cut, logits, sizeof cut);
    tail.plan.kv_copy_count = 1;
    tail.copy.from = 5;
    tail.copy.to = 7;
    tail.copy.slot_count = PROMPT_COUNT - 1 - KV_PAGE_TOKEN_COUNT - 1;
    run(&model, &tail, cut);
    assert_memory_not_equal(cut, logits, sizeof cut);
    tail.copy.slot_count++;
    run(&model, &tail, cut);
    assert_memory_equal(cut, logits, sizeof cut);
    model.ops->destroy(model.backend);
}

static void a_finished_program_takes_no_more_operations(void **state)
{
    struct model model;
    struct backend_program *other = nullptr;
    struct error error = {};

    (void)state;
    configure(0);
    open_model(&model, &backend_cuda_ops); /* which finishes its program */
    const struct kv_copy_args copy = {model.kv};
    assert_int_equal(model.ops->op.kv_copy(model.program, &copy, &error), STATUS_UNSUPPORTED);
    assert_non_null(strstr(error.text, "finished program"));
    assert_int_equal(model.ops->program_create(model.backend, ROW_MAX, &error, &other), STATUS_OK);
    assert_int_equal(model.ops->op.kv_copy(other, &copy, &error), STATUS_OK);
    model.ops->destroy(model.backend);
}

/* Everything of a backend, failing at the first allocation that does. */
static enum status make_all(struct backend **out)
{
    const struct backend_ops *ops = &backend_cuda_ops;
    const struct kv_shape shape = {1, 1, HEAD_SIZE, 2};
    struct backend_settings settings = {};
    struct backend_program *program = NULL;
    struct backend_kv *kv = NULL;
    struct backend_buffer *logits = NULL;
    struct error error = {};

    settings.row_count_max = settings.sample_count_max = settings.slot_count = 2;
    settings.history_tokens_max = 16;
    settings.vocabulary_count = 8;
    settings.partial_count_max = 2;
    TRY(ops->create(&settings, &error, out));
    TRY(ops->kv_create(*out, &shape, &error, &kv));
    TRY(ops->buffer_create(*out, 16, &error, &logits));
    TRY(ops->program_create(*out, 2, &error, &program));
    const struct sample_args args = {logits};
    TRY(ops->op.sample(program, &args, &error));
    return ops->program_finish(program, &error);
}

static void running_out_of_memory_leaves_nothing_behind(void **state)
{
    const int64_t live_count = memory_live_count();
    enum status status = STATUS_MEMORY;
    int64_t survivors = 0;

    (void)state;
    for (; status != STATUS_OK; survivors++) {
        struct backend *backend = NULL;

        assert_true(survivors < 100);
        memory_fault_set(survivors);
        status = make_all(&backend);
        memory_fault_set(-1);
        assert_true(status == STATUS_OK || status == STATUS_MEMORY);
        backend_cuda_ops.destroy(backend);
        assert_int_equal(memory_live_count(), live_count);
    }
    assert_true(survivors > 10);
}

static void a_list_beyond_its_room_is_refused_before_anything_runs(void **state)
{
    static uint32_t ids[4 * CUDA_PLAN_WORDS_SAMPLE + 2 * CUDA_PLAN_WORDS_HISTORY];
    struct stretch prompt;
    struct model model;
    float logits[VOCABULARY];
    uint32_t ticket = 0;

    (void)state;
    configure(0);
    open_model(&model, &backend_cuda_ops);
    fill_stretch(&prompt, 0, 3, 3, 1);
    prompt.list.steps[0].type = STEP_MIN_TOKENS;
    prompt.list.steps[0].ids = ids;
    prompt.list.steps[0].list_count = sizeof ids / sizeof ids[0];
    assert_int_equal(model.ops->step_submit(model.program, &prompt.plan, &ticket), STATUS_LIMIT);
    prompt.list.steps[0].list_count = 5;
    run(&model, &prompt, logits);
    model.ops->destroy(model.backend);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_model_answers_as_the_cpu_does),
        cmocka_unit_test(other_types_of_keys_and_values_answer_nearly_so),
        cmocka_unit_test(two_steps_are_in_flight),
        cmocka_unit_test(a_step_does_not_remember_the_one_before),
        cmocka_unit_test(cuts_of_the_prompt_change_no_bit),
        cmocka_unit_test(a_finished_program_takes_no_more_operations),
        cmocka_unit_test(running_out_of_memory_leaves_nothing_behind),
        cmocka_unit_test(a_list_beyond_its_room_is_refused_before_anything_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
