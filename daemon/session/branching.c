#include "session/branching.h"

#include <string.h>

#include "base/check.h"
#include "base/memory.h"
#include "session/seed.h"

/* ---- sampler and cues ---- */

/* Every byte needs a token: a choice that cannot be written would leave nothing to sample. */
static enum status check_choices(struct store *store, const struct byte_rule *rule,
                                 struct error *error)
{
    for (uint32_t i = 0; i < rule->choice_count; i++) {
        struct id_list ids = {0};
        const enum status status = encoder_bytes(&store->encoder, rule->choices[i], &ids);

        id_list_finish(&ids);
        if (status == STATUS_NOT_FOUND) {
            return error_set(error, STATUS_BAD_INPUT,
                             "choice %u has a byte that the model has no token for", i);
        }
        if (status != STATUS_OK) {
            return error_set(error, status, "choice %u cannot be tokenised: %s", i,
                             status_text(status));
        }
    }
    return STATUS_OK;
}

/* Stop strings add up; all else is replaced by the layer above. */
static enum status make_sampler(struct store *store, const struct card *card,
                                const struct sampler_settings *request, struct error *error,
                                struct sampler **out)
{
    const struct vocabulary *vocabulary = tokenizer_vocabulary(store->settings.tokenizer);
    struct sampler_settings settings = sampler_settings_default();
    const uint32_t stop_count = card->sampler.stop_count + request->stop_count;
    struct bytes *stops = memory_alloc(stop_count, sizeof(*stops));
    uint32_t end_count = 0;
    const uint32_t *ends = tokenizer_end_ids(store->settings.tokenizer, &end_count);
    enum status status;

    if (stops == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory for a sampler");
    }
    for (uint32_t i = 0; i < stop_count; i++) {
        const bool is_card = i < card->sampler.stop_count;

        stops[i] = is_card ? card->sampler.stops[i] : request->stops[i - card->sampler.stop_count];
    }
    sampler_settings_merge(&settings, &card->sampler);
    sampler_settings_merge(&settings, request);
    settings.stop_count = stop_count;
    settings.stops = stops;
    status = sampler_create(&settings, ends, end_count, vocabulary->token_count, error, out);
    memory_free(stops);
    return status == STATUS_MEMORY ? error_set(error, status, "out of memory for a sampler")
                                   : status;
}

/* Versions of a persona have one name. */
static void list_names(const struct cast *cast, struct cue_pattern *patterns, uint32_t *count)
{
    for (uint32_t i = 0; i < cast->count; i++) {
        uint32_t k = 0;

        while (k < *count && !bytes_equal(patterns[k].text, cast->members[i].name)) {
            k++;
        }
        if (k == *count) {
            patterns[(*count)++] = (struct cue_pattern){CUE_SPEAKER, cast->members[i].name};
        }
    }
}

/* Names end a reply wherever a line begins with one; a persona that plays plainly has none. */
static enum status list_cues(const struct session *session, const struct prompt *prompt,
                             const struct sampler *sampler, struct error *error,
                             struct cue_list **out)
{
    const struct card *card = prompt->persona->card;
    const struct sampler_settings *settings = &sampler->settings;
    const bool has_names = prompt->template.format != TEMPLATE_PLAIN;
    const uint32_t most = session->cast.count + card->cue_count + settings->stop_count;
    struct cue_pattern *patterns = memory_alloc(most, sizeof(*patterns));
    uint32_t count = 0;
    enum status status;

    if (patterns == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory for cues");
    }
    if (has_names) {
        list_names(&session->cast, patterns, &count);
    }
    for (uint32_t i = 0; i < card->cue_count; i++) {
        patterns[count++] = (struct cue_pattern){CUE_TEXT, card->cues[i]};
    }
    for (uint32_t i = 0; i < settings->stop_count; i++) {
        patterns[count++] = (struct cue_pattern){CUE_TEXT, settings->stops[i]};
    }
    status = cue_list_create(patterns, count, out);
    memory_free(patterns);
    return status == STATUS_MEMORY ? error_set(error, status, "out of memory for cues") : status;
}

/* ---- runs ---- */

static bool may_move(const struct segment *segment)
{
    const struct node_sampled *sampled =
        segment->kind == SEGMENT_NODE ? segment->node->sampled : NULL;

    return sampled != NULL && !sampled->is_settled;
}

static uint32_t flags_of(const struct segment *segment)
{
    switch (segment->kind) {
    case SEGMENT_PROMPT:
        return BRANCH_RUN_PROMPT;
    case SEGMENT_FRAME:
    case SEGMENT_START:
    case SEGMENT_INSERT:
        return BRANCH_RUN_FRAME;
    default:
        return 0;
    }
}

