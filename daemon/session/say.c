#include "session/say.h"

#include "base/check.h"
#include "session/answer.h"
#include "session/change.h"

/* ---- text that enters ---- */

struct entering {
    struct place place;
    uint32_t speaker;
    struct bytes text;
    struct bytes before; /* of a token that was cut: in front of the text, maybe no characters */
    bool opens_turn;
    bool is_special;
};

/* SentencePiece puts a blank in front of the first text of a context, and only there. */
static bool is_at_start(const struct session *session, const struct entering *entering)
{
    const uint32_t viewpoint = cast_viewpoint(&session->cast, entering->speaker);
    const struct prompt *prompt = session->cast.members[viewpoint].prompt;

    return entering->place.node == &session->root && prompt->template.format == TEMPLATE_PLAIN &&
           prompt->ids.count <= 1;
}

static enum status encode(struct store *store, const struct session *session,
                          const struct entering *entering, struct error *error, struct id_list *ids)
{
    const bool at_start = is_at_start(session, entering);
    struct buffer text;
    enum status status;

    if (entering->is_special) {
        return encoder_frame(&store->encoder, entering->text, at_start, error, ids);
    }
    buffer_init(&text, TEXT_BYTES_MAX + 1);
    status = STATUS_OK;
    if (entering->opens_turn) {
        const uint32_t before = tree_turn_speaker(entering->place);

        status = buffer_append(&text, cast_lead(&session->cast, before, entering->speaker));
    }
    if (status == STATUS_OK) {
        status = buffer_append(&text, entering->before);
    }
    if (status == STATUS_OK) {
        status = buffer_append(&text, entering->text);
    }
    if (status == STATUS_LIMIT) {
        error_set_limit(error, "TEXT_BYTES_MAX", TEXT_BYTES_MAX,
                        "a text of %zu bytes is longer than %u", entering->text.size,
                        (unsigned)TEXT_BYTES_MAX);
    } else if (status != STATUS_OK) {
        error_set(error, status, "out of memory while a text was tokenised");
    } else if (utf8_is_valid(buffer_bytes(&text))) {
        status = encoder_text(&store->encoder, buffer_bytes(&text), at_start, error, ids);
    } else {
        status = encoder_bytes(&store->encoder, buffer_bytes(&text), ids);
        if (status != STATUS_OK) {
            error_set(error, status == STATUS_NOT_FOUND ? STATUS_BAD_INPUT : status,
                      "at_byte cuts a character, and what is left of it has no tokens");
            status = error->status;
        }
    }
    buffer_finish(&text);
    return status;
}

enum status say_encode(struct store *store, const struct session *session, struct place place,
                       uint32_t speaker, struct bytes text, bool opens_turn, struct error *error,
                       struct id_list *ids)
{
    const struct entering entering = {
        .place = place, .speaker = speaker, .text = text, .opens_turn = opens_turn};

    return encode(store, session, &entering, error, ids);
}

/* A given node for a text; *place moves behind it. */
static enum status give_text(struct change *change, const struct entering *entering,
                             struct place *place)
{
    struct id_list ids = {0};
    enum status status;

    if (entering->text.size == 0) {
        return error_set(change->error, STATUS_BAD_INPUT, "the text is empty");
    }
    status = encode(change->store, change->session, entering, change->error, &ids);
    if (status == STATUS_OK) {
        const struct change_given given = {
            .place = entering->place,
            .speaker = entering->speaker,
            .opens_turn = entering->opens_turn,
            .ids = ids.ids,
            .count = ids.count,
        };

        status = change_give(change, &given, place);
    }
    id_list_finish(&ids);
    return status;
}

/* ---- checks ---- */

enum status say_check_speaker(const struct session *session, uint32_t speaker, struct error *error)
{
    if (speaker >= session->cast.count) {
        return error_set(error, STATUS_BAD_INPUT, "there is no speaker %u: the cast has %u",
                         speaker, session->cast.count);
    }
    return STATUS_OK;
}

