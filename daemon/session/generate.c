#include "session/generate.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "session/branching.h"
#include "session/look.h"
#include "session/pending.h"
#include "session/record.h"
#include "session/residence.h"
#include "session/seed.h"

/* ---- preparing ---- */

static enum status check_limits(struct store *store, const struct generation *generation,
                                uint32_t count, struct error *error)
{
    const struct user *user = generation->user;
    const uint64_t most = (uint64_t)OUTPUT_MIB_PER_USER_MAX << 20;
    const uint64_t wanted = user->output_bytes + count * generation->branch_bytes;

    if (count > store->free_slot_count) {
        return error_set_limit(error, "BRANCH_COUNT_MAX", BRANCH_COUNT_MAX,
                               "%u replies are asked for and %u of %u places are free; try again "
                               "when some have ended",
                               count, store->free_slot_count, (unsigned)BRANCH_COUNT_MAX);
    }
    if (user->branch_count + count > BRANCH_PER_USER_COUNT_MAX) {
        return error_set_limit(error, "BRANCH_PER_USER_COUNT_MAX", BRANCH_PER_USER_COUNT_MAX,
                               "you have %u replies going and ask for %u more", user->branch_count,
                               count);
    }
    if (wanted > most) {
        return error_set_limit(error, "OUTPUT_MIB_PER_USER_MAX", OUTPUT_MIB_PER_USER_MAX,
                               "%u replies of at most %u tokens need %llu MiB; ask for fewer or "
                               "shorter ones",
                               count, generation->token_count_max,
                               (unsigned long long)(wanted >> 20));
    }
    return STATUS_OK;
}

/* Ordinals of the nodes on the way; the last entry is left for the node's own. */
static enum status list_ordinals(struct place place, uint32_t **out, uint32_t *count)
{
    struct tree_path path = {0};
    uint32_t *ordinals;

    TRY(tree_path_create(place, &path));
    ordinals = memory_alloc(path.count + 1, sizeof(*ordinals));
    for (uint32_t i = 0; ordinals != NULL && i < path.count; i++) {
        ordinals[i] = path.steps[i].node->ordinal;
    }
    *count = path.count + 1;
    tree_path_finish(&path);
    *out = ordinals;
    return ordinals == NULL ? STATUS_MEMORY : STATUS_OK;
}

static enum status make_node(struct store *store, const struct generate_query *query,
                             struct generation *generation, struct error *error, struct node **out)
{
    const struct sampler_settings *settings = &generation->sampler->settings;
    struct node *node = NULL;

    TRY(tree_node_create(query->session, query->place, query->speaker, error, &node));
    if (node_sampled_create(generation->token_count_max,
                            tokenizer_token_bytes_max(store->settings.tokenizer),
                            settings->top_count, &node->sampled) != STATUS_OK) {
        node_destroy(node);
        return error_set(error, STATUS_MEMORY, "out of memory for a reply of %u tokens",
                         generation->token_count_max);
    }
    node->origin = ORIGIN_SAMPLED;
    node->opens_turn = query->opens_turn;
    node->created_us = clock_wall_us();
    node->sampled->context = context_acquire(generation->context);
    node->sampled->cue_list = cue_list_acquire(generation->cue_list);
    node->sampled->room = generation->room;
    *out = node;
    return STATUS_OK;
}

/* One for all, or one each: the group's seed is that of its first sibling. */
static enum status give_samplers(struct store *store, const struct request_generation *request,
                                 struct generation *generation, struct error *error,
                                 struct node **nodes)
{
    const struct tokenizer *tokenizer = store->settings.tokenizer;
    uint32_t end_count = 0;
    const uint32_t *ends = tokenizer_end_ids(tokenizer, &end_count);

    for (uint32_t k = 0; k < request->n; k++) {
        struct node_sampled *sampled = nodes[k]->sampled;

        if (!request->distinct_first) {
            sampled->sampler = sampler_acquire(generation->sampler);
        } else if (sampler_create_distinct(generation->sampler, nodes[0]->sampled->seed, k, ends,
                                           end_count, tokenizer_vocabulary(tokenizer)->token_count,
                                           &sampled->sampler) != STATUS_OK) {
            return error_set(error, STATUS_MEMORY, "out of memory for a sampler");
        }
    }
    return STATUS_OK;
}

static enum status make_nodes(struct store *store, const struct generate_query *query,
                              struct generation *generation, struct error *error,
                              struct node **nodes)
{
    const struct request_generation *request = query->request;
    const uint64_t s = request->has_seed ? request->seed : query->session->seed;
    uint32_t *ordinals = NULL;
    uint32_t ordinal_count = 0;

