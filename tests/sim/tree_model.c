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
    model->vocabulary_count = tokenizer_vocabulary(tokenizer)->token_count;
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

/* ---- looks ---- */

static struct fake_expectation behind(const uint32_t *ids, uint32_t count)
{
    return (struct fake_expectation){.ids = ids, .count = count, .history = ids};
}

void model_look(const struct tree_model *model, const uint32_t *ids, uint32_t count, uint32_t token,
                float *logprob, float *entropy)
{
    const struct fake_expectation of = behind(ids, count);
    const struct plan_sample asked = {.flags = PLAN_SAMPLE_GIVEN, .given = token};
    struct sample_result result;

    fake_expect(model->fake, &of, &asked, &result);
    *logprob = result.logprob;
    *entropy = result.entropy;
}

void model_tops(const struct tree_model *model, const uint32_t *ids, uint32_t count,
                uint32_t top_count, struct sample_result *out)
{
    const struct fake_expectation of = behind(ids, count);
    const struct plan_sample asked = {
        .flags = PLAN_SAMPLE_GIVEN, .given = PLAN_GIVEN_NONE, .top_count = top_count};

    fake_expect(model->fake, &of, &asked, out);
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

/* Where a line begins that is a name alone up to `end`, and what stands in front of it goes too;
 * UINT32_MAX: it is none. */
static uint32_t name_line(const struct model_session *session, const uint8_t *text, uint32_t end)
{
    uint32_t begin = end;

    while (begin > 0 && text[begin - 1] != '\n') {
        begin--;
    }
    for (uint32_t i = 0; i < session->speaker_count; i++) {
        const char *name = session->members[i].name;

        if (end - begin == strlen(name) && memcmp(text + begin, name, end - begin) == 0) {
            return begin > 0 ? begin - 1 : 0;
        }
    }
    return UINT32_MAX;
}

static uint32_t without_spaces(const uint8_t *text, uint32_t end)
{
    while (end > 0 && text[end - 1] == ' ') {
        end--;
    }
    return end;
}

/* Where the first stop that ends behind `from` begins, or UINT32_MAX: a stop string, or a line that
 * is a speaker's name, with a colon or alone. */
static uint32_t find_stop(const struct model_session *session, bool has_names, const uint8_t *text,
                          uint32_t from, uint32_t size, struct bytes stop)
{
    for (uint32_t end = from + 1; end <= size; end++) {
        const uint8_t last = text[end - 1];
        uint32_t found = UINT32_MAX;

        if (stop.size > 0 && end >= stop.size &&
            memcmp(text + end - stop.size, stop.data, stop.size) == 0) {
            found = end - (uint32_t)stop.size;
        }
        if (has_names && (last == ':' || last == '\n')) {
            const uint32_t line =
                name_line(session, text, last == ':' ? end - 1 : without_spaces(text, end - 1));

            found = line < found ? line : found;
        }
        if (found != UINT32_MAX) {
            return found;
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

/* The tokens that leave the text a beginning of a choice; where it is one already, an end too. */
static void allow(const struct tree_model *model, const struct model_reply *reply,
                  const uint8_t *text, uint32_t size, uint32_t *mask)
{
    for (uint32_t token = 0; token < model->vocabulary_count; token++) {
        const struct bytes bytes = tokenizer_token_bytes(model->tokenizer, token);
        bool is_allowed = false;

        for (uint32_t i = 0; i < reply->choice_count; i++) {
            const struct bytes choice = reply->choices[i];
            const bool begins =
                size <= choice.size && (size == 0 || memcmp(choice.data, text, size) == 0);
            const bool goes_on = begins && bytes.size > 0 && size + bytes.size <= choice.size &&
                                 memcmp(choice.data + size, bytes.data, bytes.size) == 0;

            is_allowed =
                is_allowed || goes_on ||
                (begins && size == choice.size && tokenizer_is_end(model->tokenizer, token));
        }
        if (is_allowed) {
            mask[token / 32] |= 1U << token % 32;
        }
    }
}

/* The text is a choice, and no other goes on from there. */
static bool is_chosen(const struct model_reply *reply, const uint8_t *text, uint32_t size)
{
    bool is_whole = false;

    for (uint32_t i = 0; i < reply->choice_count; i++) {
        const struct bytes choice = reply->choices[i];

        if (size <= choice.size && (size == 0 || memcmp(choice.data, text, size) == 0)) {
            if (size < choice.size) {
                return false;
            }
            is_whole = true;
        }
    }
    return is_whole;
}

/* One reply in the making. */
struct predicting {
    struct tree_model *model;
    const struct model_reply *reply;
    struct model_node *node;
    uint32_t sibling;
    uint8_t text[MODEL_CONTEXT_MAX * 4]; /* of its turn */
    uint32_t lead, size;                 /* bytes of it that stood there before; all of them */
    uint32_t ids[MODEL_CONTEXT_MAX], history[MODEL_CONTEXT_MAX];
    uint32_t count, history_count, prompt_count;
};

static void sample(struct predicting *predicting)
{
    const struct model_reply *reply = predicting->reply;
    struct model_node *node = predicting->node;
    const uint32_t at = node->sampled_count;
    const uint32_t group[2] = {(uint32_t)reply->group_seed, (uint32_t)(reply->group_seed >> 32)};
    const struct fake_expectation of = {predicting->ids, predicting->count, predicting->history,
                                        predicting->history_count, predicting->prompt_count};
    struct step_list steps = {
        .count = predicting->model->step_counts[reply->is_greedy][reply->ignores_end] +
                 (reply->choice_count > 0) + reply->is_distinct};
    uint32_t mask[8] = {0};
    struct plan_sample asked = {.steps = &steps, .seed = node->seed, .index = at};
    struct sample_result result;

    if (reply->is_distinct) {
        steps.steps[steps.count - 1] = (struct step){
            .type = STEP_DISTINCT, .count = predicting->sibling, .list_count = 2, .ids = group};
    }
    if (reply->choice_count > 0) {
        CHECK(predicting->model->vocabulary_count <= 8 * 32);
        allow(predicting->model, reply, predicting->text + predicting->lead,
              predicting->size - predicting->lead, mask);
        asked.mask = mask;
    }
    fake_expect(predicting->model->fake, &of, &asked, &result);
    node->sampled[at] = result.token;
    node->logprobs[at] = result.logprob;
    node->logprobs_sampler[at] = result.logprob_sampler;
    node->entropies[at] = result.entropy;
    node->sampled_count++;
    predicting->ids[predicting->count++] = result.token;
    predicting->history[predicting->history_count++] = result.token;
}

/* It ends for that reason, unless the last line turns out to be a name. */
static void end(struct predicting *predicting, enum node_finish finish)
{
    struct model_node *node = predicting->node;
    const struct model_session *session =
        &predicting->model->sessions[predicting->reply->place.session];
    const bool has_names = model_play(session, node->speaker) != CAST_PLAIN;
    const uint32_t lead = predicting->lead;
    const uint32_t size = without_spaces(predicting->text, predicting->size);
    const uint32_t line = has_names && predicting->size > lead
                              ? name_line(session, predicting->text, size)
                              : UINT32_MAX;

    node->finish = finish;
    if (line != UINT32_MAX) {
        node->finish = NODE_CUE;
        model_cut(predicting->model, node, line > lead ? line - lead : 0);
        return;
    }
    model_cut(predicting->model, node, predicting->size - lead);
    if (finish == NODE_END &&
        tokenizer_is_end(predicting->model->tokenizer, node->sampled[node->sampled_count - 1]) &&
        !predicting->reply->ignores_end) {
        node->kept = node->count =
            node->sampled_count - 1; /* it shows nothing, and is no content */
    }
}

/* The next token, and what it ends. */
static void step(struct predicting *predicting)
{
    const struct model_reply *reply = predicting->reply;
    struct tree_model *model = predicting->model;
    struct model_node *node = predicting->node;
    const struct model_session *session = &model->sessions[reply->place.session];
    const uint32_t lead = predicting->lead, from = predicting->size;
    uint32_t stop, token;

    sample(predicting);
    token = node->sampled[node->sampled_count - 1];
    if (tokenizer_is_end(model->tokenizer, token) && !reply->ignores_end) {
        end(predicting, NODE_END);
        return;
    }
    predicting->size += model_show(model, &token, 1, predicting->text + from);
    stop = find_stop(session, model_play(session, node->speaker) != CAST_PLAIN, predicting->text,
                     from, predicting->size, reply->stop);
    if (stop != UINT32_MAX) {
        node->finish = NODE_CUE;
        model_cut(model, node, stop > lead ? stop - lead : 0);
    } else if (is_chosen(reply, predicting->text + lead, predicting->size - lead)) {
        end(predicting, NODE_END);
    } else if (node->sampled_count == reply->max_tokens) {
        end(predicting, NODE_LENGTH);
    } else if (predicting->count == session->context_tokens) {
        end(predicting, NODE_CONTEXT);
    }
}

static void predict(struct tree_model *model, struct model_reply *reply, uint32_t sibling,
                    struct model_node *node)
{
    static struct predicting predicting;
    const struct model_context *context = model_context(model, reply);

    CHECK(context->count > 0 && reply->max_tokens <= MODEL_SAMPLED_MAX);
    predicting.model = model;
    predicting.reply = reply;
    predicting.node = node;
    predicting.sibling = sibling;
    predicting.lead = predicting.size = lead_in(model, reply, predicting.text);
    predicting.count = context->count;
    predicting.history_count = context->history_count;
    predicting.prompt_count = context->prompt_count;
    memcpy(predicting.ids, context->ids, sizeof(predicting.ids));
    memcpy(predicting.history, context->history, sizeof(predicting.history));
    node->context_count = context->count;
    node->first_turn = context->first_turn;
    node->prompt = context->prompt;
    node->seed = reply->has_raw_seed
                     ? reply->raw_seed + sibling
                     : seed_of(model, reply, context->ids, context->count, node->ordinal);
    reply->group_seed = sibling == 0 ? node->seed : reply->group_seed;
    while (node->finish == NODE_GOING) {
        step(&predicting);
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
        .original = MODEL_ROOT,
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

struct model_node *model_generate(struct tree_model *model, struct model_reply *reply,
                                  uint32_t sibling)
{
    struct model_node *node = add(model, reply->place, reply->speaker, reply->opens_turn);

    node->origin = ORIGIN_SAMPLED;
    predict(model, reply, sibling, node);
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
