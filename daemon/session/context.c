#include "session/context.h"

#include <string.h>

#include "base/check.h"
#include "base/memory.h"
#include "session/inserting.h"
#include "session/window.h"

/* Where the window is placed, an insert counts so many tokens more. */
enum { INSERT_FRAME_TOKEN_COUNT = 8 };

/* A turn of the path. */
struct turn {
    uint32_t first_step;
    uint32_t speaker;
    uint64_t content_count;
    const struct cast_frame *after_turn;  /* the frame in front when a turn stands before it */
    const struct cast_frame *after_start; /* the frame in front when it is the first that stays */
    uint64_t suffix_count; /* from this turn's content to the end, inner frames included */
};

/* The making of one context. */
struct building {
    const struct context_query *query;
    const struct prompt *prompt; /* that stands in front */
    const struct prompt *own;    /* of the persona through whose eyes */
    uint32_t viewpoint;
    struct tree_path path; /* owned */
    struct turn *turns;    /* owned */
    uint32_t turn_count;
    uint32_t first_turn;
    const struct cast_frame *reply_frame; /* opens the reply's turn; NULL when it goes on */
    struct context *ancestor;             /* of the same lineage, borrowed */
    struct insert_list inserts;           /* owned */
    uint32_t insert_at;                   /* the first that stands in no segment yet */
    struct id_list made;                  /* owned: ids of inserts and of the frames behind them */
    struct segment *segments;             /* owned; those without ids lie in `made`, at `from` */
    uint32_t segment_count;
    uint32_t scope_count;
    struct error *error;
};

static enum status out_of_memory(const struct building *building)
{
    return error_set(building->error, STATUS_MEMORY, "out of memory while a context was made");
}

static enum status find_turns(struct building *building)
{
    const struct tree_path *path = &building->path;

    building->turns = memory_alloc(path->count, sizeof(*building->turns));
    if (building->turns == NULL) {
        return out_of_memory(building);
    }
    for (uint32_t i = 0; i < path->count; i++) {
        const struct node *node = path->steps[i].node;

        if (i == 0 || node->opens_turn) {
            building->turns[building->turn_count].first_step = i;
            building->turns[building->turn_count++].speaker = node->speaker;
        }
        building->turns[building->turn_count - 1].content_count += path->steps[i].count;
    }
    if (!building->query->opens_turn && building->turn_count == 0) {
        return error_set(building->error, STATUS_CONFLICT,
                         "there is no turn to continue at the start of a session");
    }
    return STATUS_OK;
}

static enum status find_frame(const struct building *building, uint32_t from, uint32_t to,
                              const struct cast_frame **out)
{
    return cast_frame_find(&building->query->session->cast, building->query->encoder,
                           building->viewpoint, from, to, building->error, out);
}

static enum status find_frames(struct building *building)
{
    const struct context_query *query = building->query;
    const uint32_t count = building->turn_count;

    for (uint32_t i = 0; i < count; i++) {
        struct turn *turn = &building->turns[i];

        TRY(find_frame(building, CAST_START, turn->speaker, &turn->after_start));
        turn->after_turn = turn->after_start;
        if (i > 0) {
            TRY(find_frame(building, building->turns[i - 1].speaker, turn->speaker,
                           &turn->after_turn));
        }
    }
    if (query->opens_turn) {
        const uint32_t last = count > 0 ? building->turns[count - 1].speaker : CAST_START;

        TRY(find_frame(building, last, query->speaker, &building->reply_frame));
    }
    return STATUS_OK;
}

static enum status find_inserts(struct building *building)
{
    const struct context_query *query = building->query;
    const uint32_t count = building->turn_count;
    uint32_t *turns = memory_alloc(count, sizeof(*turns));
    const struct inserting inserting = {
        .session = query->session,
        .encoder = query->encoder,
        .path = &building->path,
        .turns = turns,
        .turn_count = count,
        .written = query->opens_turn ? count : count - 1,
        .viewpoint = building->viewpoint,
        .has_instruction = query->speaker == building->viewpoint,
        .error = building->error,
    };
    enum status status;

