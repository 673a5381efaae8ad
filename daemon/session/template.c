#include "session/template.h"

#include <string.h>

#include "base/check.h"
#include "limits.h"

enum { FRAME_BYTES_MAX = 4 * PERSONA_NAME_BYTES_MAX + 1024 };

/* Marks are the texts of a file's template by which a format is known; the tokens must be in the
 * vocabulary. In the order in which they are tried. */
static const struct known_format {
    enum template_format format;
    const char *name;
    const char *mark;
    const char *tokens[2]; /* NULL: written in ordinary tokens */
} known_formats[] = {
    {TEMPLATE_CHATML, "chatml", "<|im_start|>", {"<|im_start|>", "<|im_end|>"}},
    {TEMPLATE_LLAMA3, "llama3", "<|start_header_id|>", {"<|start_header_id|>", "<|eot_id|>"}},
    {TEMPLATE_GEMMA, "gemma", "<start_of_turn>", {"<start_of_turn>", "<end_of_turn>"}},
    {TEMPLATE_LLAMA2, "llama2", "<<SYS>>", {NULL, NULL}},
    {TEMPLATE_MISTRAL, "mistral", "[INST]", {NULL, NULL}},
};

enum { KNOWN_FORMAT_COUNT = sizeof(known_formats) / sizeof(known_formats[0]) };

const char *template_format_name(enum template_format format)
{
    for (size_t i = 0; i < KNOWN_FORMAT_COUNT; i++) {
        if (known_formats[i].format == format) {
            return known_formats[i].name;
        }
    }
    if (format == TEMPLATE_TRANSCRIPT) {
        return "transcript";
    }
    return format == TEMPLATE_PLAIN ? "plain" : "none";
}

static bool contains(struct bytes text, const char *mark)
{
    return text.size > 0 && memmem(text.data, text.size, mark, strlen(mark)) != NULL;
}

static bool has_tokens(const struct encoder *encoder, const struct known_format *known)
{
    for (size_t i = 0; i < 2; i++) {
        if (known->tokens[i] != NULL &&
            tokenizer_find(encoder->tokenizer, bytes_of_text(known->tokens[i])) == TOKEN_NONE) {
            return false;
        }
    }
    return true;
}

enum status template_detect(const struct encoder *encoder, const char *name, struct error *error,
                            enum template_format *out)
{
    const struct bytes chat_template = tokenizer_vocabulary(encoder->tokenizer)->chat_template;
    const bool is_auto = name == NULL || name[0] == '\0' || strcmp(name, "auto") == 0;

    if (!is_auto && strcmp(name, "none") == 0) {
        *out = TEMPLATE_NONE;
        return STATUS_OK;
    }
    for (size_t i = 0; i < KNOWN_FORMAT_COUNT; i++) {
        const struct known_format *known = &known_formats[i];

        if (is_auto ? contains(chat_template, known->mark) && has_tokens(encoder, known)
                    : strcmp(name, known->name) == 0) {
            if (!has_tokens(encoder, known)) {
                return error_set(error, STATUS_UNSUPPORTED,
                                 "chat format %s needs the tokens %s and %s, which this model's "
                                 "vocabulary does not have",
                                 name, known->tokens[0], known->tokens[1]);
            }
            *out = known->format;
            return STATUS_OK;
        }
    }
    if (!is_auto) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "chat format %s is not known: choose auto, chatml, llama2, llama3, "
                         "mistral, gemma or none",
                         name);
    }
    *out = TEMPLATE_NONE;
    return STATUS_OK;
}