enum status say_check_continuing(struct place place, bool has_speaker, uint32_t *speaker,
                                 struct error *error)
{
    const uint32_t owner = tree_turn_speaker(place);

    if (owner == CAST_START) {
        return error_set(error, STATUS_CONFLICT,
                         "there is no turn to continue at the start of a session");
    }
    if (has_speaker && *speaker != owner) {
        return error_set(error, STATUS_BAD_INPUT,
                         "the turn to continue is speaker %u's, not speaker %u's", owner, *speaker);
    }
    *speaker = owner;
    return STATUS_OK;
}

/* ---- the reply ---- */

struct replying {
    struct place place;
    uint32_t speaker;
    bool opens_turn;
    const struct request_generation *generation;
};

static enum status add_reply(struct change *change, const struct replying *replying)
{
    struct generate_query query = {
        .session = change->session,
        .place = replying->place,
        .speaker = replying->speaker,
        .opens_turn = replying->opens_turn,
        .request = replying->generation,
    };

    if (replying->generation->prefix.size > 0) {
        const struct entering prefix = {
            .place = replying->place,
            .speaker = replying->speaker,
            .text = replying->generation->prefix,
            .opens_turn = replying->opens_turn,
        };

        TRY(give_text(change, &prefix, &query.place));
        query.opens_turn = false;
    }
    return change_generate(change, &query);
}

/* The reader follows what was made last: the first reply, or the text. */
static enum status commit(struct change *change, const struct request *request, struct reply_to to,
                          const struct request_generation *generation)
{
    struct node *head = change->nodes[generation != NULL ? change->given_count : change->count - 1];
    const struct change_answer answer = {
        .to = to,
        .type = request->type,
        .uid = request->uid,
        .key = request->client_key,
        .generation = generation,
        .head = head,
    };
    struct session *session = change->session;

    TRY(change_commit(change, &answer));
    session->head = head;
    session->head_offset = OFFSET_END;
    return STATUS_OK;
}

static enum status execute_say(struct store *store, const struct request *request,
                               struct reply_to to, struct change *change, struct error *error)
{
    const struct request_say *say = &request->u.say;
    struct entering entering = {.speaker = say->speaker, .text = say->text, .opens_turn = true};
    struct replying replying = {.opens_turn = true, .generation = &say->generation};
    struct session *session = NULL;

    TRY(state_session_open(store, say->session, request->uid, error, &session));
    TRY(state_place(store, session, say->has_position, say->position, error, &entering.place));
    TRY(say_check_speaker(session, say->speaker, error));
    replying.speaker =
        say->has_reply_speaker ? say->reply_speaker : cast_first_persona(&session->cast);
    TRY(say_check_speaker(session, replying.speaker, error));
    TRY(change_init(change, store, session, say->generation.n + 2, error));
    TRY(give_text(change, &entering, &replying.place));
    TRY(add_reply(change, &replying));
    return commit(change, request, to, &say->generation);
}

/* Goes back from that byte of the node's text to the last token boundary; *between: the bytes from
 * there to it. */
static enum status step_back(const struct store *store, uint32_t at_byte, struct place *place,
                             struct error *error, struct bytes *between)
{
    const struct tokenizer *tokenizer = store->settings.tokenizer;
    const struct bytes text = node_text_until(place->node, OFFSET_END, tokenizer);
    uint32_t count = 0;
    const uint32_t *ids = node_content(place->node, &count);
    size_t at = 0;

    if (at_byte > text.size) {
        return error_set(error, STATUS_BAD_INPUT,
                         "byte %u lies behind the %zu bytes that node %llu has", at_byte, text.size,
                         (unsigned long long)place->node->id);
    }
    for (place->offset = 0; place->offset < count; place->offset++) {
        const size_t size = tokenizer_token_bytes(tokenizer, ids[place->offset]).size;

        if (at + size > at_byte) {
            break;
        }
        at += size;
    }
    *between = bytes_of(text.data + at, at_byte - at);
    return STATUS_OK;
}

