#include "sim/tree_model.h"

#include <string.h>

#include "base/check.h"
#include "base/sha256.h"
#include "sample/sampler.h"

static uint32_t count_steps(const struct tokenizer *tokenizer, bool is_greedy, bool ignores_end)
{
    struct sampler_settings settings = sampler_settings_default();
    uint32_t end_count = 0;
    const uint32_t *ends = tokenizer_end_ids(tokenizer, &end_count);
    struct sampler *sampler = NULL;
    uint32_t count;

    settings.ignore_end = ignores_end;
    if (is_greedy) {
        settings.temperature = 0;
    }
    CHECK(sampler_create(&settings, ends, end_count, tokenizer_vocabulary(tokenizer)->token_count,
                         NULL, &sampler) == STATUS_OK);
    count = sampler->steps.count;
    sampler_release(sampler);
    return count;
}

void model_init(struct tree_model *model, const struct tokenizer *tokenizer)
{
    memset(model, 0, sizeof(*model));
    model->tokenizer = tokenizer;
    CHECK(tokenizer_scratch_create(tokenizer, &model->scratch) == STATUS_OK);
    for (int i = 0; i < 4; i++) {
        model->step_counts[i / 2][i % 2] = count_steps(tokenizer, i / 2 == 1, i % 2 == 1);
    }
}

void model_finish(struct tree_model *model)
{
    tokenizer_scratch_destroy(model->scratch);
    model->scratch = NULL;
}

/* ---- the tree ---- */

int model_find(const struct tree_model *model, uint64_t id)
{
    for (int i = 0; i < model->count; i++) {
        if (model->nodes[i].id == id) {
            return i;
        }
    }
    return MODEL_ROOT;
}

struct model_path model_path_of(const struct tree_model *model, struct model_place place)
{
    struct model_path path = {.count = 0};
    uint32_t at;

    for (int node = place.node; node != MODEL_ROOT; node = model->nodes[node].parent) {
        path.count++;
    }
    at = path.count;
    while (place.node != MODEL_ROOT) {
        const struct model_node *node = &model->nodes[place.node];

        at--;
        path.nodes[at] = place.node;
        path.counts[at] = place.offset;
        place.node = node->parent;
        place.offset = node->parent_offset;
    }
    return path;
}

uint32_t model_next_ordinal(const struct tree_model *model, struct model_place place)
{
    uint32_t count = 0;

    for (int i = 0; i < model->count; i++) {
        const struct model_node *node = &model->nodes[i];

        count += node->session == place.session && node->parent == place.node &&
                 node->parent_offset == place.offset;
    }
    return count;
}

int model_hidden_by(const struct tree_model *model, int node)
{
    while (node != MODEL_ROOT && !model->nodes[node].is_deleted) {
        node = model->nodes[node].parent;
    }
    return node;
}

bool model_is_below(const struct tree_model *model, int node, int top)
{
    while (node != MODEL_ROOT && node != top) {
        node = model->nodes[node].parent;
    }
    return node == top;
}

void model_head_leave(struct tree_model *model, struct model_session *session)
{
    for (int by = model_hidden_by(model, session->head); by != MODEL_ROOT;
         by = model_hidden_by(model, session->head)) {
        session->head = model->nodes[by].parent;
        session->head_offset = model->nodes[by].parent_offset;
    }
}

/* ---- text ---- */

uint32_t model_encode(struct tree_model *model, struct bytes text, bool is_text, uint32_t *ids)
{
    uint32_t count = 0;

    if (is_text) {
        CHECK(tokenizer_encode(model->tokenizer, model->scratch, text, false, ids,
                               MODEL_CONTENT_MAX, &count) == STATUS_OK);
    } else {
        CHECK(tokenizer_encode_bytes(model->tokenizer, model->scratch, text, ids, MODEL_CONTENT_MAX,
                                     &count) == STATUS_OK);
    }
    return count;
}

uint32_t model_show(const struct tree_model *model, const uint32_t *ids, uint32_t count,
                    uint8_t *out)
{
    uint32_t size = 0;

    for (uint32_t i = 0; i < count; i++) {
        const struct bytes bytes = tokenizer_token_bytes(model->tokenizer, ids[i]);

        if (bytes.size > 0) {
            memcpy(out + size, bytes.data, bytes.size);
        }
        size += (uint32_t)bytes.size;
    }
    return size;
}