void template_init(struct template *out, const struct encoder *encoder, enum template_format format)
{
    const struct vocabulary *vocabulary = tokenizer_vocabulary(encoder->tokenizer);

    memset(out, 0, sizeof(*out));
    out->format = format == TEMPLATE_NONE ? TEMPLATE_TRANSCRIPT : format;
    out->adds_bos = vocabulary->add_bos && vocabulary->bos != TOKEN_NONE;
    out->bos = vocabulary->bos;
    out->start_id = encoder_start_id(encoder);
    out->is_tight = vocabulary->kind == VOCABULARY_BPE;
    out->bos_text = tokenizer_token_name(encoder->tokenizer, vocabulary->bos);
    out->eos_text = tokenizer_token_name(encoder->tokenizer, vocabulary->eos);
}

struct template template_with_format(const struct template *from, enum template_format format)
{
    struct template copy = *from;

    copy.format = format;
    return copy;
}

static bool is_instruct(const struct template *template)
{
    return template->format == TEMPLATE_LLAMA2 || template->format == TEMPLATE_MISTRAL;
}

/* The formats whose system text lies inside the first user turn. */
static bool has_system_in_turn(const struct template *template)
{
    return is_instruct(template) || template->format == TEMPLATE_GEMMA;
}

struct bytes template_lead(const struct template *template, enum template_side side, bool is_open)
{
    const bool is_blank = template->format == TEMPLATE_TRANSCRIPT ||
                          template->format == TEMPLATE_LLAMA2 ||
                          (template->format == TEMPLATE_MISTRAL && !template->is_tight);

    if (!is_blank || (is_open && side == TEMPLATE_USER && has_system_in_turn(template))) {
        return bytes_of(NULL, 0);
    }
    return bytes_of_text(" ");
}

/* ---- the parts of a frame, as text ---- */

static enum status add_open(const struct template *template, const struct template_end *end,
                            struct buffer *text)
{
    const bool is_user = end->side == TEMPLATE_USER;

    switch (template->format) {
    case TEMPLATE_CHATML:
        return buffer_append_text(text, is_user ? "<|im_start|>user\n" : "<|im_start|>assistant\n");
    case TEMPLATE_LLAMA3:
        return buffer_append_text(text, is_user
                                            ? "<|start_header_id|>user<|end_header_id|>\n\n"
                                            : "<|start_header_id|>assistant<|end_header_id|>\n\n");
    case TEMPLATE_GEMMA:
        return buffer_append_text(text,
                                  is_user ? "<start_of_turn>user\n" : "<start_of_turn>model\n");
    case TEMPLATE_LLAMA2:
    case TEMPLATE_MISTRAL:
        return is_user ? buffer_append_text(text, "[INST]") : STATUS_OK;
    case TEMPLATE_TRANSCRIPT:
        TRY(buffer_append(text, end->name));
        return buffer_append_text(text, ":");
    default:
        return STATUS_OK;
    }
}

static enum status add_close(const struct template *template, enum template_side side,
                             struct buffer *text)
{
    if (side == TEMPLATE_START) {
        return STATUS_OK;
    }
    switch (template->format) {
    case TEMPLATE_CHATML:
        return buffer_append_text(text, "<|im_end|>\n");
    case TEMPLATE_LLAMA3:
        return buffer_append_text(text, "<|eot_id|>");
    case TEMPLATE_GEMMA:
        return buffer_append_text(text, "<end_of_turn>\n");
    case TEMPLATE_TRANSCRIPT:
        return buffer_append_text(text, "\n");
    case TEMPLATE_LLAMA2:
    case TEMPLATE_MISTRAL:
        if (side == TEMPLATE_USER) {
            return buffer_append_text(
                text, template->format == TEMPLATE_MISTRAL && template->is_tight ? "[/INST]"
                                                                                 : " [/INST]");
        }
        TRY(buffer_append(text, template->eos_text));
        return template->format == TEMPLATE_LLAMA2 ? buffer_append(text, template->bos_text)
                                                   : STATUS_OK;
    default:
        return STATUS_OK;
    }
}

/* Frame text becomes ids. Names stand in the frames of transcripts, and a name is only text. */
static enum status flush(const struct template *template, struct encoder *encoder,
                         struct buffer *text, bool at_start, struct error *error,
                         struct id_list *out)
{
    enum status status;