/* Generation goes on behind that byte, with the bytes in between prescribed. */
static enum status heal(const struct store *store, const struct request_generate *generate,
                        struct place *place, struct request_generation *generation,
                        struct error *error)
{
    struct bytes between;

    if (!generate->continuing || generation->prefix.size > 0) {
        return error_set(error, STATUS_BAD_INPUT,
                         "at_byte is for a reply that goes on (continuing), and without a prefix");
    }
    TRY(step_back(store, generate->at_byte, place, error, &between));
    if (between.size > 0) {
        generation->sampler.rule.forced = between;
    }
    return STATUS_OK;
}

static enum status execute_generate(struct store *store, const struct request *request,
                                    struct reply_to to, struct change *change, struct error *error)
{
    const struct request_generate *generate = &request->u.generate;
    struct request_generation generation = generate->generation;
    struct replying replying = {.opens_turn = !generate->continuing, .generation = &generation};
    struct session *session = NULL;

    TRY(state_session_open(store, generate->session, request->uid, error, &session));
    TRY(state_place(store, session, generate->has_position, generate->position, error,
                    &replying.place));
    if (generate->has_at_byte) {
        TRY(heal(store, generate, &replying.place, &generation, error));
    }
    replying.speaker =
        generate->has_speaker ? generate->speaker : cast_first_persona(&session->cast);
    if (generate->continuing) {
        TRY(say_check_continuing(replying.place, generate->has_speaker, &replying.speaker, error));
    }
    TRY(say_check_speaker(session, replying.speaker, error));
    TRY(change_init(change, store, session, generation.n + 1, error));
    TRY(add_reply(change, &replying));
    return commit(change, request, to, &generation);
}

static enum status execute_append(struct store *store, const struct request *request,
                                  struct reply_to to, struct change *change, struct error *error)
{
    const struct request_append *append = &request->u.append;
    struct entering entering = {
        .speaker = append->speaker,
        .text = append->text,
        .opens_turn = !append->continuing,
        .is_special = append->special,
    };
    struct session *session = NULL;
    struct place behind;

    TRY(state_session_open(store, append->session, request->uid, error, &session));
    TRY(state_place(store, session, append->has_position, append->position, error,
                    &entering.place));
    TRY(say_check_speaker(session, append->speaker, error));
    if (append->has_at_byte && (!append->continuing || append->special)) {
        return error_set(
            error, STATUS_BAD_INPUT,
            "at_byte is for text that goes on in a turn (continuing), and not special");
    }
    if (append->has_at_byte) {
        TRY(step_back(store, append->at_byte, &entering.place, error, &entering.before));
    }
    if (append->continuing) {
        TRY(say_check_continuing(entering.place, false, &entering.speaker, error));
    }
    TRY(change_init(change, store, session, 1, error));
    TRY(give_text(change, &entering, &behind));
    return commit(change, request, to, NULL);
}

static void run(struct store *store, const struct request *request, struct reply_to to,
                enum status (*execute)(struct store *store, const struct request *request,
                                       struct reply_to to, struct change *change,
                                       struct error *error))
{
    struct change change = {0};
    struct error error = {0};
    const enum status status = execute(store, request, to, &change, &error);

    change_finish(&change);
    if (status != STATUS_OK) {
        CHECK(error.status == status);
        answer_error(store, to, request->type, &error);
    }
}

void say_execute(struct store *store, const struct request *request, struct reply_to to)
{
    run(store, request, to, execute_say);
}

void say_generate(struct store *store, const struct request *request, struct reply_to to)
{
    run(store, request, to, execute_generate);
}

void say_append(struct store *store, const struct request *request, struct reply_to to)
{
    run(store, request, to, execute_append);
}