/* ---- contexts ---- */

struct writing {
    struct tree_model *model;
    uint32_t *ids; /* NULL: counted only */
    uint32_t count;
};

static void write_ids(struct writing *writing, const uint32_t *ids, uint32_t count)
{
    CHECK(writing->count + count <= MODEL_CONTEXT_MAX);
    if (writing->ids != NULL && count > 0) {
        memcpy(writing->ids + writing->count, ids, count * sizeof(*ids));
    }
    writing->count += count;
}

static void write_frame(struct writing *writing, const char *text)
{
    uint32_t ids[64];
    uint32_t count = 0;

    CHECK(tokenizer_encode_special(writing->model->tokenizer, writing->model->scratch,
                                   bytes_of_text(text), false, ids, 64, &count) == STATUS_OK);
    write_ids(writing, ids, count);
}

/* speaker 0 is the human, 1 the persona. */
static void write_turn_start(struct writing *writing, bool is_plain, bool is_first,
                             uint32_t speaker)
{
    if (!is_plain) {
        write_frame(writing, is_first ? "" : "<|im_end|>\n");
        write_frame(writing, speaker == 0 ? "<|im_start|>user\n" : "<|im_start|>assistant\n");
    }
}

static uint32_t turn_count(const struct tree_model *model, const struct model_path *path)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < path->count; i++) {
        count += i == 0 || model->nodes[path->nodes[i]].opens_turn;
    }
    return count;
}

/* Turns from number `first` on, and the frame of the turn to come. */
static void write_turns(struct writing *writing, const struct model_reply *reply,
                        const struct model_path *path, uint32_t first)
{
    const struct tree_model *model = writing->model;
    const bool is_plain = model->sessions[reply->place.session].is_plain;
    uint32_t turn = 0;
    bool is_first = true;

    for (uint32_t i = 0; i < path->count; i++) {
        const struct model_node *node = &model->nodes[path->nodes[i]];
        const bool opens = i == 0 || node->opens_turn;

        turn += i > 0 && opens;
        if (turn < first) {
            continue;
        }
        if (opens) {
            write_turn_start(writing, is_plain, is_first, node->speaker);
            is_first = false;
        }
        write_ids(writing, node->ids, path->counts[i]);
    }
    if (reply->opens_turn) {
        write_turn_start(writing, is_plain, is_first, reply->speaker);
    }
}

/* Nothing stands before the first token that a model samples, so it gets one to start from. */
static bool needs_start(const struct tree_model *model, const struct model_path *path)
{
    for (uint32_t i = 0; i < path->count; i++) {
        if (path->counts[i] > 0) {
            return model->nodes[path->nodes[i]].origin == ORIGIN_SAMPLED;
        }
    }
    return true;
}

static uint32_t write_prompt(struct writing *writing, bool is_plain, bool has_start)
{
    const uint32_t start =
        tokenizer_find(writing->model->tokenizer, bytes_of_text("<|endoftext|>"));

    if (!is_plain) {
        write_frame(writing, "<|im_start|>system\nbe kind<|im_end|>\n");
    } else if (has_start) {
        write_ids(writing, &start, 1);
    }
    return writing->count;
}

/* The cut of the nearest reply on the way that the same speaker gave. */
static uint32_t inherited_turn(const struct tree_model *model, const struct model_path *path,
                               uint32_t speaker)
{
    for (uint32_t i = path->count; i > 0; i--) {
        const struct model_node *node = &model->nodes[path->nodes[i - 1]];

        if (node->origin == ORIGIN_SAMPLED && node->speaker == speaker) {
            return node->first_turn;
        }
    }
    return 0;
}

static uint32_t tokens_from(struct tree_model *model, const struct model_reply *reply,
                            const struct model_path *path, uint32_t first)
{
    struct writing writing = {model, NULL, 0};

    write_turns(&writing, reply, path, first);
    return writing.count;
}

/* While turns and reply fit the room nothing moves; then whole turns go until half of it is free.
 * UINT32_MAX: what must stay does not fit. */
