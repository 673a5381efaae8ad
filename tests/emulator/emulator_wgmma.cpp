/* Products of warpgroups: begun by a warp, done when it waits for them.
 *
 * Between the two, what the registers of a sum hold is NaN here, and operands are read late (or
 * early, as copies are): so a wait or a fence too few gives other numbers, or a fault. Each warp
 * has 16 of the 64 rows, and its part of the product depends on no other warp's registers.
 */
#include <string.h>

#include "kernels/steps/math.h"
#include "tests/emulator/emulator_state.h"

enum {
    STEP = 16,       /* columns of A and rows of B in one product */
    CORE_COLUMNS = 8 /* of B, in eight rows of 16 bytes one after the other */
};

/* What a lane brings to prim_wgmma. */
struct operands {
    float *d;
    const uint32_t *a;
    uint64_t descriptor;
    uint32_t columns;
};

void emulator_flight_init(struct emulator_flight *flight)
{
    flight->count = 0;
    flight->pending = false;
    flight->fenced = false;
    flight->group = 0;
    flight->history = 0;
    memset(flight->fenced_a, 0, sizeof flight->fenced_a);
}

static struct emulator_flight *flight_here(void)
{
    return &emulator.block->warps[emulator_here.thread / EMULATOR_WARP_THREADS].flight;
}

/* Element k of column j of B by the descriptor's rules: bits 0..13 where it begins, 16..29 how far
 * the next 8 of k are, 32..45 the next 8 columns, all in 16 bytes; the rest is for layouts that
 * kernels here do not use. */
static uint16_t element_of(uint64_t descriptor, uint32_t k, uint32_t j)
{
    const uint32_t begin = (uint32_t)(descriptor & 0x3fff) * 16;
    const uint32_t next_k = (uint32_t)(descriptor >> 16 & 0x3fff) * 16;
    const uint32_t next_columns = (uint32_t)(descriptor >> 32 & 0x3fff) * 16;
    const uint32_t at = begin + k / 8 * next_k + j / CORE_COLUMNS * next_columns +
                        j % CORE_COLUMNS * 16 + k % 8 * 2;
    uint16_t number;

    if (at + 2 > emulator_shared_bytes()) {
        emulator_fault_here("a descriptor reaches past shared memory");
    }
    memcpy(&number, emulator.block->shared + at, 2);
    return number;
}

static void multiply(struct emulator_flight *flight, const struct emulator_product *product)
{
    const uint32_t planted = emulator.settings.wgmma_sums_as;
    const uint32_t architecture = planted != 0 ? planted : emulator_architecture();
    uint16_t rows[STEP][STEP];
    uint16_t column[STEP];

    emulator.wgmma_count++;
    for (uint32_t lane = 0; lane < EMULATOR_WARP_THREADS; lane++) {
        for (uint32_t i = 0; i < 4; i++) {
            const uint32_t k = lane % 4 * 2 + i / 2 * 8;

            rows[lane / 4 + i % 2 * 8][k] = (uint16_t)product->a[lane][i];
            rows[lane / 4 + i % 2 * 8][k + 1] = (uint16_t)(product->a[lane][i] >> 16);
        }
    }
    for (uint32_t j = 0; j < product->columns; j++) {
        for (uint32_t k = 0; k < STEP; k++) {
            column[k] = element_of(product->descriptor, k, j);
        }
        for (uint32_t row = 0; row < STEP; row++) {
            const uint32_t lane = row % 8 * 4 + j % 8 / 2;
            float *sum = &flight->sums[lane][j / 8 * 4 + row / 8 * 2 + j % 2];

            *sum = emulator_tensor_sum(*sum, rows[row], column, product->number, architecture);
        }
    }
}

/* The groups before this one are done. */
static void finish(struct emulator_flight *flight, uint64_t group_end)
{
    uint32_t done = 0;

    while (done < flight->count && flight->products[done].group < group_end) {
        multiply(flight, &flight->products[done++]);
    }
    flight->count -= done;
    memmove(flight->products, flight->products + done, flight->count * sizeof flight->products[0]);
}

