/* How a plan comes to the card: packed into a slot's pinned memory, uploaded in one copy, and its
 * beginning applied there (histories, the rows' tokens).
 *
 * Thread: the engine thread. What is packed lives as long as the step in the slot.
 */
#ifndef PERSONAD_KERNELS_CUDA_PLAN_CUH
#define PERSONAD_KERNELS_CUDA_PLAN_CUH

#include "kernels/cuda/cuda.cuh"

enum {
    /* Room that the settings do not tell of. */
    CUDA_PLAN_WORDS_SAMPLE = 4096,     /* a sample item's lists: ids, biases */
    CUDA_PLAN_WORDS_HISTORY = 1 << 16, /* ids of histories, beside those of one whole history */
};

/* Bytes that the largest plan takes under these settings. */
uint64_t cuda_plan_bytes(const struct backend_settings *settings);

/* Into the slot's pinned memory, its view first; out_bytes is what is to be uploaded. The first
 * chain_count items are chains. LIMIT: a list is longer than the room above. */
MUST_USE enum status cuda_plan_pack(const struct backend *backend, const struct cuda_slot *slot,
                                    const struct plan *plan, uint32_t chain_count,
                                    uint64_t *out_bytes);

/* Launches what comes before the operations. */
MUST_USE enum status cuda_plan_begin(const struct cuda_step *step);

#endif