static uint32_t place_window(struct tree_model *model, const struct model_reply *reply,
                             const struct model_path *path, uint32_t room)
{
    const uint32_t turns = turn_count(model, path);
    const uint32_t stay = reply->opens_turn ? 1 : 2;
    const uint32_t last = turns > stay ? turns - stay : 0;
    const uint32_t reserve = reply->max_tokens < room / 2 ? reply->max_tokens : room / 2;
    uint32_t first = inherited_turn(model, path, reply->speaker);

    first = first < last ? first : last;
    if (tokens_from(model, reply, path, first) + reserve > room) {
        while (first < last && tokens_from(model, reply, path, first) > room - room / 2) {
            first++;
        }
    }
    return tokens_from(model, reply, path, first) < room ? first : UINT32_MAX;
}

uint32_t model_context(struct tree_model *model, const struct model_reply *reply, uint32_t *ids,
                       uint32_t *first_turn)
{
    const struct model_session *session = &model->sessions[reply->place.session];
    const struct model_path path = model_path_of(model, reply->place);
    const bool has_start = session->is_plain && needs_start(model, &path);
    struct writing counting = {model, NULL, 0};
    struct writing writing = {model, ids, 0};
    const uint32_t prompt_count = write_prompt(&counting, session->is_plain, has_start);

    *first_turn = place_window(model, reply, &path, session->context_tokens - prompt_count);
    if (*first_turn == UINT32_MAX) {
        return 0;
    }
    write_prompt(&writing, session->is_plain, has_start && *first_turn == 0);
    write_turns(&writing, reply, &path, *first_turn);
    return writing.count;
}

bool model_has_room(struct tree_model *model, const struct model_reply *reply)
{
    uint32_t first_turn;

    return model_context(model, reply, NULL, &first_turn) > 0;
}

void model_look(struct tree_model *model, const struct model_reply *reply, uint32_t token,
                float *logprob, float *entropy)
{
    static uint32_t ids[MODEL_CONTEXT_MAX];
    uint32_t first_turn;
    const uint32_t count = model_context(model, reply, ids, &first_turn);
    const struct fake_expectation of = {.ids = ids, .count = count, .history = ids};
    const struct plan_sample asked = {.flags = PLAN_SAMPLE_GIVEN, .given = token};
    struct sample_result result;

    fake_expect(model->fake, &of, &asked, &result);
    *logprob = result.logprob;
    *entropy = result.entropy;
}

/* ---- replies ---- */

static uint64_t seed_of(const struct tree_model *model, const struct model_reply *reply,
                        const uint32_t *context, uint32_t count, uint32_t ordinal)
{
    const struct model_path path = model_path_of(model, reply->place);
    uint8_t digest[SHA256_BYTES], message[10 + 8 + SHA256_BYTES + 4 * MODEL_NODE_COUNT];
    size_t size = 10;

    sha256_bytes(bytes_of(context, count * sizeof(*context)), digest);
    memcpy(message, "personad/1", 10);
    memcpy(message + size, &model->sessions[reply->place.session].seed, 8);
    memcpy(message + size + 8, digest, sizeof(digest));
    size += 8 + sizeof(digest);
    for (uint32_t i = 0; i < path.count; i++, size += 4) {
        memcpy(message + size, &model->nodes[path.nodes[i]].ordinal, 4);
    }
    memcpy(message + size, &ordinal, 4);
    sha256_bytes(bytes_of(message, size + 4), digest);
    return bytes_load_u64(digest);
}

/* The turn's earlier bytes. */
static uint32_t lead_in(const struct tree_model *model, const struct model_reply *reply,
                        uint8_t *out)
{
    const struct model_path path = model_path_of(model, reply->place);
    uint32_t first = path.count, size = 0;

    if (reply->opens_turn) {
        return 0;
    }
    do {
        first--;
    } while (first > 0 && !model->nodes[path.nodes[first]].opens_turn);
    for (uint32_t i = first; i < path.count; i++) {
        size += model_show(model, model->nodes[path.nodes[i]].ids, path.counts[i], out + size);
    }
    return size;
}