    if (template->format == TEMPLATE_TRANSCRIPT || template->format == TEMPLATE_PLAIN) {
        status = encoder_text(encoder, buffer_bytes(text), at_start, error, out);
    } else {
        status = encoder_frame(encoder, buffer_bytes(text), at_start, error, out);
    }
    text->size = 0;
    return status;
}

/* ---- the start of a prompt ---- */

static bool starts_with_bos(const struct template *template)
{
    return template->bos != TOKEN_NONE && (template->adds_bos || has_system_in_turn(template) ||
                                           template->format == TEMPLATE_LLAMA3);
}

static enum status add_system_open(const struct template *template, struct buffer *text)
{
    const struct template_end user = {.side = TEMPLATE_USER};

    switch (template->format) {
    case TEMPLATE_CHATML:
        return buffer_append_text(text, "<|im_start|>system\n");
    case TEMPLATE_LLAMA3:
        return buffer_append_text(text, "<|start_header_id|>system<|end_header_id|>\n\n");
    case TEMPLATE_LLAMA2:
        return buffer_append_text(text, "[INST] <<SYS>>\n");
    case TEMPLATE_MISTRAL:
        TRY(add_open(template, &user, text));
        return template->is_tight ? STATUS_OK : buffer_append_text(text, " ");
    case TEMPLATE_GEMMA:
        return add_open(template, &user, text);
    default:
        return STATUS_OK;
    }
}

static enum status add_system_close(const struct template *template, struct buffer *text)
{
    switch (template->format) {
    case TEMPLATE_CHATML:
        return buffer_append_text(text, "<|im_end|>\n");
    case TEMPLATE_LLAMA3:
        return buffer_append_text(text, "<|eot_id|>");
    case TEMPLATE_LLAMA2:
        return buffer_append_text(text, "\n<</SYS>>\n\n");
    default:
        return STATUS_OK;
    }
}

enum status template_start(const struct template *template, struct encoder *encoder,
                           struct bytes system, struct error *error, struct id_list *out,
                           bool *is_open)
{
    struct buffer text;
    enum status status = STATUS_OK;

    buffer_init(&text, FRAME_BYTES_MAX);
    if (starts_with_bos(template)) {
        status = id_list_append(out, &template->bos, 1);
    }
    if (status == STATUS_OK && system.size > 0) {
        status = add_system_open(template, &text);
    }
    if (status != STATUS_OK) {
        error_set(error, status, "out of memory while a prompt was made");
        goto done;
    }
    if (system.size > 0) {
        /* After BOS a text begins, as it does in an empty list. */
        const bool at_start = text.size == 0;

        if (text.size > 0) {
            status = encoder_frame(encoder, buffer_bytes(&text), true, error, out);
            text.size = 0;
        }
        if (status == STATUS_OK) {
            status = encoder_text(encoder, system, at_start, error, out);
        }
        if (status == STATUS_OK) {
            status = add_system_close(template, &text);
        }
        if (status == STATUS_OK) {
            status = flush(template, encoder, &text, false, error, out);
        }
    }
    if (status == STATUS_OK) {
        *is_open = system.size > 0 &&
                   (has_system_in_turn(template) || template->format == TEMPLATE_TRANSCRIPT);
    }
done:
    buffer_finish(&text);
    return status;
}

/* ---- frames ---- */

/* What ends the part before the next turn opens; *is_whole: the next turn is open already. */
static enum status add_before(const struct template *template, const struct template_end *from,
                              const struct template_end *to, bool is_open, struct buffer *text,
                              bool *is_whole)
{
    *is_whole = false;
    if (from->side != TEMPLATE_START || !is_open) {
        return add_close(template, from->side, text);
    }
    if (template->format == TEMPLATE_TRANSCRIPT) {
        return buffer_append_text(text, "\n\n");
    }
    if (to->side == TEMPLATE_USER) {
        *is_whole = true;
        /* The system text of llama2 ends with its own mark and blank line. */
        return template->format == TEMPLATE_LLAMA2 ? STATUS_OK : buffer_append_text(text, "\n\n");
    }
    return add_close(template, TEMPLATE_USER, text);
}

