/* How fast attention runs: one line a case, for one thread.
 *
 *   bench_attention [isa [repeats [f16 or bf16]]]
 *
 * Time is processor time, the smallest of the repeats. GFLOP/s counts four operations a position,
 * head and dimension; GB/s counts K and V of each item once. Four layers are run in turn, so that
 * long private contexts come from memory; private pages lie in shuffled order.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/cpu/cpu.h"

enum { LAYERS = 4, ROWS_MAX = 256, BLOCKS_MAX = 16, PAGES_MAX = 1 << 15 };

enum sharing { PRIVATE, SHARED, PREFILL };

struct line {
    const char *name;
    enum sharing sharing;
    uint32_t head_count, kv_head_count, head_size;
    uint32_t row_count;
    uint32_t context; /* positions that the last row sees */
};

static const struct line lines[] = {
    {"decode", PRIVATE, 9, 3, 64, 1, 256},
    {"decode", PRIVATE, 9, 3, 64, 1, 2048},
    {"decode", PRIVATE, 9, 3, 64, 1, 8192},
    {"decode", PRIVATE, 9, 3, 64, 16, 512},
    {"decode", PRIVATE, 9, 3, 64, 64, 512},
    {"decode, shared prefix", SHARED, 9, 3, 64, 64, 512},
    {"decode, shared prefix", SHARED, 9, 3, 64, 64, 2048},
    {"prefill", PREFILL, 9, 3, 64, 64, 64},
    {"prefill", PREFILL, 9, 3, 64, 256, 512},
    {"prefill", PREFILL, 9, 3, 64, 256, 2048},
    {"decode", PRIVATE, 32, 8, 128, 16, 1024},
    {"prefill", PREFILL, 32, 8, 128, 128, 1024},
};

static struct plan_row rows[ROWS_MAX];
static struct plan_item items[ROWS_MAX * BLOCKS_MAX];
static uint32_t item_rows[ROWS_MAX * BLOCKS_MAX];
static uint32_t row_partials[ROWS_MAX * BLOCKS_MAX];
static uint32_t pages[PAGES_MAX];

static double now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return 1e9 * (double)now.tv_sec + (double)now.tv_nsec;
}

static uint32_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

static uint32_t page_count_of(const struct line *line)
{
    const uint32_t each = (line->context + KV_PAGE_TOKEN_COUNT - 1) / KV_PAGE_TOKEN_COUNT;
    return line->sharing == PRIVATE ? each * line->row_count : each;
}

static void make_rows(const struct line *line, struct plan *plan)
{
    const uint32_t page_count = page_count_of(line);
    uint64_t state = 1;

    for (uint32_t i = 0; i < page_count; i++) {
        const uint32_t j = next_random(&state) % (i + 1);
        pages[i] = pages[j];
        pages[j] = i;
    }
    for (uint32_t i = 0; i < line->row_count; i++) {
        const uint32_t back = line->sharing == PREFILL ? line->row_count - 1 - i : 0;
        const uint32_t position = line->context - 1 - back;
        rows[i] = (struct plan_row){
            .position = position,
            .page_first = line->sharing == PRIVATE ? page_count / line->row_count * i : 0,
            .partial_first = i * BLOCKS_MAX,
            .partial_count = position / ATTENTION_BLOCK_TOKENS + 1,
        };
    }
    *plan = (struct plan){.row_count = line->row_count,
                          .page_entry_count = page_count,
                          .row_partial_count = line->row_count * BLOCKS_MAX,
                          .rows = rows,
                          .pages = pages,
                          .items = items,
                          .item_rows = item_rows,
                          .row_partials = row_partials};
}

/* An item a block, or a block and row where pages are private. */
static void make_items(const struct line *line, struct plan *plan)
{
    for (uint32_t begin = 0; begin < line->context; begin += ATTENTION_BLOCK_TOKENS) {
        const uint32_t left = line->context - begin;
        struct plan_item *item = NULL;
        for (uint32_t i = 0; i < line->row_count; i++) {
            if (rows[i].position < begin) {
                continue;
            }
            if (item == NULL || line->sharing == PRIVATE) {
                item = &items[plan->item_count++];
                *item = (struct plan_item){
                    .begin = begin,
                    .end = begin + (left < ATTENTION_BLOCK_TOKENS ? left : ATTENTION_BLOCK_TOKENS),
                    .page_first = rows[i].page_first + begin / KV_PAGE_TOKEN_COUNT,
                    .row_first = plan->item_row_count,
                    .partial_first = plan->partial_count,
                };
            }
            item->row_count++;
            item_rows[plan->item_row_count++] = i;
            row_partials[rows[i].partial_first + begin / ATTENTION_BLOCK_TOKENS] =
                plan->partial_count++;
        }
    }
}