    if (list_ordinals(query->place, &ordinals, &ordinal_count) != STATUS_OK) {
        return error_set(error, STATUS_MEMORY, "out of memory while a seed was made");
    }
    for (uint32_t k = 0; k < request->n; k++) {
        enum status status = make_node(store, query, generation, error, &nodes[k]);

        if (status != STATUS_OK) {
            memory_free(ordinals);
            return status;
        }
        nodes[k]->ordinal = tree_next_ordinal(query->place) + k;
        ordinals[ordinal_count - 1] = nodes[k]->ordinal;
        nodes[k]->sampled->seed =
            request->has_raw_seed
                ? request->raw_seed + k
                : seed_of_node(s, generation->context_digest, ordinals, ordinal_count);
    }
    memory_free(ordinals);
    return give_samplers(store, request, generation, error, nodes);
}

enum status generate_prepare(struct store *store, const struct generate_query *query,
                             struct error *error, struct generation **out, struct node **nodes)
{
    struct generation *generation = NULL;
    enum status status = branching_create(store, query, error, &generation);

    if (status == STATUS_OK) {
        status = check_limits(store, generation, query->request->n, error);
    }
    if (status == STATUS_OK) {
        status = make_nodes(store, query, generation, error, nodes);
    }
    if (status != STATUS_OK) {
        generate_abandon(generation, nodes);
        return status;
    }
    *out = generation;
    return STATUS_OK;
}

void generate_abandon(struct generation *generation, struct node **nodes)
{
    if (generation == NULL) {
        return;
    }
    for (uint32_t k = 0; k < generation->spec_count; k++) {
        node_destroy(nodes[k]);
        nodes[k] = NULL;
    }
    branching_destroy(generation);
}

/* ---- lending ---- */

static void lend(struct store *store, struct generation *generation, struct node *node)
{
    struct node_sampled *sampled = node->sampled;

    sampled->generation = generation;
    store->slots[sampled->slot] = node;
    generation->alive_count++;
    generation->user->branch_count++;
    node->session->branch_count++;
    generation->user->output_bytes += generation->branch_bytes;
    sampled->unfollowed_since_ns = generation->is_unfollowed ? 0 : clock_monotonic_ns();
}

/* The branch is over: what was borrowed for it comes back. */
static void take_back(struct store *store, struct node *node)
{
    struct node_sampled *sampled = node->sampled;
    struct generation *generation = sampled->generation;

    sampled->generation = NULL;
    store->slots[sampled->slot] = NULL;
    store->free_slots[store->free_slot_count++] = sampled->slot;
    generation->user->branch_count--;
    node->session->branch_count--;
    generation->user->output_bytes -= generation->branch_bytes;
    if (--generation->alive_count == 0) {
        branching_destroy(generation);
    }
}

static enum status submit_all(struct store *store, struct generation *generation,
                              struct node **nodes, struct error *error)
{
    for (uint32_t k = 0; k < generation->spec_count; k++) {
        struct node *node = nodes[k];
        struct branch_spec *spec = &generation->specs[k];
        struct error refusal = {0};
        enum status status;

        CHECK(store->free_slot_count > 0);
        node->sampled->slot = store->free_slots[store->free_slot_count - 1];
        spec->slot = node->sampled->slot;
        spec->node = node->id;
        spec->seed = node->sampled->seed;
        spec->sampler = node->sampled->sampler;
        spec->output = &node->sampled->output;
        status = engine_submit(store->settings.engine, spec, &refusal);
        if (status != STATUS_OK && k == 0) {
            if (error != NULL) {
                *error = refusal;
            }
            return status;
        }
        store->free_slot_count--;
        lend(store, generation, node);
        if (status != STATUS_OK) {
            node->error = memory_alloc(1, sizeof(*node->error));
            if (node->error != NULL) {
                *node->error = refusal;
            }
            node->sampled->event.finish = FINISH_FAILED;
            node->sampled->event.status = status;
            node->sampled->is_refused = true;
        }
    }
    return STATUS_OK;
}

/* Siblings begin in one step, from the same row of logits. */
enum status generate_submit(struct store *store, struct generation *generation, struct node **nodes,
                            struct error *error)
{
    enum status status;

    engine_hold(store->settings.engine, true);
    status = submit_all(store, generation, nodes, error);
    engine_hold(store->settings.engine, false);
    return status;
}

/* ---- the journal's side ---- */

static void finish_visibly(struct store *store, struct node *node)
{
    node->is_finish_visible = true;
    node->sampled->shown = node->sampled->event;
    pending_wake(store, node, STATUS_OK);
    store->settings.events.on_progress(store->settings.events.context, node->id);
}