/* Where the first stop that ends behind `from` begins, or UINT32_MAX. */
static uint32_t find_stop(const uint8_t *text, uint32_t from, uint32_t size, struct bytes stop)
{
    for (uint32_t end = from + 1; stop.size > 0 && end <= size; end++) {
        if (end >= stop.size && memcmp(text + end - stop.size, stop.data, stop.size) == 0) {
            return end - (uint32_t)stop.size;
        }
    }
    return UINT32_MAX;
}

void model_cut(struct tree_model *model, struct model_node *node, uint32_t cut_bytes)
{
    uint8_t text[MODEL_CONTENT_MAX * 4];
    uint32_t at = 0;

    model_show(model, node->sampled, node->sampled_count, text);

    for (node->kept = 0; node->kept < node->sampled_count; node->kept++) {
        const size_t size = tokenizer_token_bytes(model->tokenizer, node->sampled[node->kept]).size;

        if (at + size > cut_bytes) {
            break;
        }
        at += (uint32_t)size;
    }
    memcpy(node->ids, node->sampled, node->kept * sizeof(*node->ids));
    node->count = node->kept;
    if (cut_bytes > at) {
        node->count +=
            model_encode(model, bytes_of(text + at, cut_bytes - at), false, node->ids + node->kept);
    }
}

static void sample(struct tree_model *model, struct model_node *node, const uint32_t *ids,
                   uint32_t count, const struct model_reply *reply, uint32_t prompt_count,
                   const uint32_t *history, uint32_t history_count)
{
    const struct step_list steps = {.count =
                                        model->step_counts[reply->is_greedy][reply->ignores_end]};
    const struct fake_expectation of = {ids, count, history, history_count, prompt_count};
    const struct plan_sample asked = {
        .steps = &steps, .seed = node->seed, .index = node->sampled_count};
    struct sample_result result;

    fake_expect(model->fake, &of, &asked, &result);
    node->sampled[node->sampled_count] = result.token;
    node->logprobs[node->sampled_count] = result.logprob;
    node->logprobs_sampler[node->sampled_count] = result.logprob_sampler;
    node->entropies[node->sampled_count++] = result.entropy;
}

/* What the penalties may look at: the context without frames. */
static uint32_t history_of(struct tree_model *model, const struct model_reply *reply,
                           uint32_t first_turn, uint32_t *out, uint32_t *prompt_count)
{
    const struct model_path path = model_path_of(model, reply->place);
    const bool is_plain = model->sessions[reply->place.session].is_plain;
    struct writing writing = {model, out, 0};
    uint32_t turn = 0;

    *prompt_count = is_plain ? 0 : write_prompt(&writing, false, false);
    for (uint32_t i = 0; i < path.count; i++) {
        turn += i > 0 && model->nodes[path.nodes[i]].opens_turn;
        if (turn >= first_turn) {
            write_ids(&writing, model->nodes[path.nodes[i]].ids, path.counts[i]);
        }
    }
    return writing.count;
}

static void predict(struct tree_model *model, const struct model_reply *reply,
                    struct model_node *node)
{
    static uint32_t ids[MODEL_CONTEXT_MAX], history[MODEL_CONTEXT_MAX];
    static uint8_t text[MODEL_CONTEXT_MAX * 4];
    const uint32_t room = model->sessions[reply->place.session].context_tokens;
    const uint32_t context = model_context(model, reply, ids, &node->first_turn);
    const uint32_t lead = lead_in(model, reply, text);
    uint32_t prompt_count = 0, size = lead;
    const uint32_t history_count =
        history_of(model, reply, node->first_turn, history, &prompt_count);

