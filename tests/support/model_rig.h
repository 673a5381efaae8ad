/* A model on the CPU backend with a plan maker: what tests of whole models drive.
 *
 * Thread: one at a time. Everything fails a CHECK that should not fail: tests need no better.
 */
#ifndef PERSONAD_TESTS_SUPPORT_MODEL_RIG_H
#define PERSONAD_TESTS_SUPPORT_MODEL_RIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "kernels/backend.h"
#include "model/forward.h"
#include "model/model.h"
#include "support/simple_plan.h"

struct rig_settings {
    uint32_t thread_count;
    uint32_t row_count_max;
    uint32_t sample_count_max;
    uint32_t position_max; /* of a sequence */
    uint32_t page_count;
    const char *isa;
    const struct backend_ops *ops;          /* NULL: the CPU's */
    bool precise;                           /* as the backend's setting */
    enum kv_type kv_type;                   /* as the backend's setting */
    const struct provider_table *providers; /* as the backend's setting; borrowed by rig_open */
    bool weights_fp8;                       /* as the backend's setting */
};

struct rig {
    const struct backend_ops *ops;
    struct model *model;
    struct backend *backend;
    struct forward *forward;
    struct simple_plan *plan;
    struct rig_settings settings;
};

/* The model stays open as long as the rig and is closed with it. */
void rig_open(struct rig *rig, struct model *model, const struct rig_settings *settings);
void rig_close(struct rig *rig);

/* A model of these bytes, which must outlive it. */
struct model *rig_model_of(struct bytes file);

/* Runs what simple_plan_add and simple_plan_sample have put into rig->plan since its begin. */
struct step_result rig_run(struct rig *rig);

/* Feeds ids[0..count) from `position` on in chunks of `chunk`, and copies the logits of the last
 * row, vocabulary_count floats. */
void rig_feed(struct rig *rig, const uint32_t *pages, uint32_t position, const uint32_t *ids,
              uint32_t count, uint32_t chunk, float *logits);

/* A sample of temperature 0. */
struct plan_sample rig_greedy(void);

#endif