/* Of a device it says what failed: nobody else can tell. */
static void set_error(struct store *store, struct node *node, enum status status)
{
    struct engine_stats stats = {0};

    if (node->error == NULL) {
        node->error = memory_alloc(1, sizeof(*node->error));
    }
    if (status == STATUS_DEVICE) {
        engine_stats(store->settings.engine, &stats);
    }
    error_set(node->error, status, stats.device_text[0] != '\0' ? "%s: %s" : "%s",
              status_text(status), stats.device_text);
}

/* Nothing more can be stored: who follows learns of it, and what was shown stays. */
static void end_unstored(struct store *store, struct node *node)
{
    node->finish = NODE_FAILED;
    set_error(store, node, STATUS_STORAGE);
    if (node->is_visible) {
        finish_visibly(store, node);
    } else {
        pending_wake(store, node, STATUS_STORAGE);
    }
}

static void give_finish(struct store *store, struct node *node)
{
    if (record_finish(store, node) != STATUS_OK) {
        journal_unreserve(store->settings.journal);
        end_unstored(store, node);
    }
}

static void end(struct store *store, struct node *node);

void generate_intent_given(struct store *store, struct node *node, enum status status)
{
    if (status == STATUS_OK) {
        node->sampled->has_intent = true;
    } else {
        generate_cancel(store, node);
        pending_wake(store, node, STATUS_STORAGE);
    }
    if (node->sampled->event.finish != FINISH_NONE) {
        end(store, node); /* the engine never had it */
    }
}

void generate_commit(struct store *store, struct node *node, enum journal_told told,
                     enum status status)
{
    if (status != STATUS_OK) {
        generate_cancel(store, node);
        end_unstored(store, node);
        return;
    }
    if (told == JOURNAL_TOLD_FINISH) {
        finish_visibly(store, node);
        return;
    }
    node->is_visible = true;
    node->sampled->shown = node->sampled->event;
    pending_wake(store, node, STATUS_OK);
    if (node->sampled->shown.released_count > 0) {
        store->settings.events.on_progress(store->settings.events.context, node->id);
    }
}

/* ---- how a node ends ---- */

static enum node_finish finish_of(const struct branch_event *event)
{
    switch ((enum branch_finish)event->finish) {
    case FINISH_END:
        return NODE_END;
    case FINISH_CUE:
        return NODE_CUE;
    case FINISH_LENGTH:
        return NODE_LENGTH;
    case FINISH_CONTEXT:
        return NODE_CONTEXT;
    case FINISH_CANCELLED:
        return NODE_CUT;
    default:
        return event->status == STATUS_STOPPING ? NODE_INTERRUPTED : NODE_FAILED;
    }
}

/* The bytes that the cut token still showed become the tail: content = kept tokens + tail. */
static enum status encode_tail(struct store *store, struct node *node)
{
    const struct node_sampled *sampled = node->sampled;
    const struct branch_event *event = &sampled->event;
    const uint32_t kept_bytes = event->kept == 0 ? 0 : sampled->output.text_ends[event->kept - 1];
    struct id_list ids = {0};
    enum status status;

    CHECK(event->kept <= event->sampled_count);
    if (event->content_bytes <= kept_bytes) {
        return STATUS_OK;
    }
    status = id_list_append(&ids, sampled->output.tokens, event->kept);
    if (status == STATUS_OK) {
        status = encoder_bytes(
            &store->encoder,
            bytes_of(sampled->output.text + kept_bytes, event->content_bytes - kept_bytes), &ids);
    }
    if (status != STATUS_OK) {
        id_list_finish(&ids);
        return status;
    }
    node->ids = ids.ids;
    node->id_count = ids.count;
    return STATUS_OK;
}

static void end(struct store *store, struct node *node)
{
    struct node_sampled *sampled = node->sampled;
    enum status status;

    node->finish = finish_of(&sampled->event);
    node->finished_us = clock_wall_us();
    node_settle(node);
    status = encode_tail(store, node);
    if (status != STATUS_OK) {
        node->finish = NODE_FAILED;
        set_error(store, node, status);
    } else if (sampled->event.finish == FINISH_FAILED && node->error == NULL) {
        set_error(store, node, (enum status)sampled->event.status);
    }
    state_account(store, node, true);
    take_back(store, node);
    if (!sampled->has_intent) {
        return; /* it never was, for readers */
    }
    if (node->finish == NODE_INTERRUPTED) {
        /* Its intent stays: it goes on after the next start. */
        (void)record_checkpoint(store, node);
        journal_unreserve(store->settings.journal);
        finish_visibly(store, node);
    } else {
        give_finish(store, node);
    }
    residence_used(store, node->session);
}

/* A branch that went on and ended before the engine had read its tokens keeps those it had. */
static void keep_counts(struct branch_event *event, const struct branch_event *before)
{
    if (event->finish != FINISH_NONE && event->sampled_count < before->sampled_count) {
        event->sampled_count = before->sampled_count;
        event->released_count = before->released_count;
        event->released_bytes = before->released_bytes;
        event->kept = before->released_count;
        event->content_bytes = before->released_bytes;
    }
}

