/* Goal: what prim.cuh, prim_wgmma.cuh and kernels/steps say holds on the card that runs this: the
 * emulator's and, compiled by nvcc, a real one (tests/card/card_kernels.cpp).
 * Method: one small kernel for a kind of primitive, its answers against plain code of the host by
 * memcmp; products against the bit model of the card's own kind. Each test has a twin: another
 * lane, group, model or bit, which must not pass.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <vector>

extern "C" {
#include <cmocka.h>
}

#include "kernels/cuda/prim_wgmma.cuh"
#include "kernels/steps/masses.h"
#include "kernels/steps/philox.h"
#include "tests/emulator/card.h"
#include "tests/emulator/emulator_rig.h"

enum { WARP = 32, CLUSTER = 2, WGMMA_ARCHITECTURE = 90 };

/* ---- what lanes, blocks and clusters share ---- */

struct shared_answers {
    float sum;
    uint32_t up, votes, before, beside;
    uint64_t other;
};

static KERNEL void sharing_kernel(struct shared_answers *answers, uint32_t *total, uint32_t ranks)
{
    SHARED(uint32_t, words); /* a count, then one a thread */
    struct shared_answers answer = {};

    prim_depend_wait();
    if (PRIM_THREAD == 0) {
        words[0] = 0;
    }
    words[1 + PRIM_THREAD] = 1000 * PRIM_BLOCK_X + PRIM_THREAD;
    prim_sync();
    answer.sum = (float)PRIM_THREAD;
    for (uint32_t lanes = WARP / 2; lanes > 0; lanes /= 2) {
        answer.sum += prim_shuffle_xor(answer.sum, lanes);
    }
    answer.other = prim_shuffle((uint64_t)PRIM_THREAD << 40, (PRIM_THREAD + 3) % WARP);
    answer.up = prim_shuffle_up(PRIM_THREAD, 5);
    answer.votes = prim_ballot(PRIM_THREAD % 3 == 0);
    answer.before = prim_atomic_add_shared(&words[0], 1);
    prim_sync();
    (void)prim_atomic_add_global(total, words[0]);
    if (ranks > 1) {
        prim_cluster_sync();
        answer.beside = *prim_cluster_map(&words[1 + PRIM_THREAD], 1 - prim_cluster_rank());
        prim_cluster_sync();
    }
    answers[PRIM_BLOCK_X * PRIM_THREADS + PRIM_THREAD] = answer;
}

static void lanes_blocks_and_clusters_share_what_the_words_say(void **state)
{
    enum { THREADS = 64, BLOCKS = 2 * CLUSTER };
    struct shared_answers answers[BLOCKS * THREADS];
    struct card card;

    (void)state;
    for (uint32_t i = 0; i < CONFIG_COUNT; i++) {
        uint32_t total = 0, order_sum = 0;

        configure(i);
        card_open(&card);
        const bool has_clusters =
            device_read_facts(card.device)->architecture >= DEVICE_ARCHITECTURE_CLUSTER;
        const uint32_t ranks = has_clusters ? CLUSTER : 1;
        memset(answers, 0xff, sizeof answers);
        assert_int_equal(
            device_launch_cluster<sharing_kernel>(
                card.device, ranks, BLOCKS, 1, THREADS, (1 + THREADS) * (uint32_t)sizeof(uint32_t),
                card_give(&card, answers, BLOCKS * THREADS), card_give(&card, &total, 1), ranks),
            STATUS_OK);
        card_take(&card);
        card_finish(&card);
        assert_int_equal(total, BLOCKS * THREADS * THREADS);
        for (uint32_t j = 0; j < BLOCKS * THREADS; j++) {
            const uint32_t thread = j % THREADS, base = thread / WARP * WARP, block = j / THREADS;
            uint32_t votes = 0;

            for (uint32_t lane = 0; lane < WARP; lane++) {
                votes |= (uint32_t)((base + lane) % 3 == 0) << lane;
            }
            assert_true(answers[j].sum == (float)(WARP * base + 496));
            assert_true(answers[j].other == (uint64_t)(base + (thread + 3) % WARP) << 40);
            assert_int_equal(answers[j].up, thread % WARP < 5 ? thread : thread - 5);
            assert_int_equal(answers[j].votes, votes);
            assert_true(!has_clusters ||
                        answers[j].beside == 1000 * (block / 2 * 2 + 1 - block % 2) + thread);
            order_sum += answers[j].before;
        }
        assert_int_equal(order_sum, BLOCKS * THREADS * (THREADS - 1) / 2);
        assert_false(answers[5].other == answers[6].other); /* another lane shows */
    }
}

