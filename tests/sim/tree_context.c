/* The naive twin's contexts: prompt, turns, frames and inserts as PERSONAS.md tells them, written
 * anew from the path each time. */
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "sim/tree_model.h"

enum { INSERT_COUNT_MAX = 40, INSERT_GUESS = 8, PROMPT_ROOM = 16, START = -1 };

struct insert {
    enum cast_role role;
    uint32_t turn; /* in front of which */
    const char *text;
    uint32_t count; /* tokens */
};

/* One context in the making. */
struct scene {
    struct tree_model *model;
    const struct model_reply *reply;
    const struct model_session *session;
    uint32_t viewpoint; /* the persona through whose eyes */
    enum cast_play play;
    struct model_path path;
    uint32_t turns[MODEL_NODE_COUNT]; /* where on the path each begins */
    uint32_t turn_count;
    struct insert inserts[INSERT_COUNT_MAX];
    uint32_t insert_count;
    bool is_open; /* the prompt ends in a preamble */
};

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

static void write_text(struct writing *writing, const char *text)
{
    uint32_t ids[MODEL_TEXT_MAX];

    write_ids(writing, ids, model_encode(writing->model, bytes_of_text(text), true, ids));
}

/* Special tokens are written out in the frames of chats. */
static void write_frame(struct writing *writing, const char *text)
{
    uint32_t ids[64];
    uint32_t count = 0;

    CHECK(tokenizer_encode_special(writing->model->tokenizer, writing->model->scratch,
                                   bytes_of_text(text), false, ids, 64, &count) == STATUS_OK);
    write_ids(writing, ids, count);
}

/* ---- the cast ---- */

static const struct cast_card *card_of(const struct model_session *session, uint32_t speaker)
{
    const int card = session->members[speaker].card;

    return card == CAST_NOBODY ? NULL : &cast_cards[card];
}

/* A persona sees by itself, a human is seen by the first persona. */
static uint32_t viewpoint_of(const struct model_session *session, uint32_t speaker)
{
    return card_of(session, speaker) != NULL ? speaker : 1;
}

enum cast_play model_play(const struct model_session *session, uint32_t speaker)
{
    return card_of(session, viewpoint_of(session, speaker))->play;
}

const char *model_lead(const struct model_session *session, uint32_t speaker)
{
    return model_play(session, speaker) == CAST_TRANSCRIPT ? " " : "";
}

static bool is_group(const struct model_session *session)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < session->speaker_count; i++) {
        uint32_t k = 0;

        while (strcmp(session->members[k].name, session->members[i].name) != 0) {
            k++;
        }
        count += k == i;
    }
    return count > 2;
}

/* Whether what `speaker` says stands on the model's side. */
static bool is_own(const struct scene *scene, uint32_t speaker)
{
    const struct model_session *session = scene->session;

    if (card_of(session, speaker) == NULL) {
        return false;
    }
    return session->is_joint ||
           strcmp(session->members[speaker].name, session->members[scene->viewpoint].name) == 0;
}

void model_render(const struct model_session *session, const char *text, char *out)
{
    size_t size = strlen(out);

    for (; *text != '\0'; text++) {
        const char letter[2] = {*text, '\0'};
        const char *piece = *text == '@' ? session->members[0].name : letter;

        CHECK(size + strlen(piece) < MODEL_TEXT_MAX);
        memcpy(out + size, piece, strlen(piece) + 1);
        size += strlen(piece);
    }
}

static void write_prompt(struct scene *scene, struct writing *writing)
{
    const struct model_session *session = scene->session;
    char text[MODEL_TEXT_MAX] = "";

    for (uint32_t i = 0; i < session->speaker_count; i++) {
        const struct cast_card *card = card_of(session, i);
        const bool is_meant =
            session->is_joint ? card != NULL && i < session->joint_count : i == scene->viewpoint;

        if (is_meant && card->system[0] != '\0') {
            model_render(session, text[0] != '\0' ? "\n\n" : "", text);
            model_render(session, card->system, text);
        }
    }
    scene->is_open = scene->play == CAST_TRANSCRIPT && text[0] != '\0';
    if (text[0] == '\0') {
        return;
    }
    write_frame(writing, scene->play == CAST_CHAT ? "<|im_start|>system\n" : "");
    write_text(writing, text);
    write_frame(writing, scene->play == CAST_CHAT ? "<|im_end|>\n" : "");
}

/* ---- inserts ---- */

/* Turns that came before the one that is written. */
static uint32_t written_turn(const struct scene *scene)
{
    return scene->reply->opens_turn ? scene->turn_count : scene->turn_count - 1;
}

