#include "unit/session/store_rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"

static void copy_text(char *out, size_t size, struct bytes text)
{
    const size_t part = text.size < size - 1 ? text.size : size - 1;

    if (part > 0) {
        memcpy(out, text.data, part);
    }
    out[part] = '\0';
}

static void copy_nodes(struct rig_reply *copy, const struct node_view *nodes, uint32_t count)
{
    CHECK(count <= RIG_NODE_COUNT_MAX);
    if (count > 0) {
        memcpy(copy->nodes, nodes, count * sizeof(*nodes));
    }
    copy->node_count = count;
}

static void note_reply(struct rig *rig, const struct reply *reply)
{
    rig->file_at = reply->type == REPLY_EXPORT ? reply->u.exported.data.data : NULL;
    rig->reply_count++;
    if (rig->watch != NULL) {
        rig->watch(rig);
    }
}

static void copy_expanded(struct rig_reply *copy, const struct expand_view *view)
{
    copy->expanded = *view;
    CHECK(view->new_count <= sizeof(copy->expanded_nodes) / sizeof(copy->expanded_nodes[0]));
    for (uint32_t i = 0; i < view->new_count; i++) {
        copy->expanded_nodes[i] = view->nodes[i];
    }
}

static void copy_scored(struct rig_reply *copy, const struct score_view *view)
{
    copy->item_count = view->item_count;
    for (uint32_t i = 0; i < 8 && i < view->option_counts[0]; i++) {
        copy->scored[i] = view->options[i];
    }
}

static void copy_list(struct rig_reply *copy, const struct reply *reply)
{
    if (reply->type == REPLY_PERSONA_LIST) {
        copy->item_count = reply->u.personas.count;
        copy->end = reply->u.personas.end;
    } else if (reply->type == REPLY_BOOKMARK_LIST) {
        copy->item_count = reply->u.bookmarks.count;
        copy->end = reply->u.bookmarks.end;
    } else {
        copy->item_count = reply->u.sessions.count;
        copy->end = reply->u.sessions.end;
        if (copy->item_count > 0) {
            copy->session = reply->u.sessions.items[0];
            copy_text(copy->text, sizeof(copy->text), copy->session.label);
        }
    }
}

static void copy_file(struct rig_reply *copy, const struct reply *reply)
{
    copy->end = reply->u.exported.end;
    copy->file_bytes = (uint32_t)reply->u.exported.data.size;
    CHECK(copy->file_bytes <= RIG_FILE_BYTES_MAX);
    memcpy(copy->file, reply->u.exported.data.data, copy->file_bytes);
}

static void on_reply(void *context, struct reply_to to, const struct reply *reply, bool more)
{
    struct rig *rig = context;
    struct rig_reply *copy = &rig->reply;

    note_reply(rig, reply);
    memset(copy, 0, offsetof(struct rig_reply, nodes));
    copy->type = reply->type;
    copy->request = to.request;
    copy->more = more;
    copy->error = reply->error;
    switch (reply->type) {
    case REPLY_PERSONA:
        copy->persona = reply->u.persona.persona;
        copy->id = copy->persona.id;
        copy_text(copy->card, sizeof(copy->card), reply->u.persona.card);
        break;
    case REPLY_SESSION:
        copy->session = reply->u.session.session;
        copy->id = copy->session.id;
        copy_nodes(copy, reply->u.session.greetings, reply->u.session.greeting_count);
        break;
    case REPLY_CREATED:
        copy_nodes(copy, reply->u.created.nodes, reply->u.created.count);
        copy->context_count = reply->u.created.context_count;
        CHECK(copy->context_count <= RIG_CONTEXT_COUNT_MAX);
        if (copy->context_count > 0) {
            memcpy(copy->context, reply->u.created.context, copy->context_count * 4);
        }
        break;
    case REPLY_WALK:
        copy_nodes(copy, reply->u.walk.nodes, reply->u.walk.count);
        copy->end = reply->u.walk.end;
        break;
    case REPLY_PERSONA_LIST:
    case REPLY_SESSION_LIST:
    case REPLY_BOOKMARK_LIST:
        copy_list(copy, reply);
        break;
    case REPLY_HEAD:
        copy->head = reply->u.head;
        break;
    case REPLY_TOKENS:
        copy->context_count = reply->u.tokens.count;
        memcpy(copy->context, reply->u.tokens.ids, reply->u.tokens.count * 4);
        break;
    case REPLY_TEXT:
        copy_text(copy->text, sizeof(copy->text), reply->u.text);
        break;
    case REPLY_INFO:
        copy_text(copy->text, sizeof(copy->text), reply->u.info.chat_format);
        break;
    case REPLY_VERIFY:
        copy->verify = reply->u.verify;
        if (reply->u.verify.new_count > 0) {
            copy->verified = reply->u.verify.nodes[0];
        }
        break;
    case REPLY_EXPAND:
        copy_expanded(copy, &reply->u.expand);
        break;
    case REPLY_EXPORT:
        copy_file(copy, reply);
        break;
    case REPLY_SCORE:
        copy_scored(copy, &reply->u.score);
        break;
    default:
        break;
    }
}

static bool is_awaited(void *context, struct reply_to to)
{
    const struct rig *rig = context;

    (void)to;
    return !rig->is_deserted;
}