/* ---- copies in the background ---- */

enum { GROUPS = 4, PIECE = 16 };

/* Four groups of one piece a thread, of which odd threads ask for zeros; each is read once as many
 * as `pending` may still be on their way. */
static KERNEL void copying_kernel(const uint8_t *from, uint8_t *to)
{
    SHARED(uint8_t, held);
    const uint32_t threads = PRIM_THREADS, at = PIECE * PRIM_THREAD;
    uint32_t words[4];

    prim_depend_wait();
    for (uint32_t group = 0; group < GROUPS; group++) {
        const uint32_t place = PIECE * threads * group + at;

        prim_copy16(held + place, from + place, PRIM_THREAD % 2 == 0 || group == 0);
        prim_copy_commit();
    }
    prim_copy_commit(); /* an empty one counts too */
    prim_copy_wait<GROUPS>();
    for (uint32_t group = 0; group < GROUPS; group++) {
        const uint32_t place = PIECE * threads * group + at;

        if (group == 1) {
            prim_copy_wait<GROUPS - 1>();
        } else if (group == 2) {
            prim_copy_wait<1>();
        }
        prim_load16_shared(words, held + place);
        for (uint32_t i = 0; i < 4; i++) {
            ((uint32_t *)(to + place))[i] = words[i];
        }
    }
}

static void copies_land_by_groups_and_bring_zeros(void **state)
{
    enum { THREADS = 96, BYTES = GROUPS * THREADS * PIECE };
    static uint8_t from[BYTES], to[BYTES], wanted[BYTES];
    struct card card;

    (void)state;
    for (uint32_t i = 0; i < BYTES; i++) {
        const uint32_t group = i / (THREADS * PIECE), thread = i / PIECE % THREADS;

        from[i] = (uint8_t)(random_bits() | 1);
        wanted[i] = thread % 2 == 0 || group == 0 ? from[i] : 0;
    }
    for (uint32_t i = 0; i < CONFIG_COUNT; i++) {
        configure(i);
        card_open(&card);
        memset(to, 0xff, sizeof to);
        assert_int_equal(device_launch<copying_kernel>(card.device, 1, 1, THREADS, BYTES,
                                                       card_give<const uint8_t>(&card, from, BYTES),
                                                       card_give(&card, to, BYTES)),
                         STATUS_OK);
        card_take(&card);
        card_finish(&card);
        assert_memory_equal(to, wanted, BYTES);
        assert_memory_not_equal(to, from, BYTES); /* zeros came */
    }
}

/* ---- numbers ---- */

enum { NUMBER_COUNT = 1 << 16 };

/* Of the number that i stands for: 16 bits of a half, and a float of them. */
struct number_answers {
    uint32_t half, halves, bf16s, from_half, permuted, exp, from_fp8;
    uint32_t fp8_halves[2], fp8_bf16s[2];
    uint32_t sine, cosine, quotient, root, separate;
    uint64_t log, mass, draw;
};

STEPS_FUNCTION float number_of(uint32_t i)
{
    return steps_float_from_half((uint16_t)i) * (i % 3 == 0 ? 0.7f : 1.0f);
}