static void insert(struct scene *scene, enum cast_role role, bool is_deep, uint32_t depth,
                   const char *text)
{
    const uint32_t written = written_turn(scene);
    uint32_t ids[MODEL_TEXT_MAX];
    struct insert made = {
        .role = role,
        .turn = is_deep && depth < written ? written - depth : 0,
        .text = text,
        .count = model_encode(scene->model, bytes_of_text(text), true, ids),
    };
    uint32_t at = scene->insert_count++;

    CHECK(scene->insert_count <= INSERT_COUNT_MAX);
    for (; at > 0 && scene->inserts[at - 1].turn > made.turn; at--) {
        scene->inserts[at] = scene->inserts[at - 1];
    }
    scene->inserts[at] = made;
}

/* Whether one of the keys, parted by '|', stands in one of the last turns before the written one.
 * Their letters may be of either case: the vocabulary has small ones only. */
static bool is_said(const struct scene *scene, const char *keys, uint32_t depth)
{
    const uint32_t end = written_turn(scene);
    static uint8_t text[MODEL_CONTEXT_MAX * 4];

    for (uint32_t turn = end > depth ? end - depth : 0; turn < end; turn++) {
        const uint32_t last =
            turn + 1 < scene->turn_count ? scene->turns[turn + 1] : scene->path.count;
        uint32_t size = 0;

        for (uint32_t i = scene->turns[turn]; i < last; i++) {
            const struct model_node *node = &scene->model->nodes[scene->path.nodes[i]];

            size += model_show(scene->model, node->ids, scene->path.counts[i], text + size);
        }
        for (const char *key = keys; key != NULL;) {
            const size_t length = strcspn(key, "|");

            if (memmem(text, size, key, length) != NULL) {
                return true;
            }
            key = key[length] == '|' ? key + length + 1 : NULL;
        }
    }
    return false;
}

/* What is active and fits the budget, the most important first; then by its order. */
static void insert_lore(struct scene *scene, const struct cast_card *card)
{
    uint32_t left = card->lore_budget > 0 ? card->lore_budget : scene->session->context_tokens / 4;
    bool is_left[CAST_LORE_COUNT] = {false}, is_in[CAST_LORE_COUNT] = {false};
    uint32_t ids[MODEL_TEXT_MAX];

    for (uint32_t i = 0; i < card->lore_count; i++) {
        const struct cast_lore *lore = &card->lore[i];

        is_left[i] = lore->key == NULL ||
                     (is_said(scene, lore->key, lore->scan_depth) &&
                      (lore->second == NULL || is_said(scene, lore->second, lore->scan_depth)));
    }
    for (;;) {
        uint32_t best = card->lore_count;

        for (uint32_t i = 0; i < card->lore_count; i++) {
            if (is_left[i] &&
                (best == card->lore_count || card->lore[i].priority > card->lore[best].priority)) {
                best = i;
            }
        }
        if (best == card->lore_count || left == 0) {
            break;
        }
        const uint32_t count =
            model_encode(scene->model, bytes_of_text(card->lore[best].text), true, ids);
        is_left[best] = false;
        is_in[best] = count <= left;
        left -= is_in[best] ? count : 0;
    }
    for (int order = 0; order < 10; order++) {
        for (uint32_t i = 0; i < card->lore_count; i++) {
            const struct cast_lore *lore = &card->lore[i];

            if (is_in[i] && lore->order == order) {
                insert(scene, lore->role, lore->is_deep, lore->depth, lore->text);
            }
        }
    }
}

const struct model_note *model_note_at(const struct tree_model *model, struct model_place place)
{
    const struct model_session *session = &model->sessions[place.session];
    static struct model_path path;
    const struct model_note *found = NULL;

    path = model_path_of(model, place);
    for (int i = -1; i < (int)path.count; i++) {
        const int node = i < 0 ? MODEL_ROOT : path.nodes[i];
        const int original = i < 0 ? MODEL_ROOT : model->nodes[node].original;
        const struct model_note *here = NULL;

        for (uint32_t k = 0; k < MODEL_NOTE_COUNT; k++) {
            const struct model_note *note = &session->notes[k];
            const bool is_own = note->node == node && (i < 0 || note->offset <= path.counts[i]);

            if (!note->is_there ||
                !(is_own || (original != MODEL_ROOT && note->node == original))) {
                continue;
            }
            /* The last on the way; at one place the node's own. */
            if (here == NULL || note->offset > here->offset ||
                (note->offset == here->offset && is_own)) {
                here = note;
            }
        }
        found = here != NULL ? here : found;
    }
    return found != NULL && found->text[0] != '\0' ? found : NULL;
}