/* Copies first, since the list of copies moves while it grows. */
static enum status fill_runs(struct generation *generation, const struct segment *segments)
{
    uint32_t copied = 0;

    for (uint32_t i = 0; i < generation->run_count; i++) {
        if (may_move(&segments[i])) {
            TRY(id_list_append(&generation->copies, context_segment_ids(&segments[i]),
                               segments[i].count));
        }
    }
    for (uint32_t i = 0; i < generation->run_count; i++) {
        struct branch_run *run = &generation->runs[i];

        *run = (struct branch_run){
            .count = segments[i].count,
            .flags = flags_of(&segments[i]),
        };
        if (may_move(&segments[i])) {
            run->ids = generation->copies.ids + copied;
            copied += run->count;
        } else {
            run->ids = context_segment_ids(&segments[i]);
        }
    }
    return STATUS_OK;
}

static enum status make_runs(struct generation *generation)
{
    const uint32_t count = context_segment_count(generation->context);
    struct segment *segments = memory_alloc(count, sizeof(*segments));
    struct seed_context digest;
    enum status status = STATUS_MEMORY;

    generation->runs = memory_alloc(count, sizeof(*generation->runs));
    generation->run_count = count;
    if (segments != NULL && generation->runs != NULL) {
        context_segments(generation->context, segments);
        status = fill_runs(generation, segments);
    }
    memory_free(segments);
    if (status != STATUS_OK) {
        return status;
    }
    seed_context_init(&digest);
    for (uint32_t i = 0; i < count; i++) {
        seed_context_add(&digest, generation->runs[i].ids, generation->runs[i].count);
    }
    seed_context_finish(&digest, generation->context_digest);
    return STATUS_OK;
}

/* ---- what it may resemble ---- */

static void text_of(const struct node *node, const uint32_t **ids, uint32_t *count)
{
    const struct node_sampled *sampled = node->sampled;

    *ids = sampled != NULL ? sampled->output.tokens : node->ids;
    *count = sampled != NULL ? sampled->event.sampled_count : node->id_count;
    *count = *count < DRAFT_TEXT_TOKENS ? *count : DRAFT_TEXT_TOKENS;
}

/* The beginnings of what the same speaker said at the same place, the latest first. */
static enum status copy_siblings(const struct generate_query *query, struct generation *generation)
{
    const struct node_children *children = &query->place.node->children;
    const uint32_t *ids;
    uint32_t count;
    uint32_t at = 0;

    for (uint32_t i = children->count; i > 0 && generation->text_count < DRAFT_TEXT_COUNT_MAX;
         i--) {
        const struct node *node = children->items[i - 1];

        if (node->parent_offset != query->place.offset || node->speaker != query->speaker ||
            node->is_purged || node->is_deleted) {
            continue;
        }
        text_of(node, &ids, &count);
        if (count > 0) {
            TRY(id_list_append(&generation->text_ids, ids, count));
            generation->texts[generation->text_count++].count = count;
        }
    }
    for (uint32_t i = 0; i < generation->text_count; i++) {
        generation->texts[i].ids = generation->text_ids.ids + at;
        at += generation->texts[i].count;
    }
    return STATUS_OK;
}

/* ---- all of it ---- */

static void fill_specs(struct store *store, const struct session *session,
                       enum branch_priority priority, struct generation *generation)
{
    const struct context *context = generation->context;

    store->last_group++;
    for (uint32_t k = 0; k < generation->spec_count; k++) {
        generation->specs[k] = (struct branch_spec){
            .request = store->last_group,
            .user = session->owner_uid,
            .session = session->id,
            .group = generation->spec_count > 1 ? store->last_group : 0,
            .priority = priority,
            .runs = generation->runs,
            .run_count = generation->run_count,
            .context_token_count = context->token_count,
            .context_room = generation->room,
            .scope = {.prompt = context->prompt->scope,
                      .prompt_token_count = context->scope_token_count,
                      .session = session->id},
            .sampler = generation->sampler,
            .cues = generation->cues,
            .texts = generation->texts,
            .text_count = generation->text_count,
            .lead_in = generation->lead_in.data,
            .lead_in_bytes = (uint32_t)generation->lead_in.size,
        };
    }
}

