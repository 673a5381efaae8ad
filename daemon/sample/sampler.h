/* Sampler settings as they are stored and as the backend runs them.
 *
 * Thread: a sampler is immutable after create and shared by branches through a count that only the
 * loop thread touches. The arithmetic of each step is in kernels/steps/; here they are parsed,
 * validated, put in order and stored.
 *
 * Stored form: version 1 or 2, the settings, and the list of (type, values) that was made from
 * them. The list is what runs, so that a node is replayed as it was made even if the order below
 * changes. Order (that of the ecosystem): mask, min_tokens, bias, penalties, top_k, top_p, min_p,
 * temperature, distinct. A step that would change nothing is left out; at temperature 0 so are
 * top_k, top_p and min_p, which always keep the largest value.
 */
#ifndef PERSONAD_SAMPLE_SAMPLER_H
#define PERSONAD_SAMPLE_SAMPLER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/byte_rule.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/status.h"
#include "kernels/steps/steps.h"

enum { SAMPLER_VERSION_PLAIN = 1, SAMPLER_VERSION = 2 /* with a rule, or distinct */ };

/* What people set. A has_ flag that is false means: as the layer below (persona, daemon default)
 * says. */
struct sampler_settings {
    bool has_temperature, has_top_k, has_top_p, has_min_p;
    bool has_repetition_penalty, has_presence_penalty, has_frequency_penalty, has_penalty_range;
    bool has_penalize_prompt, has_max_tokens, has_min_tokens, has_top_count, has_ignore_end;
    float temperature;        /* 0 = greedy, else [0.0001, 100] */
    uint32_t top_k;           /* 0 = off */
    float top_p;              /* (0, 1]; 1 = off */
    float min_p;              /* [0, 1); 0 = off */
    float repetition_penalty; /* [0.01, 100]; 1 = off. Divides positive logits, multiplies others */
    float presence_penalty;   /* [-10, 10], subtracted once */
    float frequency_penalty;  /* [-10, 10], subtracted once an occurrence */
    uint32_t penalty_range;   /* tokens of history; 0 = all of it */
    bool penalize_prompt;     /* whether the persona prompt is history */
    uint32_t max_tokens;      /* sampled tokens, 1 to REPLY_TOKEN_COUNT_MAX */
    uint32_t min_tokens; /* at most max_tokens; end ids are masked until so many were sampled */
    uint32_t top_count;  /* alternatives stored with each token, at most TOP_COUNT_MAX */
    bool ignore_end;     /* end ids are masked throughout: benchmarks and plain continuation */
    uint32_t bias_count; /* replaces the layer below's when > 0 */
    const struct step_bias *biases; /* borrowed until create returns; [-100, 100] or -infinity */
    uint32_t stop_count;            /* stop strings, added to the persona's cues */
    const struct bytes *stops;      /* borrowed until create returns */
    struct byte_rule rule;          /* prescribed bytes; borrowed until create returns */
    bool has_distinct; /* the first token is drawn without replacement (STEP_DISTINCT) */
    uint32_t distinct_index;
    uint64_t distinct_seed;
};

struct sampler {
    uint32_t version;
    struct sampler_settings
        settings;             /* complete: every has_ true; biases and stops owned by the sampler */
    struct step_list steps;   /* what the backend runs; lists owned by the sampler */
    uint32_t reference_count; /* loop thread */
    void *lists;              /* owned: the one block where all lists lie */
};

/* The documented defaults: temperature 0.8, top_k 40, top_p 0.95, min_p 0.05, no penalties, range
 * 64, 256 tokens. */
struct sampler_settings sampler_settings_default(void);

/* over: fields set there win; biases and stops there replace all of base's. */
void sampler_settings_merge(struct sampler_settings *base, const struct sampler_settings *over);

/* Validates and builds; what is not set is as sampler_settings_default() says. BAD_INPUT or LIMIT
 * names the field and its range. end_ids are copied. The caller owns one reference. */
MUST_USE enum status sampler_create(const struct sampler_settings *settings,
                                    const uint32_t *end_ids, uint32_t end_count,
                                    uint32_t vocabulary_count, struct error *error,
                                    struct sampler **out);

/* The same sampler for sibling `index` of a group whose first tokens are drawn without replacement.
 */
MUST_USE enum status sampler_create_distinct(const struct sampler *from, uint64_t seed,
                                             uint32_t index, const uint32_t *end_ids,
                                             uint32_t end_count, uint32_t vocabulary_count,
                                             struct sampler **out);

/* One more reference; release takes one back and frees the sampler with the last. NULL is fine for
 * release. */
struct sampler *sampler_acquire(struct sampler *sampler);
void sampler_release(struct sampler *sampler);

/* The stored form: byte-exact for equal settings (little endian, documented in sampler_stored.c).
 * Appends. MEMORY or LIMIT of the buffer. */
MUST_USE enum status sampler_format(const struct sampler *sampler, struct buffer *out);

/* The reverse. BAD_INPUT for what sampler_format() cannot have written for this vocabulary,
 * UNSUPPORTED for another version. */
MUST_USE enum status sampler_parse(struct bytes stored, uint32_t vocabulary_count,
                                   struct error *error, struct sampler **out);

#endif
