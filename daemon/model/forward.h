/* A model on a device: weights loaded, KV pool made, the forward pass recorded once as a program.
 *
 *   forward_kv_page_bytes -> choose page_count -> forward_create -> forward_page_count
 *   -> { forward_submit, forward_wait } ... -> forward_destroy
 *
 * Thread: the engine thread (create and destroy before and after it lives). It borrows model, ops
 * and backend; what it makes in the backend dies with the backend, so destroy the forward first and
 * the backend right after. After create nothing allocates.
 */
#ifndef PERSONAD_MODEL_FORWARD_H
#define PERSONAD_MODEL_FORWARD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/status.h"
#include "kernels/backend.h"
#include "model/model.h"

struct forward;

struct forward_settings {
    uint32_t row_count_max;    /* as in the backend's settings */
    uint32_t sample_count_max; /* as in the backend's settings */
    uint32_t page_count;       /* KV pages of KV_PAGE_TOKEN_COUNT positions, at most */
    uint32_t page_count_min;   /* fewer are MEMORY; read only where a card bounds them */

    /* Called while weights load, done_bytes growing to total_bytes; NULL: nobody watches. */
    void (*on_progress)(void *context, uint64_t done_bytes, uint64_t total_bytes);
    void *context;
};

/* Pages that were made: settings.page_count, or what a card had room for once all else was there.
 */
uint32_t forward_page_count(const struct forward *forward);

/* Bytes that one KV page of this model takes on this device, all layers. */
uint64_t forward_kv_page_bytes(const struct model *model, const struct backend_ops *ops,
                               const struct backend *backend);

/* What keys and values are kept in unless somebody asks: what is fastest on the device where
 * products round what they multiply, else halves, which are closer. */
enum kv_type forward_kv_type(const struct model *model, const struct backend_ops *ops,
                             bool is_precise);

/* UNSUPPORTED names what the device cannot hold, MEMORY that it does not fit, BAD_INPUT or IO a
 * tensor that could not be read. */
MUST_USE enum status forward_create(const struct model *model, const struct backend_ops *ops,
                                    struct backend *backend,
                                    const struct forward_settings *settings, struct error *error,
                                    struct forward **out);
void forward_destroy(struct forward *forward); /* NULL is fine */

/* A forward around a program that is recorded already, with no model (forward_model() is NULL): for
 * tests over a fake backend. The program is borrowed like the rest. MEMORY. */
MUST_USE enum status forward_create_program(const struct backend_ops *ops, struct backend *backend,
                                            struct backend_program *program, struct forward **out);

/* As step_submit and step_wait of kernels/backend.h: the plan and all it borrows stay unchanged
 * until forward_wait returns; AGAIN when forward_step_slot_count steps are in flight. */
MUST_USE enum status forward_submit(struct forward *forward, const struct plan *plan,
                                    uint32_t *ticket);
MUST_USE enum status forward_wait(struct forward *forward, uint32_t ticket,
                                  struct step_result *out);

/* With no step in flight: gives back what only steps use (`rest` of kernels/backend.h). */
void forward_rest(struct forward *forward);

/* Steps that may be in flight. */
uint32_t forward_step_slot_count(const struct forward *forward);

/* Whether plans may hold drafts (PLAN_SAMPLE_DRAFT). */
bool forward_checks_drafts(const struct forward *forward);

/* What the device says of its last failure, "" if there was none. Borrowed. */
const char *forward_fault_text(const struct forward *forward);

/* Borrowed: "cpu/1/kv-bf16". */
const char *forward_numerics_id(const struct forward *forward);

/* The logits of the last step's logits_rows[row], vocabulary_count floats: for tests and tools. */
MUST_USE enum status forward_logits_read(const struct forward *forward, uint32_t row, float *to);

const struct model *forward_model(const struct forward *forward);

#endif
