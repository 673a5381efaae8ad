/* How a plan comes to the card: packed into a slot's pinned memory, uploaded in one copy, and its
 * beginning applied there (histories, the rows' tokens).
 *
 * Thread: the engine thread. The view points into the slot and lives as long as the step in it.
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

/* Packs, uploads and starts what comes before the operations. LIMIT: a list is longer than the room
 * above; nothing was started then. */
MUST_USE enum status cuda_plan_start(struct backend *backend, struct cuda_slot *slot,
                                     const struct plan *plan, struct cuda_plan_view *out);

#endif
