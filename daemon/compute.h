/* What computes: a backend, on the CPU or on a card, with the model loaded into it.
 *
 * A card's backend lives in a library of its own that is opened here, so that one daemon serves
 * machines with and without one. With --backend auto whatever is wrong with the card ends in a
 * sentence and the CPU; later, while the daemon runs, nothing ever changes to another backend, for
 * numerics ids differ and with them every bit.
 *
 * Thread: compute_open and compute_close before and after the engine thread lives, compute_restart
 * on it. It borrows settings and model.
 */
#ifndef PERSONAD_COMPUTE_H
#define PERSONAD_COMPUTE_H

#include "base/error.h"
#include "base/status.h"
#include "kernels/provider_table.h"
#include "model/forward.h"
#include "model/model.h"
#include "settings.h"

enum { COMPUTE_TEXT_BYTES_MAX = 768 };

struct compute {
    const struct settings *settings;
    const struct model *model;
    uint32_t context_tokens; /* longest context and reply */

    const struct backend_ops *ops;
    struct backend *backend;          /* owned */
    struct forward *forward;          /* owned */
    struct provider_table *providers; /* owned; NULL: no table */
    uint32_t partial_count_max, page_count;
    uint64_t page_bytes;
    char text[COMPUTE_TEXT_BYTES_MAX];     /* for people: the backend, and why it is no card */
    char numerics[COMPUTE_TEXT_BYTES_MAX]; /* id of the arithmetic, kept over restarts */
};

/* UNSUPPORTED, NOT_FOUND, MEMORY, DEVICE: what --backend asks for is not to be had, and why;
 * BAD_INPUT and others: of --gpu-providers. */
MUST_USE enum status compute_open(const struct settings *settings, const struct model *model,
                                  uint32_t context_tokens, struct error *error,
                                  struct compute *out);

/* Makes backend and forward anew after the device failed, with the same pages and the same numerics
 * id. Engine thread. The old forward is gone whatever the answer. */
MUST_USE enum status compute_restart(struct compute *compute, struct error *error);
void compute_close(struct compute *compute); /* one of zeros is fine */

/* Prints the CPU and every card that the backend library sees, or why it sees none; with
 * --gpu-providers what that table says, and for which cards. BAD_INPUT, NOT_FOUND, IO, LIMIT: of
 * the table. */
MUST_USE enum status compute_list(const struct settings *settings, struct error *error);

#endif