void generate_take(struct store *store)
{
    struct branch_event event;
    uint32_t slot = 0;

    while (engine_event_take(store->settings.engine, &slot, &event) == STATUS_OK) {
        struct node *node = slot < BRANCH_COUNT_MAX ? store->slots[slot] : NULL;

        if (node == NULL && slot < BRANCH_COUNT_MAX && store->looks[slot] != NULL) {
            look_take(store, slot, &event);
            continue;
        }
        CHECK(node != NULL);
        keep_counts(&event, &node->sampled->event);
        node->sampled->event = event;
        if (event.finish != FINISH_NONE) {
            end(store, node);
        } else if (node->is_visible) {
            node->sampled->shown = event;
            store->settings.events.on_progress(store->settings.events.context, node->id);
            if (event.sampled_count >= node->sampled->stored_count + CHECKPOINT_TOKEN_COUNT) {
                (void)record_checkpoint(store, node);
            }
        }
    }
}

enum status generate_resume(struct store *store, struct node *node, struct error *error)
{
    struct generation *generation = NULL;
    enum status status;

    TRY(branching_resume(store, node, error, &generation));
    if (store->free_slot_count == 0) {
        status = error_set_limit(error, "BRANCH_COUNT_MAX", BRANCH_COUNT_MAX,
                                 "too many replies go on at once");
    } else {
        status = generate_submit(store, generation, &node, error);
    }
    if (status != STATUS_OK) {
        branching_destroy(generation);
        return status;
    }
    journal_reserve(store->settings.journal);
    return STATUS_OK;
}

void generate_interrupt(struct store *store, struct node *node)
{
    struct branch_event *event = &node->sampled->event;

    event->kept = event->released_count;
    event->content_bytes = event->released_bytes;
    event->finish = FINISH_FAILED;
    node->finish = NODE_INTERRUPTED;
    node->finished_us = clock_wall_us();
    state_account(store, node, true);
    journal_reserve(store->settings.journal);
    give_finish(store, node);
    residence_used(store, node->session);
}

void generate_cancel(struct store *store, struct node *node)
{
    struct node_sampled *sampled = node->sampled;

    if (sampled->generation != NULL && !sampled->is_refused &&
        engine_cancel(store->settings.engine, sampled->slot) != STATUS_OK) {
        log_line(LOG_WARN, "session", "node %llu could not be cancelled now",
                 (unsigned long long)node->id);
    }
}

void generate_cancel_request(struct store *store, struct reply_to to)
{
    for (uint32_t slot = 0; slot < BRANCH_COUNT_MAX; slot++) {
        struct node *node = store->slots[slot];

        if (node != NULL && node->sampled->generation->to.connection == to.connection &&
            node->sampled->generation->to.request == to.request) {
            generate_cancel(store, node);
        }
    }
}

/* ---- followers ---- */

static void park(struct store *store, struct node *node, bool is_parked)
{
    struct node_sampled *sampled = node->sampled;

    if (sampled->is_parked != is_parked && !sampled->is_refused &&
        engine_park(store->settings.engine, sampled->slot, is_parked) == STATUS_OK) {
        sampled->is_parked = is_parked;
    }
}

void generate_follow(struct store *store, struct node *node)
{
    node->sampled->follower_count++;
    node->sampled->unfollowed_since_ns = 0;
    if (node->sampled->generation != NULL) {
        park(store, node, false);
    }
}

void generate_unfollow(struct store *store, struct node *node)
{
    (void)store;
    CHECK(node->sampled->follower_count > 0);
    if (--node->sampled->follower_count == 0 && node->sampled->generation != NULL) {
        node->sampled->unfollowed_since_ns = clock_monotonic_ns();
    }
}

void generate_park_unfollowed(struct store *store)
{
    const uint64_t most_ns = (uint64_t)BRANCH_UNFOLLOWED_MS_MAX * 1000000;
    const uint64_t now_ns = clock_monotonic_ns();

    if (now_ns - store->park_checked_ns < most_ns / 8) {
        return;
    }
    store->park_checked_ns = now_ns;
    for (uint32_t slot = 0; slot < BRANCH_COUNT_MAX; slot++) {
        struct node *node = store->slots[slot];

        if (node != NULL && node->sampled->unfollowed_since_ns != 0 &&
            now_ns - node->sampled->unfollowed_since_ns > most_ns) {
            park(store, node, true);
        }
    }
}

void generate_finish(struct store *store)
{
    for (uint32_t slot = 0; slot < BRANCH_COUNT_MAX; slot++) {
        if (store->slots[slot] != NULL) {
            take_back(store, store->slots[slot]);
        }
    }
}