    if (turns == NULL) {
        return out_of_memory(building);
    }
    for (uint32_t i = 0; i < count; i++) {
        turns[i] = building->turns[i].first_step;
    }
    status = inserting_collect(&inserting, &building->inserts);
    memory_free(turns);
    return status;
}

static void sum_suffixes(struct building *building)
{
    uint64_t count = building->reply_frame != NULL ? building->reply_frame->count : 0;

    for (uint32_t i = building->turn_count; i > 0; i--) {
        struct turn *turn = &building->turns[i - 1];

        count += turn->content_count;
        turn->suffix_count = count;
        count += turn->after_turn->count;
    }
}

static uint64_t tokens_from(void *context, uint32_t first)
{
    const struct building *building = context;

    if (first >= building->turn_count) {
        return building->reply_frame->count;
    }
    return building->turns[first].after_start->count + building->turns[first].suffix_count;
}

/* The nearest context of the same lineage on the way, whose cut is inherited. */
static void find_ancestor(struct building *building)
{
    const bool is_joint = building->query->session->cast.mode == GROUP_JOINT;

    for (uint32_t i = building->path.count; i > 0 && building->ancestor == NULL; i--) {
        const struct node *node = building->path.steps[i - 1].node;
        struct context *context = node->sampled != NULL ? node->sampled->context : NULL;

        if (context != NULL && context->prompt == building->prompt &&
            (is_joint || context->speaker == building->query->speaker)) {
            building->ancestor = context;
        }
    }
}

/* Nothing stands before the first token that a model samples: it gets one token to start from, and
 * contexts that go on from there keep it. */
static bool starts_with_start(const struct building *building)
{
    const struct cast_frame *first =
        building->turn_count > 0 ? building->turns[0].after_start : building->reply_frame;
    uint32_t at = 0;

    if (building->prompt->ids.count > 0 || first->count > 0) {
        return false;
    }
    while (at < building->path.count && building->path.steps[at].count == 0) {
        at++;
    }
    return at == building->path.count || building->path.steps[at].node->sampled != NULL;
}

/* Tokens that stand whatever the window does; what stands around inserts is a guess. */
static uint32_t front_count(const struct building *building)
{
    const uint64_t count = building->prompt->ids.count + starts_with_start(building) +
                           building->inserts.token_count +
                           (uint64_t)building->inserts.count * INSERT_FRAME_TOKEN_COUNT;

    return count < UINT32_MAX ? (uint32_t)count : UINT32_MAX;
}

static enum status place_window(struct building *building)
{
    const struct context_query *query = building->query;
    const uint32_t prompt_count = front_count(building);
    const uint32_t kept_max = query->opens_turn ? 1 : 2;
    const struct window_lengths lengths = {tokens_from, building};
    const uint32_t length = query->session->context_tokens;
    const struct window window = {
        .room = length > prompt_count ? length - prompt_count : 0,
        .reply_tokens = query->reply_tokens,
        .turn_count = building->turn_count,
        .kept_turn_count = building->turn_count < kept_max ? building->turn_count : kept_max,
        .inherited_first = building->ancestor != NULL ? building->ancestor->first_turn : 0,
    };

    if (window_place(&window, &lengths, &building->first_turn) != STATUS_OK) {
        const uint32_t last = building->turn_count - window.kept_turn_count;

        return error_set_limit(building->error, "context_tokens", length,
                               "the persona's prompt and what is inserted (%u tokens) and the "
                               "last turns (%llu tokens) leave no room for a reply in the "
                               "session's context of %u tokens",
                               prompt_count, (unsigned long long)tokens_from(building, last),
                               length);
    }
    return STATUS_OK;
}

/* ---- segments ---- */

