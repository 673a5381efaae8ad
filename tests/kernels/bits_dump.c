/* Prints one line a kernel, type and shape with a hash of the bits that it gives: the output of two
 * builds (gcc and clang, or two machines) must be equal. Instruction sets that this machine lacks
 * are left out, so compare builds on one machine.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "kernels/cpu/isa.h"
#include "support/isa_names.h"
#include "support/layer.h"
#include "support/random_weight.h"

enum { ROW_COUNT = 23, VALUE_COUNT = 1000 };

static uint64_t hash_of(uint64_t hash, const void *bytes, size_t size)
{
    const uint8_t *at = bytes;

    for (size_t i = 0; i < size; i++) {
        hash = (hash ^ at[i]) * UINT64_C(0x100000001b3);
    }
    return hash;
}

static uint64_t hash_buffer(const struct backend_buffer *buffer)
{
    return hash_of(UINT64_C(0xcbf29ce484222325), buffer->data,
                   buffer->float_count * sizeof(buffer->data[0]));
}

static uint64_t hash_kv(const struct backend_kv *kv)
{
    const size_t bytes = sizeof(uint16_t) * kv->shape.layer_count * kv->shape.kv_head_count *
                         kv->shape.page_count * kv->shape.head_size * KV_PAGE_TOKEN_COUNT;

    return hash_of(hash_of(UINT64_C(0xcbf29ce484222325), kv->k, bytes), kv->v, bytes);
}

static void dump_layer(const char *isa, const struct layer_shape *shape)
{
    struct layer layer;

    if (layer_init(&layer, shape, isa, 2, shape->dtype) != STATUS_OK) {
        return;
    }
    layer_run(&layer, 0, ROW_COUNT, NULL);
    printf("%-7s %-5s%s head %3" PRIu32 "  q %016" PRIx64 "  kv %016" PRIx64 "  h %016" PRIx64
           "  x %016" PRIx64 "  logits %016" PRIx64 "\n",
           isa, dtype_name(shape->dtype), shape->precise ? " i16" : "", shape->head_size,
           hash_buffer(layer.q), hash_kv(layer.kv), hash_buffer(layer.h), hash_buffer(layer.x),
           hash_buffer(layer.logits));
    layer_finish(&layer);
}

static void dump_rows(const char *name)
{
    static float gate[VALUE_COUNT], up[VALUE_COUNT], out[VALUE_COUNT];
    static uint16_t halves[VALUE_COUNT];
    const struct cpu_kernels *kernels;
    uint64_t state = 17;
    enum cpu_isa isa;

    if (cpu_isa_choose(name, NULL, &isa) != STATUS_OK) {
        return;
    }
    kernels = cpu_isa_kernels(isa);
    random_floats(&state, gate, VALUE_COUNT);
    random_floats(&state, up, VALUE_COUNT);
    for (uint32_t i = 0; i < VALUE_COUNT; i++) {
        gate[i] *= 60.0f;
    }
    kernels->rms_norm(gate, up, 1e-5f, VALUE_COUNT, out);
    printf("%-7s rms_norm %016" PRIx64 "\n", name, hash_of(1, out, sizeof(out)));
    kernels->silu_multiply(gate, up, VALUE_COUNT);
    printf("%-7s silu     %016" PRIx64 "\n", name, hash_of(1, gate, sizeof(gate)));
    if (kernels->round_to_half(gate, VALUE_COUNT, halves)) {
        return;
    }
    printf("%-7s halves   %016" PRIx64 "\n", name, hash_of(1, halves, sizeof(halves)));
}

int main(void)
{
    static const uint32_t dtypes[] = {
#define X(name, number, elements, bytes) number,
        DTYPE_MAP(X)
#undef X
    };

    for (size_t i = 0; i < ISA_NAME_COUNT; i++) {
        dump_rows(isa_names[i]);
        for (size_t d = 0; d < sizeof(dtypes) / sizeof(dtypes[0]); d++) {
            const struct layer_shape halves = {dtypes[d], 4,  2,           64,   512,
                                               70,        32, ROPE_HALVES, true, false};
            const struct layer_shape pairs = {dtypes[d],     32,    8,    8, 256, 33, 4,
                                              ROPE_ADJACENT, false, false};

            struct layer_shape precise = halves;

            precise.precise = true;
            dump_layer(isa_names[i], &halves);
            dump_layer(isa_names[i], &precise);
            dump_layer(isa_names[i], &pairs);
        }
    }
    return memory_live_count() == 0 ? 0 : 1;
}