/* Appends the name that stands in front of a turn; transcripts have it in their frames. */
static enum status add_name(const struct template *template, struct encoder *encoder,
                            const struct template_end *to, bool is_open, struct error *error,
                            struct id_list *out)
{
    const bool has_blank = template_lead(template, to->side, is_open).size > 0;
    struct buffer text;
    enum status status;

    if (!to->is_named || template->format == TEMPLATE_TRANSCRIPT ||
        template->format == TEMPLATE_PLAIN) {
        return STATUS_OK;
    }
    buffer_init(&text, FRAME_BYTES_MAX);
    status = buffer_append_text(&text, has_blank ? " " : "");
    if (status == STATUS_OK) {
        status = buffer_append(&text, to->name);
    }
    if (status == STATUS_OK) {
        status = buffer_append_text(&text, has_blank ? ":" : ":\n");
    }
    if (status == STATUS_OK) {
        status = encoder_text(encoder, buffer_bytes(&text), false, error, out);
    } else {
        error_set(error, status, "out of memory while a frame was made");
    }
    buffer_finish(&text);
    return status;
}

enum status template_frame(const struct template *template, struct encoder *encoder,
                           const struct template_end *from, const struct template_end *to,
                           bool is_open, struct error *error, struct id_list *out)
{
    struct buffer text;
    bool is_whole = false;
    enum status status;

    CHECK(to->side != TEMPLATE_START);
    buffer_init(&text, FRAME_BYTES_MAX);
    status = add_before(template, from, to, is_open, &text, &is_whole);
    if (status == STATUS_OK && !is_whole) {
        status = add_open(template, to, &text);
    }
    if (status != STATUS_OK) {
        error_set(error, status, "out of memory while a frame was made");
    } else {
        /* From START nothing but BOS or a block of special tokens can stand before. */
        const bool at_start = from->side == TEMPLATE_START && !is_open;

        status = flush(template, encoder, &text, at_start, error, out);
    }
    if (status == STATUS_OK) {
        const bool goes_on = from->side == TEMPLATE_START && is_open;

        status = add_name(template, encoder, to, goes_on, error, out);
    }
    buffer_finish(&text);
    return status;
}

/* ---- inserts ---- */

struct template_gap template_gap_begin(const struct template *template,
                                       const struct template_end *from, bool is_open)
{
    const bool is_preamble = from->side == TEMPLATE_START && is_open;

    return (struct template_gap){
        .open = is_preamble && has_system_in_turn(template) ? TEMPLATE_USER : from->side,
        .is_preamble = is_preamble,
    };
}

/* Where the system text lies inside a user turn. */
static enum status open_in_turn(const struct template *template, struct template_gap *gap,
                                enum insert_role role, struct buffer *text)
{
    const struct template_end user = {.side = TEMPLATE_USER};

    if (role == INSERT_PERSONA) {
        const struct template_end persona = {.side = TEMPLATE_PERSONA};

        TRY(add_close(template, gap->open, text));
        TRY(add_open(template, &persona, text));
        return buffer_append(text, template_lead(template, TEMPLATE_PERSONA, false));
    }
    if (gap->open == TEMPLATE_USER) {
        /* The system text of llama2 ends with a blank line already. */
        const bool has_line = gap->is_preamble && template->format == TEMPLATE_LLAMA2;

        gap->is_inserted = gap->is_inserted || gap->is_preamble;
        return buffer_append_text(text, has_line ? "" : "\n\n");
    }
    TRY(add_close(template, gap->open, text));
    TRY(add_open(template, &user, text));
    gap->is_inserted = true;
    return buffer_append(text, template_lead(template, TEMPLATE_USER, false));
}