static void add_segment(struct building *building, struct segment segment)
{
    if (segment.count > 0) {
        building->segments[building->segment_count++] = segment;
    }
}

static void add_frame(struct building *building, const struct cast_frame *frame)
{
    add_segment(building,
                (struct segment){.kind = SEGMENT_FRAME, .count = frame->count, .ids = frame->ids});
}

/* Whether one stands in front of that turn that no turn before it took: the first turn that stays
 * takes those of all that were left out. */
static bool has_insert(const struct building *building, uint32_t turn)
{
    return building->insert_at < building->inserts.count &&
           building->inserts.items[building->insert_at].turn <= turn;
}

/* What was made since then becomes a segment; its ids move while more is made. */
static void add_made(struct building *building, enum segment_kind kind, uint32_t from)
{
    add_segment(building,
                (struct segment){.kind = kind, .count = building->made.count - from, .from = from});
}

/* What stands between the turn before and that one, which `speaker` speaks. */
static enum status add_gap(struct building *building, uint32_t turn, uint32_t speaker,
                           const struct cast_frame *frame)
{
    const struct cast *cast = &building->query->session->cast;
    const struct template *template = &building->prompt->template;
    const uint32_t before =
        turn == building->first_turn ? CAST_START : building->turns[turn - 1].speaker;
    const struct template_end from = cast_end(cast, building->viewpoint, before);
    const struct template_end to = cast_end(cast, building->viewpoint, speaker);
    struct template_gap gap =
        template_gap_begin(template, &from, before == CAST_START && building->prompt->is_open);
    uint32_t at;

    if (!has_insert(building, turn)) {
        add_frame(building, frame);
        return STATUS_OK;
    }
    for (; has_insert(building, turn); building->insert_at++) {
        const struct insert *insert = &building->inserts.items[building->insert_at];

        at = building->made.count;
        TRY(template_gap_insert(template, building->query->encoder, &gap, insert->role,
                                &insert->ids, building->error, &building->made));
        add_made(building, SEGMENT_INSERT, at);
    }
    at = building->made.count;
    TRY(template_gap_end(template, building->query->encoder, &gap, &to, building->error,
                         &building->made));
    add_made(building, SEGMENT_FRAME, at);
    return STATUS_OK;
}

static enum status add_turn(struct building *building, uint32_t index)
{
    const bool is_last = index + 1 == building->turn_count;
    const struct turn *turn = &building->turns[index];
    const uint32_t end = is_last ? building->path.count : turn[1].first_step;

    TRY(add_gap(building, index, turn->speaker,
                index == building->first_turn ? turn->after_start : turn->after_turn));
    for (uint32_t i = turn->first_step; i < end; i++) {
        const struct tree_step *step = &building->path.steps[i];

        add_segment(building, (struct segment){
                                  .kind = SEGMENT_NODE, .count = step->count, .node = step->node});
    }
    return STATUS_OK;
}

/* A whole greeting directly behind the prompt of the persona that gave it. */
static bool starts_with_greeting(const struct building *building)
{
    const struct tree_step *step = building->path.steps;

    if (building->turn_count > 0 && has_insert(building, building->first_turn)) {
        return false; /* what a session inserts is not for others to share */
    }

    return building->path.count > 0 && building->first_turn == 0 && step->node->is_greeting &&
           (step->node->speaker == building->viewpoint ||
            building->query->session->cast.mode == GROUP_JOINT) &&
           step->count == step->node->id_count;
}

/* The ids of what was made lie where they stay now. */
static uint64_t settle(struct building *building)
{
    uint64_t token_count = 0;

    for (uint32_t i = 0; i < building->segment_count; i++) {
        struct segment *segment = &building->segments[i];

        if (segment->ids == NULL && segment->kind != SEGMENT_NODE &&
            segment->kind != SEGMENT_PROMPT) {
            segment->ids = building->made.ids + segment->from;
            segment->from = 0;
        }
        token_count += segment->count;
    }
    return token_count;
}