static void check_operands(const struct operands *operands, const struct emulator_flight *flight)
{
    const struct operands *first =
        static_cast<const struct operands *>(emulator_lane_offer(0)->operands[0]);

    if (emulator_architecture() != 90) {
        emulator_fault_here("multiplies by warpgroups, and its card has none");
    }
    if (operands->descriptor != first->descriptor || operands->columns != first->columns) {
        emulator_fault_here("lanes multiply with different operands");
    }
    if ((operands->descriptor & ~UINT64_C(0x3fff3fff3fff)) != 0) {
        emulator_fault_here("a descriptor asks for a layout that the emulator does not know");
    }
    if (!flight->fenced) {
        emulator_fault_here("multiplies without a fence since it last waited");
    }
    if (flight->count == EMULATOR_FLIGHT_MAX) {
        emulator_fault_here("more products on their way than the emulator holds");
    }
}

/* Registers that were written since the fence are not what the tensor core may read. */
static void check_registers(struct emulator_flight *flight, uint32_t lane,
                            const struct operands *operands)
{
    if (flight->fenced_a[lane] == operands->a &&
        memcmp(flight->fenced_words[lane], operands->a, sizeof flight->fenced_words[lane]) != 0) {
        emulator_fault_here("multiplies registers that were written after the fence");
    }
    if (flight->pending && flight->d[lane] != operands->d) {
        emulator_fault_here("two sums at once, which the emulator does not hold");
    }
    flight->fenced_a[lane] = operands->a;
    memcpy(flight->fenced_words[lane], operands->a, sizeof flight->fenced_words[lane]);
}

void emulator_wgmma(float *d, const uint32_t *a, uint64_t descriptor, uint32_t columns,
                    enum emulator_number number)
{
    const struct operands operands = {d, a, descriptor, columns};
    struct emulator_flight *flight = flight_here();

    if (!emulator_lane_arrive(EMULATOR_WAIT_WGMMA, {NULL, {&operands, NULL}, 0, 0})) {
        return;
    }
    struct emulator_product *product = &flight->products[flight->count];
    for (uint32_t lane = 0; lane < EMULATOR_WARP_THREADS; lane++) {
        const struct operands *of =
            static_cast<const struct operands *>(emulator_lane_offer(lane)->operands[0]);

        check_operands(of, flight);
        check_registers(flight, lane, of);
        product->a[lane] = of->a;
        if (!flight->pending) {
            flight->d[lane] = of->d;
            memcpy(flight->sums[lane], of->d, columns / 2 * sizeof(float));
            memset(of->d, 0xff, columns / 2 * sizeof(float));
        }
    }
    product->descriptor = descriptor;
    product->columns = columns;
    product->number = number;
    product->group = flight->group;
    flight->pending = true;
    flight->count++;
    flight->history = (flight->history ^ descriptor) * 0x100000001b3u + columns;
    if (emulator.settings.copies_land_early) {
        finish(flight, UINT64_MAX);
    }
    emulator_lanes_release();
}

void emulator_wgmma_fence(void)
{
    struct emulator_flight *flight = flight_here();

    if (emulator_lane_arrive(EMULATOR_WAIT_WGMMA_FENCE, {})) {
        flight->fenced = true;
        memset(flight->fenced_a, 0, sizeof flight->fenced_a);
        emulator_lanes_release();
    }
}

void emulator_wgmma_commit(void)
{
    if (emulator_lane_arrive(EMULATOR_WAIT_WGMMA_COMMIT, {})) {
        flight_here()->group++;
        emulator_lanes_release();
    }
}

void emulator_wgmma_wait(void)
{
    struct emulator_flight *flight = flight_here();

    if (!emulator_lane_arrive(EMULATOR_WAIT_WGMMA_WAIT, {})) {
        return;
    }
    finish(flight, flight->group);
    /* With none that was not committed, the registers have their sums. */
    if (flight->pending && flight->count == 0) {
        for (uint32_t lane = 0; lane < EMULATOR_WARP_THREADS; lane++) {
            memcpy(flight->d[lane], flight->sums[lane], flight->products[0].columns / 2 * 4);
        }
        flight->pending = false;
    }
    flight->fenced = false;
    emulator_lanes_release();
}

void emulator_flights_check(const struct emulator_block *block)
{
    const uint32_t warp_count = block->place.threads / EMULATOR_WARP_THREADS;

    emulator_here = block->place;
    for (uint32_t i = 0; i < warp_count; i++) {
        const struct emulator_flight *flight = &block->warps[i].flight;

        if (flight->pending) {
            emulator_fault_set("warp %u ends without waiting for its products", (unsigned)i);
        }
        if (flight->history != 0 && (i / 4 * 4 + 4 > warp_count ||
                                     flight->history != block->warps[i / 4 * 4].flight.history)) {
            emulator_fault_set("the four warps of a group, among them %u, do not all multiply the "
                               "same",
                               (unsigned)i);
        }
    }
}