STEPS_FUNCTION uint64_t bits_of_double(double value)
{
    uint64_t bits;

    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* What kernels/steps and plain operators give, on either side. */
STEPS_FUNCTION void answer_plainly(uint32_t i, struct number_answers *out)
{
    const float value = number_of(i), other = number_of(i * 40503u & 0x7bffu) + 0.25f;
    float sine, cosine;

    steps_sincos((double)(i % 4096) * 3.7, &sine, &cosine);
    out->half = steps_half_from_float(value);
    out->exp = steps_bits_from_float(steps_exp(value / 64.0f));
    out->from_fp8 = steps_bits_from_float(steps_float_from_fp8(steps_fp8_from_float(value)));
    out->sine = steps_bits_from_float(sine);
    out->cosine = steps_bits_from_float(cosine);
    out->quotient = steps_bits_from_float((float)(i + 1) / other);
    out->root = steps_bits_from_float(sqrtf((float)i + 0.3f));
    out->separate = steps_bits_from_float((float)i * 0.3f + other); /* not one fused step */
    out->log = bits_of_double(steps_log((double)i + 0.5));
    out->mass = steps_mass((float)(i % 500) / -7.0f, 0.0f);
    out->draw = philox_draw(i, i * 3, 1, 7);
}

/* Four codes, none of them a NaN. */
STEPS_FUNCTION uint32_t codes_of(uint32_t i)
{
    uint32_t codes = 0;

    for (uint32_t k = 0; k < 4; k++) {
        const uint32_t code = (i + 61 * k) & 0xffu;

        codes |= (code & 0x7fu) == 0x7fu ? 0 : code << 8 * k;
    }
    return codes;
}

static KERNEL void numbers_kernel(struct number_answers *answers, float *powers)
{
    const uint32_t i = PRIM_BLOCK_X * PRIM_THREADS + PRIM_THREAD;
    const float value = fabsf(number_of(i)) <= STEPS_HALF_MAX ? number_of(i) : 0.0f;
    struct number_answers *out = &answers[i];

    prim_depend_wait();
    answer_plainly(i, out);
    out->halves = prim_pack_half(value, -value);
    out->bf16s = prim_pack_bf16(value, 3.0f * value);
    out->from_half = steps_bits_from_float(prim_float_from_half((uint16_t)i));
    out->permuted = prim_permute(i * 2654435761u, ~i, i & 0x7777u);
    prim_widen_fp8_half(out->fp8_halves, codes_of(i));
    prim_widen_fp8_bf16(out->fp8_bf16s, codes_of(i));
    powers[i] = prim_exp2((float)i / 200.0f - 200.0f);
}

/* The same by the host's bodies. */
static void answer_on_the_host(uint32_t i, struct number_answers *out)
{
    const float value = fabsf(number_of(i)) <= STEPS_HALF_MAX ? number_of(i) : 0.0f;
    const uint32_t codes = codes_of(i);
    const uint64_t bytes = i * 2654435761u | (uint64_t)~i << 32;

    memset(out, 0, sizeof *out);
    answer_plainly(i, out);
    out->halves = steps_half_from_float(value) | (uint32_t)steps_half_from_float(-value) << 16;
    out->bf16s = steps_bf16_from_float(value) | (uint32_t)steps_bf16_from_float(3.0f * value) << 16;
    out->from_half = steps_bits_from_float(steps_float_from_half((uint16_t)i));
    for (uint32_t k = 0; k < 4; k++) {
        const float plain = steps_float_from_fp8((uint8_t)(codes >> 8 * k));

        out->permuted |= (uint32_t)(bytes >> (i >> 4 * k & 7u) * 8 & 255u) << 8 * k;
        out->fp8_halves[k / 2] |= (uint32_t)steps_half_from_float(plain) << k % 2 * 16;
        out->fp8_bf16s[k / 2] |= (uint32_t)steps_bf16_from_float(plain) << k % 2 * 16;
    }
}

static bool is_nan_half(uint32_t bits)
{
    return (bits & 0x7fffu) > 0x7c00u;
}

static void numbers_have_the_hosts_bits(void **state)
{
    std::vector<struct number_answers> answers(NUMBER_COUNT);
    std::vector<float> powers(NUMBER_COUNT, NAN);
    struct card card;

    (void)state;
    configure(0);
    card_open(&card);
    memset((void *)answers.data(), 0, NUMBER_COUNT * sizeof answers[0]);
    assert_int_equal(device_launch<numbers_kernel>(card.device, NUMBER_COUNT / 128, 1, 128, 0,
                                                   card_give(&card, answers.data(), NUMBER_COUNT),
                                                   card_give(&card, powers.data(), NUMBER_COUNT)),
                     STATUS_OK);
    card_take(&card);
    card_finish(&card);
    for (uint32_t i = 0; i < NUMBER_COUNT; i++) {
        struct number_answers wanted;
        const double x = (float)i / 200.0f - 200.0f, power = exp2(x);

        answer_on_the_host(i, &wanted);
        if (is_nan_half(i)) { /* whose bits are nobody's */
            answers[i].half = wanted.half;
            answers[i].from_half = wanted.from_half;
            answers[i].from_fp8 = wanted.from_fp8;
        }
        if (memcmp(&answers[i], &wanted, sizeof wanted) != 0) {
            fail_msg("number %u differs from the host's", i);
        }
        assert_true(x < -126.0 ? powers[i] == 0.0f : fabs(powers[i] - power) <= power * 0x1p-22);
        /* Twin: a last bit of either is seen. */
        wanted.log ^= 1;
        assert_memory_not_equal(&answers[i], &wanted, sizeof wanted);
    }
}

/* ---- tensor cores ---- */

enum { ROWS = 16, COLUMNS = 8, STEP = 16, PRODUCT_COUNT = 64 };

struct tile_product {
    alignas(16) uint16_t a[ROWS][STEP];
    alignas(16) uint16_t b[STEP][COLUMNS]; /* k by column */
    float c[ROWS][COLUMNS];
};

/* c += a * b of a block's product: a by ldmatrix, b by the transposed one. */
static KERNEL void tiles_kernel(struct tile_product *products, bool bf16)
{
    SHARED(uint16_t, held);
    struct tile_product *product = &products[PRIM_BLOCK_X];
    const uint32_t lane = PRIM_THREAD, g = lane / 4, t = lane % 4;
    uint32_t a[4], b[4];

    prim_depend_wait();
    prim_copy16(held + 8 * lane, &product->a[0][0] + 8 * lane, true);
    prim_copy16(held + 256 + 8 * lane, &product->b[0][0] + 8 * (lane % 16), lane < 16);
    prim_copy_commit();
    prim_copy_wait<0>();
    prim_sync_warp();
    prim_ldmatrix_x4(a, held + (lane % 16) * STEP + lane / 16 * 8);
    prim_ldmatrix_x4_trans(b, held + 256 + lane * COLUMNS);
    float c[4] = {product->c[g][2 * t], product->c[g][2 * t + 1], product->c[g + 8][2 * t],
                  product->c[g + 8][2 * t + 1]};
    bf16 ? prim_mma_bf16(c, a, b) : prim_mma_f16(c, a, b);
    product->c[g][2 * t] = c[0];
    product->c[g][2 * t + 1] = c[1];
    product->c[g + 8][2 * t] = c[2];
    product->c[g + 8][2 * t + 1] = c[3];
}

static uint16_t number_bits(float value, bool bf16)
{
    return bf16 ? steps_bf16_from_float(value) : steps_half_from_float(value);
}

/* Exponents far apart and close, so that each way of cutting shows. */
static void product_fill(struct tile_product *product, bool bf16, uint32_t i)
{
    const int spread = (int)(i % 4) * 3;

    for (uint32_t k = 0; k < STEP * ROWS; k++) {
        const int shift = spread == 0 ? 0 : (int)(random_bits() % (uint32_t)spread) - spread / 2;
        (&product->a[0][0])[k] = number_bits(ldexpf(random_value(), shift), bf16);
    }
    for (uint32_t k = 0; k < STEP * COLUMNS; k++) {
        const bool is_small = i % 5 == 0; /* halves that are denormal */
        (&product->b[0][0])[k] = number_bits(ldexpf(random_value(), is_small ? -16 : 0), bf16);
        (&product->c[0][0])[k] = random_value() * (is_small ? 0x1p-14f : 1.0f);
    }
}

static void product_by_model(const struct tile_product *product, bool bf16, uint32_t architecture,
                             float out[ROWS][COLUMNS])
{
    for (uint32_t row = 0; row < ROWS; row++) {
        for (uint32_t column = 0; column < COLUMNS; column++) {
            uint16_t b[STEP];

            for (uint32_t k = 0; k < STEP; k++) {
                b[k] = product->b[k][column];
            }
            out[row][column] =
                emulator_tensor_sum(product->c[row][column], product->a[row], b,
                                    bf16 ? EMULATOR_BF16 : EMULATOR_F16, architecture);
        }
    }
}

static void tensor_cores_sum_as_the_model_of_their_kind(void **state)
{
    static struct tile_product products[PRODUCT_COUNT], got[PRODUCT_COUNT];
    float wanted[ROWS][COLUMNS], other[ROWS][COLUMNS];
    struct card card;

    (void)state;
    for (uint32_t i = 0; i < 2 * CONFIG_COUNT; i++) {
        const bool bf16 = i / CONFIG_COUNT != 0;
        bool differs = false;

        configure(i % CONFIG_COUNT);
        card_open(&card);
        const bool is_new = device_read_facts(card.device)->architecture >= 90;
        for (uint32_t j = 0; j < PRODUCT_COUNT; j++) {
            product_fill(&products[j], bf16, j);
        }
        memcpy(got, products, sizeof got);
        assert_int_equal(device_launch<tiles_kernel>(card.device, PRODUCT_COUNT, 1, WARP, 1024,
                                                     card_give(&card, got, PRODUCT_COUNT), bf16),
                         STATUS_OK);
        card_take(&card);
        card_finish(&card);
        for (uint32_t j = 0; j < PRODUCT_COUNT; j++) {
            product_by_model(&products[j], bf16, is_new ? 90 : 80, wanted);
            product_by_model(&products[j], bf16, is_new ? 80 : 90, other);
            assert_memory_equal(got[j].c, wanted, sizeof wanted);
            differs = differs || memcmp(wanted, other, sizeof other) != 0;
        }
        assert_true(differs); /* the other kind's sums would have been seen */
    }
}

/* ---- products of warpgroups ---- */

enum {
    GROUP_ROWS = 64,
    GROUP_THREADS = 128,
    GROUP_STEPS = 2,
    K = 16 * GROUP_STEPS,
    WIDTH_MAX = 256,
    MATRIX_BYTES = 128,
    TILE_BYTES = K / 8 * MATRIX_BYTES, /* of 8 columns */
    BARRIER_AT = WIDTH_MAX / 8 * TILE_BYTES,
};

struct group_product {
    uint16_t a[GROUP_ROWS][K];
    alignas(16) uint16_t b[WIDTH_MAX / 8][K / 8][8][8]; /* [columns / 8][k / 8][column][k] */
    float out[CLUSTER][GROUP_ROWS][WIDTH_MAX];
    uint32_t f16;
};

/* Two blocks, each of which brings half of B to both. */
template <int WIDTH, bool F16> static KERNEL void group_kernel(struct group_product *product)
{
#if PRIM_HAS_WGMMA
    SHARED(uint8_t, shared);
    struct prim_barrier *barrier = (struct prim_barrier *)(shared + BARRIER_AT);
    const uint32_t rank = prim_cluster_rank(), lane = PRIM_THREAD % WARP;
    const uint32_t row = PRIM_THREAD / WARP * 16 + lane / 4;
    float d[WIDTH / 2];
    uint32_t a[4];

    prim_depend_wait();
    if (PRIM_THREAD == 0) {
        prim_barrier_init(barrier, 1);
        prim_barrier_begun();
    }
    prim_cluster_sync();
    if (PRIM_THREAD == 0) {
        prim_barrier_expect(barrier, WIDTH / 8 * TILE_BYTES);
        prim_barrier_arrive(barrier, rank);
        for (uint32_t i = rank; i < WIDTH / 8; i += CLUSTER) {
            prim_copy_bulk_ranks(shared + i * TILE_BYTES, product->b[i], TILE_BYTES, barrier, 3);
        }
    }
    PRIM_UNROLL
    for (int i = 0; i < WIDTH / 2; i++) {
        d[i] = 0.25f;
    }
    prim_barrier_wait(barrier, 0);
    for (uint32_t step = 0; step < GROUP_STEPS; step++) {
        const uint64_t matrix =
            prim_wgmma_matrix(shared + step * 2 * MATRIX_BYTES, MATRIX_BYTES, TILE_BYTES);

        PRIM_UNROLL
        for (uint32_t i = 0; i < 4; i++) {
            const uint16_t *at = &product->a[row + i % 2 * 8][step * 16 + lane % 4 * 2 + i / 2 * 8];
            a[i] = at[0] | (uint32_t)at[1] << 16;
        }
        prim_wgmma_pin(d);
        prim_wgmma_fence();
        if constexpr (F16) {
            prim_wgmma_f16<WIDTH>(d, a, matrix);
        } else {
            prim_wgmma_bf16<WIDTH>(d, a, matrix);
        }
        prim_wgmma_commit();
        prim_wgmma_wait();
        prim_wgmma_pin(d);
    }
    PRIM_UNROLL
    for (uint32_t i = 0; i < WIDTH / 2; i++) {
        product->out[rank][row + i % 4 / 2 * 8][i / 4 * 8 + lane % 4 * 2 + i % 2] = d[i];
    }
    prim_cluster_sync();
#else
    (void)product;
#endif
}

static void group_fill(struct group_product *product, bool f16)
{
    memset((void *)product, 0xff, sizeof *product);
    product->f16 = f16;
    for (uint32_t i = 0; i < GROUP_ROWS * K; i++) {
        (&product->a[0][0])[i] = number_bits(random_value(), !f16);
    }
    for (uint32_t i = 0; i < WIDTH_MAX * K; i++) {
        (&product->b[0][0][0][0])[i] = number_bits(random_value(), !f16);
    }
}

static float group_wanted(const struct group_product *product, uint32_t row, uint32_t column,
                          uint32_t architecture)
{
    float sum = 0.25f;
    uint16_t b[K];

    for (uint32_t k = 0; k < K; k++) {
        b[k] = product->b[column / 8][k / 8][column % 8][k % 8];
    }
    for (uint32_t k = 0; k < K; k += 16) {
        sum = emulator_tensor_sum(sum, product->a[row] + k, b + k,
                                  product->f16 != 0 ? EMULATOR_F16 : EMULATOR_BF16, architecture);
    }
    return sum;
}

/* How many of both blocks' sums are not those of a model. */
static uint32_t group_wrong(const struct group_product *product, uint32_t width,
                            uint32_t architecture)
{
    uint32_t wrong = 0;

    for (uint32_t i = 0; i < CLUSTER * GROUP_ROWS * width; i++) {
        const uint32_t rank = i / (GROUP_ROWS * width), row = i / width % GROUP_ROWS;
        const float wanted = group_wanted(product, row, i % width, architecture);

        wrong += memcmp(&wanted, &product->out[rank][row][i % width], sizeof wanted) != 0;
    }
    return wrong;
}

template <int WIDTH> static void group_run(struct card *card, struct group_product *product)
{
    struct group_product *there = card_give(card, product, 1);
    const uint32_t bytes = BARRIER_AT + 16;

    const enum status status =
        product->f16 != 0
            ? device_launch_cluster<group_kernel<WIDTH, true>>(card->device, CLUSTER, CLUSTER, 1,
                                                               GROUP_THREADS, bytes, there)
            : device_launch_cluster<group_kernel<WIDTH, false>>(card->device, CLUSTER, CLUSTER, 1,
                                                                GROUP_THREADS, bytes, there);

    assert_int_equal(status, STATUS_OK);
    card_take(card);
    assert_int_equal(group_wrong(product, WIDTH, WGMMA_ARCHITECTURE), 0);
}

static void warpgroups_multiply_what_two_blocks_bring_each_other(void **state)
{
    static struct group_product product;
    struct card card;

    (void)state;
    for (uint32_t i = 0; i < CONFIG_COUNT; i++) {
        static void (*const runs[])(struct card *, struct group_product *) = {
            group_run<8>,  group_run<16>,  group_run<32>,
            group_run<64>, group_run<128>, group_run<256>};

        configure(i);
        card_open(&card);
        if (device_read_facts(card.device)->architecture != WGMMA_ARCHITECTURE) {
            card_finish(&card);
            continue;
        }
        for (uint32_t w = 0; w < sizeof runs / sizeof runs[0]; w++) {
            group_fill(&product, (i + w) % 2 != 0);
            runs[w](&card, &product);
        }
        card_finish(&card);
        assert_true(group_wrong(&product, WIDTH_MAX, 80) > 0); /* another order would be seen */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lanes_blocks_and_clusters_share_what_the_words_say),
        cmocka_unit_test(copies_land_by_groups_and_bring_zeros),
        cmocka_unit_test(numbers_have_the_hosts_bits),
        cmocka_unit_test(tensor_cores_sum_as_the_model_of_their_kind),
        cmocka_unit_test(warpgroups_multiply_what_two_blocks_bring_each_other),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