static enum status add_segments(struct building *building, uint64_t *token_count)
{
    const struct id_list *ids = &building->prompt->ids;
    const uint32_t most =
        building->path.count + building->turn_count + 4 + 2 * building->inserts.count;

    if (building->segments == NULL) {
        building->segments = memory_alloc(most, sizeof(*building->segments));
    }
    if (building->segments == NULL) {
        return out_of_memory(building);
    }
    building->segment_count = 0;
    building->made.count = 0;
    building->insert_at = 0;
    add_segment(building,
                (struct segment){.kind = SEGMENT_PROMPT, .count = ids->count, .ids = ids->ids});
    building->scope_count = ids->count;
    if (starts_with_greeting(building)) {
        building->scope_count +=
            building->turns[0].after_start->count + building->path.steps[0].count;
    }
    if (building->first_turn == 0 && starts_with_start(building)) {
        add_segment(building, (struct segment){.kind = SEGMENT_START,
                                               .count = 1,
                                               .ids = &building->prompt->template.start_id});
    }
    for (uint32_t i = building->first_turn; i < building->turn_count; i++) {
        TRY(add_turn(building, i));
    }
    if (building->reply_frame != NULL) {
        TRY(add_gap(building, building->turn_count, building->query->speaker,
                    building->reply_frame));
    }
    CHECK(building->segment_count <= most);
    *token_count = settle(building);
    return STATUS_OK;
}

/* Where the guess about inserts was too low, a turn more goes. */
static enum status fit_segments(struct building *building)
{
    const uint32_t kept_max = building->query->opens_turn ? 1 : 2;
    const uint32_t length = building->query->session->context_tokens;
    uint64_t token_count = 0;

    TRY(add_segments(building, &token_count));
    while (token_count + 1 > length && building->inserts.count > 0 &&
           building->first_turn + kept_max < building->turn_count) {
        building->first_turn++;
        TRY(add_segments(building, &token_count));
    }
    return token_count + 1 <= length || building->inserts.count == 0
               ? STATUS_OK
               : error_set_limit(building->error, "context_tokens", length,
                                 "what is inserted leaves no room for a reply in the session's "
                                 "context of %u tokens",
                                 length);
}

/* Frames of a context that was loaded lie elsewhere than the cast's: their ids decide. */
static bool is_same(const struct segment *a, const struct segment *b)
{
    return a->kind == b->kind && a->count == b->count && a->node == b->node && a->from == b->from &&
           (a->ids == b->ids || memcmp(a->ids, b->ids, a->count * sizeof(uint32_t)) == 0);
}

/* How many leading segments the ancestor has too. */
static enum status count_shared(const struct building *building, uint32_t *out)
{
    uint32_t count;
    uint32_t shared = 0;
    struct segment *segments;

    if (building->ancestor == NULL) {
        *out = 0;
        return STATUS_OK;
    }
    count = context_segment_count(building->ancestor);
    segments = memory_alloc(count, sizeof(*segments));
    if (segments == NULL) {
        return out_of_memory(building);
    }
    context_segments(building->ancestor, segments);
    while (shared < count && shared < building->segment_count &&
           is_same(&segments[shared], &building->segments[shared])) {
        shared++;
    }
    memory_free(segments);
    *out = shared;
    return STATUS_OK;
}

/* Whose ids the context keeps itself: the cast's frames go when it changes. */
static bool is_kept(const struct segment *segment)
{
    return segment->kind == SEGMENT_FRAME || segment->kind == SEGMENT_INSERT;
}

/* Into the place behind the context's segments, which is large enough. */
static void keep_ids(struct context *context)
{
    uint32_t *ids = (uint32_t *)(void *)&context->own[context->own_count];

    for (uint32_t i = 0; i < context->own_count; i++) {
        struct segment *segment = &context->own[i];

        if (is_kept(segment)) {
            memcpy(ids, segment->ids, segment->count * sizeof(*ids));
            segment->ids = ids;
            ids += segment->count;
        }
    }
}