static void on_follow(void *context, struct reply_to to, const struct follow *follow)
{
    struct rig *rig = context;

    (void)to;
    rig->follow_count++;
    rig->followed_node_count = follow->node_count;
    CHECK(follow->node_count <= RIG_NODE_COUNT_MAX);
    memcpy(rig->followed, follow->nodes, follow->node_count * sizeof(uint64_t));
    for (uint32_t i = 0; i < follow->node_count; i++) {
        store_node_follow(rig->store, follow->nodes[i]);
    }
}

static void on_progress(void *context, uint64_t node)
{
    struct rig *rig = context;

    CHECK(node != 0);
    rig->progress_count++;
    if (rig->watch != NULL) {
        rig->watch(rig);
    }
}

void rig_restart(struct rig *rig, const char *chat_format)
{
    struct store_settings settings = {
        .tokenizer = rig->tokenizer,
        .model_hash = rig->model_hash,
        .numerics_id = "test/1",
        .chat_format = chat_format,
        .context_token_count_max = 2048,
        .events = {rig, on_reply, on_follow, on_progress, is_awaited, NULL},
    };
    struct error error = {0};

    store_destroy(rig->store);
    if (rig->engine != NULL) {
        fake_engine_destroy(rig->engine);
    }
    journal_close(rig->journal);
    rig->engine = fake_engine_create(rig->tokenizer);
    CHECK(journal_open(NULL, NULL, &rig->journal) == STATUS_OK);
    settings.engine = rig->engine;
    settings.journal = rig->journal;
    rig->store = NULL;
    if (store_create(&settings, &error, &rig->store) != STATUS_OK) {
        fprintf(stderr, "store: %s\n", error.text);
        abort();
    }
    rig->reply_count = 0;
    rig->follow_count = 0;
    rig->progress_count = 0;
}

void rig_init(struct rig *rig, const char *vocabulary, const char *chat_format)
{
    struct error error = {0};

    memset(rig, 0, sizeof(*rig));
    vocabulary_fixture_load(vocabulary, 0, &rig->vocabulary);
    if (tokenizer_create(&rig->vocabulary.vocabulary, &error, &rig->tokenizer) != STATUS_OK) {
        fprintf(stderr, "tokenizer: %s\n", error.text);
        abort();
    }
    rig_restart(rig, chat_format);
}

void rig_finish(struct rig *rig)
{
    store_destroy(rig->store);
    fake_engine_destroy(rig->engine);
    journal_close(rig->journal);
    tokenizer_destroy(rig->tokenizer);
    vocabulary_fixture_free(&rig->vocabulary);
}

void rig_settle(struct rig *rig)
{
    for (int i = 0; i < 4 || store_has_work(rig->store); i++) {
        journal_step(rig->journal);
        store_pump(rig->store);
    }
}

void rig_execute(struct rig *rig, struct request request)
{
    const struct reply_to to = {1, ++rig->next_request};

    store_execute(rig->store, &request, to);
    rig_settle(rig);
}

struct request rig_request(enum request_type type)
{
    return (struct request){.type = type, .uid = RIG_UID};
}

uint64_t rig_put(struct rig *rig, const char *card)
{
    struct request request = rig_request(REQUEST_PERSONA_PUT);

    request.u.persona_put.card = bytes_of_text(card);
    rig_execute(rig, request);
    if (rig->reply.type != REPLY_PERSONA) {
        fprintf(stderr, "put: %s\n", rig->reply.error.text);
        abort();
    }
    return rig->reply.id;
}

uint64_t rig_open_session(struct rig *rig, uint64_t persona)
{
    struct request request = rig_request(REQUEST_SESSION_OPEN);

    request.u.session_open.persona = persona;
    request.u.session_open.has_seed = true;
    request.u.session_open.seed = 7;
    rig_execute(rig, request);
    if (rig->reply.type != REPLY_SESSION) {
        fprintf(stderr, "open: %s\n", rig->reply.error.text);
        abort();
    }
    return rig->reply.id;
}

struct request rig_say(uint64_t session, const char *text)
{
    struct request request = rig_request(REQUEST_SAY);

    request.u.say.session = session;
    request.u.say.text = bytes_of_text(text);
    request.u.say.generation.n = 1;
    return request;
}

struct request rig_generate(uint64_t session, uint32_t n)
{
    struct request request = rig_request(REQUEST_GENERATE);

    request.u.generate.session = session;
    request.u.generate.generation.n = n;
    return request;
}

struct request rig_append(uint64_t session, const char *text)
{
    struct request request = rig_request(REQUEST_APPEND);

    request.u.append.session = session;
    request.u.append.text = bytes_of_text(text);
    return request;
}

struct node_view rig_view(struct rig *rig, uint64_t node)
{
    struct node_view view;
    struct error error = {0};

    if (store_node_view(rig->store, RIG_UID, node, &error, &view) != STATUS_OK) {
        fprintf(stderr, "view: %s\n", error.text);
        abort();
    }
    return view;
}

const char *rig_names(struct rig *rig, const uint32_t *ids, uint32_t count)
{
    static char text[65536];
    size_t at = 0;

    for (uint32_t i = 0; i < count; i++) {
        struct bytes name = tokenizer_token_bytes(rig->tokenizer, ids[i]);

        if (name.size == 0) {
            name = tokenizer_token_name(rig->tokenizer, ids[i]);
        }
        CHECK(at + name.size < sizeof(text));
        memcpy(text + at, name.data, name.size);
        at += name.size;
    }
    text[at] = '\0';
    return text;
}

const char *rig_context(struct rig *rig, uint32_t branch)
{
    CHECK(branch < rig->engine->branch_count);
    return rig_names(rig, rig->engine->branches[branch].context,
                     rig->engine->branches[branch].context_count);
}