static void list_inserts(struct scene *scene)
{
    const struct model_session *session = scene->session;
    const struct cast_card *own = card_of(session, scene->viewpoint);
    const struct model_note *note = model_note_at(scene->model, scene->reply->place);

    if (scene->play == CAST_PLAIN) {
        return;
    }
    for (uint32_t i = 0; i < session->speaker_count; i++) {
        if (session->is_joint ? card_of(session, i) != NULL : i == scene->viewpoint) {
            insert_lore(scene, card_of(session, i));
        }
    }
    for (uint32_t i = 0; i < session->speaker_count; i++) {
        const struct cast_card *card = card_of(session, i);

        if (card != NULL && card->note != NULL && (session->is_joint || i == scene->viewpoint)) {
            insert(scene, card->note_role, true, card->note_depth, card->note);
        }
    }
    if (note != NULL) {
        insert(scene, (enum cast_role)note->role, true, note->depth, note->text);
    }
    if (scene->reply->speaker == scene->viewpoint && own->instruction != NULL) {
        insert(scene, CAST_SYSTEM, true, 0, own->instruction);
    }
}

/* ---- turns ---- */

static void write_insert(const struct scene *scene, struct writing *writing,
                         const struct insert *made)
{
    static const char *const opens[] = {"<|im_start|>system\n", "<|im_start|>user\n",
                                        "<|im_start|>assistant\n"};

    write_frame(writing, scene->play == CAST_CHAT ? opens[made->role] : "(");
    write_text(writing, made->text);
    write_frame(writing, scene->play == CAST_CHAT ? "<|im_end|>\n" : ")\n");
}

static void write_open(const struct scene *scene, struct writing *writing, uint32_t speaker)
{
    const bool is_mine = is_own(scene, speaker);
    const char *name = scene->session->members[speaker].name;

    if (scene->play == CAST_TRANSCRIPT) {
        write_text(writing, name);
        write_text(writing, ":");
        return;
    }
    write_frame(writing, is_mine ? "<|im_start|>assistant\n" : "<|im_start|>user\n");
    if (is_group(scene->session) && (!is_mine || scene->session->is_joint)) {
        write_text(writing, name);
        write_text(writing, ":\n");
    }
}

/* What ends the turn before (START: the prompt), stands between, and opens the next one. */
static void write_gap(const struct scene *scene, struct writing *writing, uint32_t turn,
                      uint32_t first, uint32_t speaker, bool has_inserts)
{
    const char *close = scene->play == CAST_CHAT ? "<|im_end|>\n" : "\n";

    if (scene->play == CAST_PLAIN) {
        return;
    }
    if (turn == first) {
        close = scene->is_open ? "\n\n" : "";
    }
    for (uint32_t i = 0; i < scene->insert_count && has_inserts; i++) {
        const uint32_t at = scene->inserts[i].turn > first ? scene->inserts[i].turn : first;

        if (at == turn) {
            write_frame(writing, close);
            write_insert(scene, writing, &scene->inserts[i]);
            close = "";
        }
    }
    write_frame(writing, close);
    write_open(scene, writing, speaker);
}

/* Turns from number `first` on, and what opens the turn to come. */
static void write_turns(const struct scene *scene, struct writing *writing, uint32_t first,
                        bool has_inserts)
{
    for (uint32_t turn = first; turn < scene->turn_count; turn++) {
        const uint32_t end =
            turn + 1 < scene->turn_count ? scene->turns[turn + 1] : scene->path.count;
        const int opener = scene->path.nodes[scene->turns[turn]];

        write_gap(scene, writing, turn, first, scene->model->nodes[opener].speaker, has_inserts);
        for (uint32_t i = scene->turns[turn]; i < end; i++) {
            write_ids(writing, scene->model->nodes[scene->path.nodes[i]].ids,
                      scene->path.counts[i]);
        }
    }
    if (scene->reply->opens_turn) {
        write_gap(scene, writing, scene->turn_count, first, scene->reply->speaker, has_inserts);
    }
}

static uint32_t count_turns(const struct scene *scene, uint32_t first, bool has_inserts)
{
    struct writing writing = {scene->model, NULL, 0};

    write_turns(scene, &writing, first, has_inserts);
    return writing.count;
}

/* Nothing stands before the first token that a model samples, so it gets one to start from. */
static bool needs_start(const struct scene *scene)
{
    if (scene->play != CAST_PLAIN) {
        return false;
    }
    for (uint32_t i = 0; i < scene->path.count; i++) {
        if (scene->path.counts[i] > 0) {
            return scene->model->nodes[scene->path.nodes[i]].origin == ORIGIN_SAMPLED;
        }
    }
    return true;
}

/* ---- the window ---- */

/* The cut of the nearest reply on the way behind the same prompt, of the same speaker where they do
 * not share one view. */