/* The stored form: what the ancestor has stays there. */
static enum status store(const struct building *building, struct context **out)
{
    uint32_t shared = 0;
    uint32_t own_count;
    size_t id_count = 0;
    struct context *context;

    TRY(count_shared(building, &shared));
    own_count = building->segment_count - shared;
    for (uint32_t i = shared; i < building->segment_count; i++) {
        id_count += is_kept(&building->segments[i]) ? building->segments[i].count : 0;
    }
    context = memory_alloc(1, sizeof(*context) + own_count * sizeof(struct segment) +
                                  id_count * sizeof(uint32_t));
    if (context == NULL) {
        return out_of_memory(building);
    }
    *context = (struct context){
        .reference_count = 1,
        .prompt = building->prompt,
        .speaker = building->query->speaker,
        .first_turn = building->first_turn,
        .scope_token_count = building->scope_count,
        .base = shared > 0 ? context_acquire(building->ancestor) : NULL,
        .base_count = shared,
        .own_count = own_count,
    };
    memcpy(context->own, building->segments + shared, own_count * sizeof(struct segment));
    keep_ids(context);
    for (uint32_t i = 0; i < building->segment_count; i++) {
        context->token_count += building->segments[i].count;
    }
    *out = context;
    return STATUS_OK;
}

static enum status build(struct building *building, struct context **out)
{
    if (tree_path_create(building->query->place, &building->path) != STATUS_OK) {
        return out_of_memory(building);
    }
    TRY(find_turns(building));
    TRY(find_frames(building));
    TRY(find_inserts(building));
    sum_suffixes(building);
    find_ancestor(building);
    TRY(place_window(building));
    TRY(fit_segments(building));
    return store(building, out);
}

enum status context_create(const struct context_query *query, struct error *error,
                           struct context **out)
{
    const struct cast *cast = &query->session->cast;
    struct building building = {.query = query, .error = error};
    enum status status;

    building.viewpoint = cast_viewpoint(cast, query->speaker);
    CHECK(building.viewpoint != CAST_START);
    building.prompt = cast_prompt(cast, building.viewpoint);
    building.own = cast->members[building.viewpoint].prompt;
    status = build(&building, out);
    tree_path_finish(&building.path);
    memory_free(building.turns);
    memory_free(building.segments);
    inserting_finish(&building.inserts);
    id_list_finish(&building.made);
    return status;
}

/* ---- stored contexts ---- */

struct context *context_acquire(struct context *context)
{
    context->reference_count++;
    return context;
}

void context_release(struct context *context)
{
    /* Without recursion: the chain is as long as a conversation. */
    while (context != NULL && --context->reference_count == 0) {
        struct context *base = context->base;

        memory_free(context);
        context = base;
    }
}

uint32_t context_token_count(const struct context *context)
{
    return context->token_count;
}

uint32_t context_turns_left_out(const struct context *context)
{
    return context->first_turn;
}

uint32_t context_segment_count(const struct context *context)
{
    return context->base_count + context->own_count;
}

void context_segments(const struct context *context, struct segment *out)
{
    uint32_t wanted = context_segment_count(context);

    while (wanted > 0) {
        const uint32_t own = wanted > context->base_count ? wanted - context->base_count : 0;

        memcpy(out + context->base_count, context->own, own * sizeof(*out));
        wanted = wanted < context->base_count ? wanted : context->base_count;
        context = context->base;
    }
}

const uint32_t *context_segment_ids(const struct segment *segment)
{
    uint32_t count = 0;
    const uint32_t *ids;

    if (segment->kind != SEGMENT_NODE) {
        return segment->ids;
    }
    ids = node_content(segment->node, &count);
    CHECK(segment->from + segment->count <= count);
    return ids + segment->from;
}

uint64_t context_session_id(const struct node *node)
{
    return node->session->id;
}
