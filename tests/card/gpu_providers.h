/* gpu_check providers: which provider may multiply by which matrices, and which is the fastest.
 *
 * Thread: one.
 */
#ifndef PERSONAD_TESTS_CARD_GPU_PROVIDERS_H
#define PERSONAD_TESTS_CARD_GPU_PROVIDERS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "kernels/product_trial.h"
#include "model/model.h"

struct gpu_providers {
    const struct product_trial_ops *ops;
    uint32_t row_count_max; /* 2048 */
    uint32_t stride;        /* between numbers of rows that are compared */
    double faster_percent;  /* than mma, that a provider must be */
    bool weights_fp8;
    uint32_t launch_count; /* of what is timed; 0: as a card needs */
    uint32_t architecture; /* of the card; 0 until a shape was tried */
    uint32_t rule_count;
    struct provider_rule rules[PROVIDER_RULE_COUNT_MAX];
};

/* Tries every shape of the model, prints a Markdown line a way, and adds the rules that it finds.
 * False: mma gave a row other bits among others, or the card failed; a line says so. */
bool gpu_providers_try(struct gpu_providers *providers, const struct model *model);

/* The table as a file, rules or none. */
void gpu_providers_write(const struct gpu_providers *providers, FILE *out);

void gpu_providers_head(void); /* of the lines */

#endif