static enum status open_block(const struct template *template, enum insert_role role,
                              struct buffer *text)
{
    const struct template_end end = {.side =
                                         role == INSERT_USER ? TEMPLATE_USER : TEMPLATE_PERSONA};

    return role == INSERT_SYSTEM ? add_system_open(template, text) : add_open(template, &end, text);
}

/* What stands in front of an insert. */
static enum status add_insert_open(const struct template *template, struct template_gap *gap,
                                   enum insert_role role, struct buffer *text)
{
    if (template->format == TEMPLATE_TRANSCRIPT) {
        TRY(gap->is_preamble ? buffer_append_text(text, "\n\n")
                             : add_close(template, gap->open, text));
        return buffer_append_text(text, "(");
    }
    if (has_system_in_turn(template)) {
        return open_in_turn(template, gap, role, text);
    }
    TRY(add_close(template, gap->open, text));
    return open_block(template, role, text);
}

/* What stands behind it, and what is open then. */
static enum status add_insert_close(const struct template *template, struct template_gap *gap,
                                    enum insert_role role, struct buffer *text)
{
    const enum template_side side = role == INSERT_USER ? TEMPLATE_USER : TEMPLATE_PERSONA;

    gap->is_preamble = false;
    if (has_system_in_turn(template) && role != INSERT_PERSONA) {
        gap->open = TEMPLATE_USER;
        return STATUS_OK;
    }
    gap->open = TEMPLATE_START;
    gap->is_inserted = false;
    if (template->format == TEMPLATE_TRANSCRIPT) {
        return buffer_append_text(text, ")\n");
    }
    return role == INSERT_SYSTEM ? add_system_close(template, text)
                                 : add_close(template, side, text);
}

enum status template_gap_insert(const struct template *template, struct encoder *encoder,
                                struct template_gap *gap, enum insert_role role,
                                const struct id_list *inserted, struct error *error,
                                struct id_list *out)
{
    const bool at_start = gap->open == TEMPLATE_START && !gap->is_preamble;
    struct buffer text;
    enum status status;

    if (inserted->count == 0 || template->format == TEMPLATE_PLAIN) {
        return STATUS_OK;
    }
    buffer_init(&text, FRAME_BYTES_MAX);
    status = add_insert_open(template, gap, role, &text);
    if (status == STATUS_OK) {
        status = flush(template, encoder, &text, at_start, error, out);
    }
    if (status == STATUS_OK) {
        status = id_list_append(out, inserted->ids, inserted->count);
    }
    if (status == STATUS_OK) {
        status = add_insert_close(template, gap, role, &text);
    }
    if (status == STATUS_OK) {
        status = flush(template, encoder, &text, false, error, out);
    }
    if (status == STATUS_MEMORY) {
        error_set(error, status, "out of memory while a frame was made");
    }
    buffer_finish(&text);
    return status;
}

enum status template_gap_end(const struct template *template, struct encoder *encoder,
                             const struct template_gap *gap, const struct template_end *to,
                             struct error *error, struct id_list *out)
{
    const bool goes_on = gap->is_inserted && to->side == TEMPLATE_USER;
    struct buffer text;
    enum status status;

    buffer_init(&text, FRAME_BYTES_MAX);
    if (goes_on) {
        status = buffer_append_text(&text, "\n\n");
    } else {
        status = add_close(template, gap->open, &text);
        if (status == STATUS_OK) {
            status = add_open(template, to, &text);
        }
    }
    if (status == STATUS_OK) {
        status = flush(template, encoder, &text, false, error, out);
    }
    if (status == STATUS_OK) {
        status = add_name(template, encoder, to, goes_on, error, out);
    }
    if (status == STATUS_MEMORY) {
        error_set(error, status, "out of memory while a frame was made");
    }
    buffer_finish(&text);
    return status;
}