    CHECK(context > 0 && reply->max_tokens <= MODEL_SAMPLED_MAX);
    node->context_count = context;
    node->seed =
        reply->has_raw_seed ? reply->raw_seed : seed_of(model, reply, ids, context, node->ordinal);
    while (node->finish == NODE_GOING) {
        const uint32_t at = node->sampled_count;

        sample(model, node, ids, context + at, reply, prompt_count, history, history_count + at);
        ids[context + at] = history[history_count + at] = node->sampled[at];
        if (tokenizer_is_end(model->tokenizer, node->sampled[at]) && !reply->ignores_end) {
            node->finish = NODE_END;
            node->kept = node->count = at;
            memcpy(node->ids, node->sampled, at * sizeof(*node->ids));
            return;
        }
        const uint32_t from = size;
        size += model_show(model, &node->sampled[at], 1, text + size);
        const uint32_t stop = find_stop(text, from, size, reply->stop);
        if (stop != UINT32_MAX) {
            node->finish = NODE_CUE;
            model_cut(model, node, stop > lead ? stop - lead : 0);
        } else if (node->sampled_count == reply->max_tokens) {
            node->finish = NODE_LENGTH;
        } else if (context + node->sampled_count == room) {
            node->finish = NODE_CONTEXT;
        }
    }
    if (node->finish != NODE_CUE) {
        model_cut(model, node, size - lead);
    }
}

static struct model_node *add(struct tree_model *model, struct model_place place, uint32_t speaker,
                              bool opens_turn)
{
    struct model_node *node = &model->nodes[model->count];

    CHECK(model->count < MODEL_NODE_COUNT);
    *node = (struct model_node){
        .session = place.session,
        .parent = place.node,
        .parent_offset = place.offset,
        .ordinal = model_next_ordinal(model, place),
        .speaker = speaker,
        .opens_turn = opens_turn,
    };
    return node;
}

struct model_node *model_give(struct tree_model *model, struct model_place place, uint32_t speaker,
                              bool opens_turn, const uint32_t *ids, uint32_t count)
{
    struct model_node *node = add(model, place, speaker, opens_turn);

    CHECK(count <= MODEL_CONTENT_MAX);
    node->origin = ORIGIN_GIVEN;
    node->finish = NODE_WHOLE;
    node->has_ended = true;
    node->count = node->seen = count;
    if (count > 0) {
        memcpy(node->ids, ids, count * sizeof(*ids));
    }
    model->count++;
    return node;
}

struct model_node *model_generate(struct tree_model *model, const struct model_reply *reply,
                                  uint32_t sibling)
{
    struct model_node *node = add(model, reply->place, reply->speaker, reply->opens_turn);
    struct model_reply own = *reply;

    node->origin = ORIGIN_SAMPLED;
    own.raw_seed += sibling;
    predict(model, &own, node);
    model->count++;
    return node;
}

/* ---- edits ---- */

bool model_edit(struct tree_model *model, const struct model_node *node, uint32_t from_byte,
                uint32_t to_byte, struct bytes text, struct model_edit *out)
{
    const uint32_t count = node->has_ended ? node->count : node->seen;
    uint8_t shown[4 * MODEL_CONTENT_MAX], middle[8 * MODEL_CONTENT_MAX];
    uint32_t at = 0, size = 0, i = 0;

    model_show(model, node->ids, count, shown);
    memset(out, 0, sizeof(*out));
    for (; i < count; i++) {
        const size_t bytes = tokenizer_token_bytes(model->tokenizer, node->ids[i]).size;

        if (at + bytes > from_byte) {
            break;
        }
        at += (uint32_t)bytes;
    }
    out->prefix_count = i;
    memcpy(middle, shown + at, from_byte - at);
    size = from_byte - at;
    memcpy(middle + size, text.data, text.size);
    size += (uint32_t)text.size;
    for (; i < count && at < to_byte; i++) {
        at += (uint32_t)tokenizer_token_bytes(model->tokenizer, node->ids[i]).size;
    }
    out->suffix_first = i;
    if (at > to_byte) {
        memcpy(middle + size, shown + to_byte, at - to_byte);
        size += at - to_byte;
    }
    memcpy(out->ids, node->ids, out->prefix_count * sizeof(*out->ids));
    if (size > 0) {
        out->middle_count =
            model_encode(model, bytes_of(middle, size), utf8_is_valid(bytes_of(middle, size)),
                         out->ids + out->prefix_count);
    }
    out->count = out->prefix_count + out->middle_count;
    memcpy(out->ids + out->count, node->ids + i, (count - i) * sizeof(*out->ids));
    out->count += count - i;
    return out->count > 0 && out->count <= MODEL_CONTENT_MAX;
}