static uint32_t inherited_turn(const struct scene *scene, uint64_t prompt)
{
    for (uint32_t i = scene->path.count; i > 0; i--) {
        const struct model_node *node = &scene->model->nodes[scene->path.nodes[i - 1]];

        if (node->origin == ORIGIN_SAMPLED && node->prompt == prompt &&
            (scene->session->is_joint || node->speaker == scene->reply->speaker)) {
            return node->first_turn;
        }
    }
    return 0;
}

/* While turns and reply fit the room nothing moves; then whole turns go until half of it is free.
 * What frames inserts is guessed, and where it is more, another turn goes. UINT32_MAX: what must
 * stay does not fit. */
static uint32_t place_window(const struct scene *scene, uint32_t prompt_count, uint64_t prompt)
{
    const uint32_t length = scene->session->context_tokens;
    const uint32_t stay = scene->reply->opens_turn ? 1 : 2;
    const uint32_t last = scene->turn_count > stay ? scene->turn_count - stay : 0;
    uint32_t front = prompt_count + needs_start(scene);
    uint32_t first = inherited_turn(scene, prompt);

    for (uint32_t i = 0; i < scene->insert_count; i++) {
        front += scene->inserts[i].count + INSERT_GUESS;
    }
    const uint32_t room = length > front ? length - front : 0;
    const uint32_t wanted = scene->reply->max_tokens;
    const uint32_t reserve = wanted < room / 2 ? wanted : room / 2;
    first = first < last ? first : last;
    if (count_turns(scene, first, false) + reserve > room) {
        while (first < last && count_turns(scene, first, false) > room - room / 2) {
            first++;
        }
    }
    if (count_turns(scene, first, false) >= room) {
        return UINT32_MAX;
    }
    while (scene->insert_count > 0 && prompt_count + count_turns(scene, first, true) + 1 > length) {
        if (first == last) {
            return UINT32_MAX;
        }
        first++;
    }
    return first;
}

/* ---- all of it ---- */

static void begin(struct scene *scene, struct tree_model *model, const struct model_reply *reply)
{
    memset(scene, 0, sizeof(*scene));
    scene->model = model;
    scene->reply = reply;
    scene->session = &model->sessions[reply->place.session];
    scene->viewpoint = viewpoint_of(scene->session, reply->speaker);
    scene->play = model_play(scene->session, reply->speaker);
    scene->path = model_path_of(model, reply->place);
    for (uint32_t i = 0; i < scene->path.count; i++) {
        if (i == 0 || model->nodes[scene->path.nodes[i]].opens_turn) {
            scene->turns[scene->turn_count++] = i;
        }
    }
    list_inserts(scene);
}

/* A name of a prompt: equal for equal ids. */
static uint64_t name_of(const uint32_t *ids, uint32_t count)
{
    uint64_t hash = UINT64_C(14695981039346656037);

    for (uint32_t i = 0; i < count; i++) {
        hash = (hash ^ ids[i]) * UINT64_C(1099511628211);
    }
    return hash;
}

static void write_history(const struct scene *scene, struct model_context *out)
{
    struct writing writing = {scene->model, out->history, out->prompt_count};
    uint32_t turn = 0;

    memcpy(out->history, out->ids, out->prompt_count * sizeof(*out->ids));
    for (uint32_t i = 0; i < scene->path.count; i++) {
        turn += turn + 1 < scene->turn_count && scene->turns[turn + 1] == i;
        if (turn >= out->first_turn) {
            write_ids(&writing, scene->model->nodes[scene->path.nodes[i]].ids,
                      scene->path.counts[i]);
        }
    }
    out->history_count = writing.count;
}

const struct model_context *model_context(struct tree_model *model, const struct model_reply *reply)
{
    static struct model_context out;
    static struct scene scene;
    struct writing writing = {model, out.ids, 0};
    const uint32_t start = tokenizer_find(model->tokenizer, bytes_of_text("<|endoftext|>"));

    begin(&scene, model, reply);
    write_prompt(&scene, &writing);
    out.prompt_count = writing.count;
    out.prompt = name_of(out.ids, writing.count);
    out.first_turn = place_window(&scene, out.prompt_count, out.prompt);
    out.count = 0;
    if (out.first_turn == UINT32_MAX) {
        return &out;
    }
    if (out.first_turn == 0 && needs_start(&scene)) {
        write_ids(&writing, &start, 1);
    }
    write_turns(&scene, &writing, out.first_turn, true);
    out.count = writing.count;
    write_history(&scene, &out);
    return &out;
}

bool model_prompt_fits(struct tree_model *model, const struct model_session *session)
{
    static struct scene scene;
    struct writing writing = {model, NULL, 0};

    scene.session = session;
    scene.viewpoint = 1;
    scene.play = model_play(session, 1);
    write_prompt(&scene, &writing);
    return writing.count + PROMPT_ROOM <= session->context_tokens;
}