static enum status record(struct backend *backend, const struct line *line, struct error *error,
                          struct backend_program **out)
{
    const struct backend_ops *ops = &backend_cpu_ops;
    const struct kv_shape shape = {.layer_count = LAYERS,
                                   .kv_head_count = line->kv_head_count,
                                   .head_size = line->head_size,
                                   .page_count = page_count_of(line)};
    const uint64_t float_count = (uint64_t)line->row_count * line->head_count * line->head_size;
    struct attention_args args = {.head_count = line->head_count,
                                  .kv_head_count = line->kv_head_count,
                                  .head_size = line->head_size,
                                  .scale = 0.125f};
    struct backend_buffer *q, *out_buffer;
    struct backend_kv *kv;
    uint64_t state = 2;

    TRY(ops->kv_create(backend, &shape, error, &kv));
    TRY(ops->buffer_create(backend, float_count, error, &q));
    TRY(ops->buffer_create(backend, float_count, error, &out_buffer));
    TRY(ops->program_create(backend, line->row_count, error, out));
    args.q = q;
    args.out = out_buffer;
    args.kv = kv;
    for (args.layer = 0; args.layer < LAYERS; args.layer++) {
        TRY(ops->op.attention(*out, &args, error));
    }
    /* From a quarter on: 2 to the 0 to 8 as large (BF16), or 2 to the 1 (F16). */
    const uint32_t first = kv->is_paired ? 0x3e80 : 0x3400;
    const uint32_t span = 0x0400;
    const uint64_t half_count = (uint64_t)LAYERS * shape.kv_head_count * shape.page_count *
                                shape.head_size * KV_PAGE_TOKEN_COUNT;
    for (uint64_t i = 0; i < half_count; i++) {
        kv->k[i] = (uint16_t)(first + next_random(&state) % span);
        kv->v[i] = (uint16_t)(first + next_random(&state) % span);
    }
    for (uint64_t i = 0; i < float_count; i++) {
        q->data[i] = (float)next_random(&state) * 0x1p-31f - 0.5f;
    }
    return STATUS_OK;
}

static enum status bench(const struct line *line, const char *isa, uint32_t repeat_count,
                         enum kv_type kv_type, struct error *error)
{
    const struct backend_settings settings = {
        .thread_count = 1,
        .row_count_max = ROWS_MAX,
        .sample_count_max = 1,
        .slot_count = 1,
        .history_tokens_max = 1,
        .vocabulary_count = 1,
        .partial_count_max = line->row_count * BLOCKS_MAX,
        .kv_type = kv_type,
        .isa = isa,
    };
    struct backend *backend = NULL;
    struct backend_program *program = NULL;
    struct plan plan;
    double best = 1e30, positions = 0;

    enum status status = backend_cpu_ops.create(&settings, error, &backend);
    if (status == STATUS_OK) {
        status = record(backend, line, error, &program);
    }
    make_rows(line, &plan);
    make_items(line, &plan);
    for (uint32_t repeat = 0; status == STATUS_OK && repeat < repeat_count; repeat++) {
        struct step_result result;
        uint32_t ticket;
        const double begin = now_ns();
        status = backend_cpu_ops.step_submit(program, &plan, &ticket);
        if (status == STATUS_OK) {
            status = backend_cpu_ops.step_wait(backend, ticket, &result);
        }
        const double time = (now_ns() - begin) / LAYERS;
        best = time < best ? time : best;
    }
    for (uint32_t i = 0; i < line->row_count; i++) {
        positions += rows[i].position + 1;
    }
    const double width = (double)line->head_count * line->head_size;
    const double read = line->sharing == PRIVATE ? positions : line->context;
    printf("%-22s %2u/%u heads of %3u, %3u rows, %4u positions: %8.1f us a layer, %6.1f GFLOP/s, "
           "%5.1f GB/s\n",
           line->name, line->head_count, line->kv_head_count, line->head_size, line->row_count,
           line->context, best / 1000, 4 * positions * width / best,
           4 * read * line->kv_head_count * line->head_size / best);
    backend_cpu_ops.destroy(backend);
    return status;
}

int main(int argc, char **argv)
{
    const long repeat_count = argc > 2 ? strtol(argv[2], NULL, 10) : 7;
    const bool is_bf16 = argc > 3 && strcmp(argv[3], "bf16") == 0;
    struct error error = {0};

    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        if (bench(&lines[i], argc > 1 ? argv[1] : NULL,
                  repeat_count > 0 ? (uint32_t)repeat_count : 1,
                  is_bf16 ? KV_TYPE_BF16 : KV_TYPE_F16, &error) != STATUS_OK) {
            fprintf(stderr, "bench_attention: %s\n", error.text);
            return 1;
        }
    }
    return 0;
}
