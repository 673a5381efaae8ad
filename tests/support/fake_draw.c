#include "support/fake_draw.h"

#include <string.h>

#include "base/check.h"

enum { VOCABULARY_MAX = 1024 };

uint64_t fake_mix(uint64_t hash, uint64_t value)
{
    hash = (hash ^ value) * 0xff51afd7ed558ccdu;
    hash ^= hash >> 33;
    return hash * 0xc4ceb9fe1a85ec53u + 1;
}

static float lift_of(uint64_t hash)
{
    return (float)(hash & 0xffff) / 65536.0f;
}

/* The model's number of a token there. */
static float logprob_of(uint64_t row_value, uint32_t token)
{
    return -1.0f - lift_of(fake_mix(row_value, token));
}

static bool is_allowed(const struct plan_sample *sample, uint32_t token)
{
    return sample->mask == NULL || (sample->mask[token / 32] >> token % 32 & 1) != 0;
}

/* The likeliest tokens; of equally likely ones the smaller id. */
static void list_tops(uint64_t row_value, uint32_t token_count, uint32_t count,
                      struct sample_result *result)
{
    for (result->top_count = 0; result->top_count < count && result->top_count < token_count;
         result->top_count++) {
        struct sample_top *top = &result->top[result->top_count];

        *top = (struct sample_top){.token = UINT32_MAX};
        for (uint32_t token = 0; token < token_count; token++) {
            const float logprob = logprob_of(row_value, token);
            bool is_listed = false;

            for (uint32_t i = 0; i < result->top_count; i++) {
                is_listed = is_listed || result->top[i].token == token;
            }
            if (!is_listed && (top->token == UINT32_MAX || logprob > top->logprob)) {
                *top = (struct sample_top){token, logprob};
            }
        }
    }
}

/* Ids of the vocabulary below `end` that may be drawn: how many, or which one is the `at`-th. */
static uint32_t count_allowed(const struct plan_sample *sample, uint32_t end)
{
    uint32_t count = 0;

    for (uint32_t token = 0; token < end; token++) {
        count += is_allowed(sample, token);
    }
    return count;
}

static uint32_t find_allowed(const struct plan_sample *sample, const uint8_t *is_taken, uint32_t at)
{
    uint32_t token = 0;

    for (;; token++) {
        if (is_allowed(sample, token) && is_taken[token] == 0 && at-- == 0) {
            return token;
        }
    }
}

/* A mask that none of the usual tokens fits is looked up in the whole vocabulary. Draws number
 * `first` to `last` are made one after another, none of them twice; the last one counts. */
static uint32_t choose(const struct plan_sample *sample, uint32_t token_count,
                       uint32_t vocabulary_count, uint64_t hash, uint32_t draw_index)
{
    const uint32_t usual = count_allowed(sample, token_count);
    const uint32_t count = usual > 0 ? usual : count_allowed(sample, vocabulary_count);
    uint8_t is_taken[VOCABULARY_MAX] = {0};
    uint32_t token = 0;

    CHECK(count > 0 && vocabulary_count <= VOCABULARY_MAX);
    for (uint32_t i = draw_index - draw_index % count; i <= draw_index; i++) {
        const uint32_t left = count - i % count;

        token = find_allowed(sample, is_taken, (uint32_t)((hash >> 24) % left));
        is_taken[token] = 1;
        hash = fake_mix(hash, i);
    }
    return token;
}

/* Of a group's first token: which draw of the group's seed it is. */
static const struct step *distinct_step(const struct plan_sample *sample)
{
    const struct step_list *steps = sample->steps;
    const struct step *last = steps->count > 0 ? &steps->steps[steps->count - 1] : NULL;

    return last != NULL && last->type == STEP_DISTINCT && sample->index == 0 ? last : NULL;
}

/* From everything that may decide a draw. */
static uint64_t hash_draw(const struct fake_place *place, uint32_t history_count,
                          const struct plan_sample *sample, const struct step *distinct)
{
    const uint64_t seed =
        distinct == NULL ? sample->seed : distinct->ids[0] | (uint64_t)distinct->ids[1] << 32;
    uint64_t hash =
        fake_mix(fake_mix(fake_mix(place->value, seed), sample->index), place->prompt_count);

    hash = fake_mix(hash, sample->steps->count);
    for (uint32_t i = 0; i < history_count; i++) {
        hash = fake_mix(hash, place->history[i]);
    }
    return hash;
}

void fake_draw(const struct fake_place *place, uint32_t token_count, uint32_t vocabulary_count,
               const struct plan_sample *sample, struct sample_result *result)
{
    const bool is_given = (sample->flags & PLAN_SAMPLE_GIVEN) != 0;
    const uint32_t history_count = is_given && sample->history_count < place->history_count
                                       ? sample->history_count
                                       : place->history_count;
    uint64_t hash = 0;

    memset(result, 0, sizeof(*result));
    result->flags = place->has_nan ? SAMPLE_FLAG_NAN : 0;
    result->token = sample->given;
    if (sample->steps != NULL) {
        const struct step *distinct = distinct_step(sample);

        hash = hash_draw(place, history_count, sample, distinct);
        result->token = choose(sample, token_count, vocabulary_count, hash,
                               distinct != NULL ? distinct->count : 0);
    }
    const uint32_t measured = is_given ? sample->given : result->token;
    if (measured != PLAN_GIVEN_NONE) {
        result->logprob = logprob_of(place->value, measured);
    }
    if (measured != PLAN_GIVEN_NONE && sample->steps != NULL) {
        result->logprob_sampler = -0.5f - lift_of(fake_mix(hash, measured));
    }
    result->entropy = 1.0f + lift_of(place->value);
    list_tops(place->value, token_count, sample->top_count, result);
}
