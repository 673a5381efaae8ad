/* Reads the golden files that scripts/fixtures/golden.py makes (it states the format).
 *
 * Thread: any, constant once open. The file owns its arrays.
 */
#ifndef PERSONAD_TESTS_SUPPORT_GOLDEN_FILE_H
#define PERSONAD_TESTS_SUPPORT_GOLDEN_FILE_H

#include <stdbool.h>
#include <stdint.h>

/* What rounding does to a log probability by an independent simulation, in nats. */
struct golden_noise {
    double mean, rms, largest;
};

/* Entry i of the scored arrays belongs to ids[first + i]. */
struct golden_sequence {
    uint32_t count;
    uint32_t first;
    uint32_t greedy; /* ids from here on are the likeliest; count: none */
    const uint32_t *ids;
    const float *logprobs;
    const float *logprobs_half; /* of the model with weights rounded to half */
    const uint32_t *best;
    const float *best_logprobs;
    const float *second_logprobs;
};

struct golden_file {
    void *bytes; /* owned */
    uint8_t model_hash[32];
    struct golden_noise int8, kv;
    uint32_t sequence_count;
    struct golden_sequence *sequences; /* owned */
};

/* False when the file is not there or malformed. */
bool golden_file_open(const char *path, struct golden_file *out);
void golden_file_close(struct golden_file *file);

#endif
