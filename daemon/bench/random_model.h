/* Models of a known shape whose weights are noise: speed and agreement of backends need no file.
 *
 * Thread: any, one at a time. The noise follows from the shape alone, so two backends are given the
 * same weights; its size keeps activations as a trained model's are. The vocabulary has names only.
 */
#ifndef PERSONAD_BENCH_RANDOM_MODEL_H
#define PERSONAD_BENCH_RANDOM_MODEL_H

#include <stdint.h>

#include "base/error.h"
#include "base/status.h"
#include "model/model.h"

struct random_shape {
    const char *name;
    const char *about; /* for people */
    uint32_t layer_count, width, head_count, kv_head_count, head_size, hidden, vocabulary_count;
    double rope_base;
};

/* NULL when there is none of that name; random_shape_list() names them. */
const struct random_shape *random_shape_find(const char *name);
const char *random_shape_list(void);

/* layer_count 0: as many as the shape has. dtype: F32, F16, BF16, Q8_0, Q4_0 or Q4_1, else
 * UNSUPPORTED. Closed by model_close(). */
MUST_USE enum status random_model_open(const struct random_shape *shape, uint32_t dtype,
                                       uint32_t layer_count, struct error *error,
                                       struct model **out);

#endif
