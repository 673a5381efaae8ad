/* Trials of products on a card: which ways to multiply give the same bits, and how fast they are.
 *
 * What `./dev gpu` makes a table of providers from (provider_table.h), and `persona bench --kernel
 * --variants` its figures. A trial holds one matrix, several copies of it where it is small, so
 * that no cache holds what the next launch reads, and rows of noise.
 *
 * Thread: one at a time, on a card that nothing else uses meanwhile. Reads as C11 and as C++17.
 */
#ifndef PERSONAD_KERNELS_PRODUCT_TRIAL_H
#define PERSONAD_KERNELS_PRODUCT_TRIAL_H

#include "base/error.h"
#include "base/status.h"
#include "kernels/backend.h"
#include "kernels/provider_table.h"

#ifdef __cplusplus
extern "C" {
#endif

struct product_trial;

/* A way to multiply. Zeros but for the provider: as a step does it. */
struct product_way {
    enum provider provider;
    uint32_t segment_count; /* mma, wgmma: into so many segments K is cut, 1 to 4; 0: as a step */
    uint32_t tiles_min;     /* mma, wgmma: cut as if there were so many tiles of 8 rows; 0: no */
    uint32_t version;       /* cublaslt: as in a rule */
    struct provider_algorithm algorithm;
};

struct product_trial_settings {
    uint32_t device;
    const struct weight_source *source; /* borrowed by open */
    bool weights_fp8;                   /* as the backend's setting */
    uint32_t row_count_max;
    uint32_t launch_count; /* of what is timed; 0: as many as a card needs */
};

/* DEVICE leaves a sentence in fault_text(). */
struct product_trial_ops {
    /* What the backend's create and weight_load answer; MEMORY names what it is for. */
    enum status (*open)(const struct product_trial_settings *settings, struct error *error,
                        struct product_trial **out);
    void (*close)(struct product_trial *trial); /* NULL is fine */

    /* The card's architecture, and a rule for the matrix without a provider. */
    uint32_t (*describe)(const struct product_trial *trial, struct provider_rule *out);

    /* Ways of a provider that serve row_count rows; 0: every number of rows, without splits of K,
     * as a table wants them. At most `most`, best guess first; none where the card or the machine
     * has not that provider. Each is as a step does it. */
    enum status (*ways)(struct product_trial *trial, enum provider provider, uint32_t row_count,
                        uint32_t most, struct product_way *out, uint32_t *count);

    /* Multiplies each of the first row_count rows alone, and keeps what comes out. */
    enum status (*keep)(struct product_trial *trial, const struct product_way *way,
                        uint32_t row_count);
    /* Multiplies the first row_count rows at once: how many outputs differ from what was kept. */
    enum status (*compare)(struct product_trial *trial, const struct product_way *way,
                           uint32_t row_count, uint64_t *different);

    /* A launch's time, the median of several runs of many in a graph, without the rows' rounding.
     */
    enum status (*time)(struct product_trial *trial, const struct product_way *way,
                        uint32_t row_count, uint64_t *ns);

    const char *(*fault_text)(const struct product_trial *trial); /* borrowed */
};

#ifdef __cplusplus
}
#endif

#endif