/* What follows from the context, the sampler and the cues. */
static enum status fill_rest(struct store *store, const struct session *session, struct place place,
                             bool opens_turn, struct generation *generation, struct error *error)
{
    const uint32_t wanted = generation->sampler->settings.max_tokens;
    const uint32_t room = generation->room - generation->context->token_count;
    enum status status;

    TRY(state_user(store, session->owner_uid, error, &generation->user));
    status = cue_list_compile(generation->cue_list, error, &generation->cues);
    if (status == STATUS_MEMORY) {
        return error_set(error, status, "out of memory for cues");
    }
    TRY(status);
    generation->token_count_max = wanted < room ? wanted : room;
    generation->branch_bytes = node_block_bytes(
        generation->token_count_max, tokenizer_token_bytes_max(store->settings.tokenizer),
        generation->sampler->settings.top_count);
    status = make_runs(generation);
    if (status == STATUS_OK && !opens_turn) {
        status = tree_turn_text(place, store->settings.tokenizer, LEAD_IN_BYTES_MAX,
                                &generation->lead_in);
    }
    return status == STATUS_OK
               ? STATUS_OK
               : error_set(error, status, "out of memory while a reply was prepared");
}

static enum status fill(struct store *store, const struct generate_query *query,
                        struct generation *generation, struct error *error)
{
    const struct cast *cast = &query->session->cast;
    const uint32_t viewpoint = cast_viewpoint(cast, query->speaker);
    const struct prompt *prompt = cast->members[viewpoint].prompt;
    struct context_query context = {
        .session = query->session,
        .encoder = &store->encoder,
        .place = query->place,
        .speaker = query->speaker,
        .opens_turn = query->opens_turn,
    };

    TRY(check_choices(store, &query->request->sampler.rule, error));
    TRY(make_sampler(store, prompt->persona->card, &query->request->sampler, error,
                     &generation->sampler));
    context.reply_tokens = generation->sampler->settings.max_tokens;
    TRY(list_cues(query->session, prompt, generation->sampler, error, &generation->cue_list));
    TRY(context_create(&context, error, &generation->context));
    generation->room = query->session->context_tokens;
    TRY(fill_rest(store, query->session, query->place, query->opens_turn, generation, error));
    if (copy_siblings(query, generation) != STATUS_OK) {
        return error_set(error, STATUS_MEMORY, "out of memory while a reply was prepared");
    }
    generation->is_unfollowed = query->request->delivery == DELIVERY_NO_FOLLOW;
    fill_specs(store, query->session, query->request->priority, generation);
    return STATUS_OK;
}

static enum status make(uint32_t count, struct error *error, struct generation **out)
{
    struct generation *generation =
        memory_alloc(1, sizeof(*generation) + count * sizeof(struct branch_spec));

    if (generation == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory while a reply was prepared");
    }
    generation->spec_count = count;
    buffer_init(&generation->lead_in, LEAD_IN_BYTES_MAX);
    *out = generation;
    return STATUS_OK;
}

enum status branching_create(struct store *store, const struct generate_query *query,
                             struct error *error, struct generation **out)
{
    struct generation *generation = NULL;
    enum status status;

    TRY(make(query->request->n, error, &generation));
    status = fill(store, query, generation, error);
    if (status != STATUS_OK) {
        branching_destroy(generation);
        return status;
    }
    *out = generation;
    return STATUS_OK;
}

enum status branching_resume(struct store *store, struct node *node, struct error *error,
                             struct generation **out)
{
    const struct node_sampled *sampled = node->sampled;
    const struct place place = {node->parent, node->parent_offset};
    struct generation *generation = NULL;
    enum status status;

    TRY(make(1, error, &generation));
    generation->sampler = sampler_acquire(sampled->sampler);
    generation->cue_list = cue_list_acquire(sampled->cue_list);
    generation->context = context_acquire(sampled->context);
    generation->room = sampled->room;
    generation->is_unfollowed = true; /* whoever waits for it has yet to come back */
    status = fill_rest(store, node->session, place, node->opens_turn, generation, error);
    if (status != STATUS_OK) {
        branching_destroy(generation);
        return status;
    }
    fill_specs(store, node->session, BRANCH_BATCH, generation);
    generation->specs[0].resume_count = sampled->event.sampled_count;
    *out = generation;
    return STATUS_OK;
}

void branching_destroy(struct generation *generation)
{
    CHECK(generation->alive_count == 0);
    context_release(generation->context);
    if (generation->sampler != NULL) {
        sampler_release(generation->sampler);
    }
    cue_list_release(generation->cue_list);
    cue_set_destroy(generation->cues);
    memory_free(generation->runs);
    id_list_finish(&generation->copies);
    id_list_finish(&generation->text_ids);
    buffer_finish(&generation->lead_in);
    memory_free(generation);
}
