/* Frames: what a chat format or a transcript puts around turns. Never content, never shown.
 *
 * Thread: immutable once made; any. A template writes *pieces*: frame text, in which special tokens
 * may be written out, and plain text, in which they may not, so that a card cannot forge a turn.
 * The context is
 *
 *   prompt | frame(START -> first side) turn frame(side -> side) turn ... frame(side -> reply)
 *
 * A frame closes the turn before it and opens the next one. Formats that keep the system text
 * inside the first user turn (llama2, mistral, gemma) leave that turn open at the end of the
 * prompt: the frame from START to a user turn is a variant that goes on there, the frame from START
 * to a persona's turn closes it first.
 *
 *   chatml   <|im_start|>ROLE\n ... <|im_end|>\n
 *   llama3   <|start_header_id|>ROLE<|end_header_id|>\n\n ... <|eot_id|>
 *   llama2   [INST] <<SYS>>\n ... \n<</SYS>>\n\n ... [/INST] ... </s><s>
 *   mistral  [INST] ... [/INST] ... </s>
 *   gemma    <start_of_turn>ROLE\n ... <end_of_turn>\n
 *   transcript  NAME: ...\n      (base models, and any model whose file has no known format)
 *   plain    nothing at all
 *
 * Among several speakers a chat format names who speaks, in front of the turn's text: "NAME:" and a
 * line break, or a blank where texts begin with one. The name is text, never a special token.
 *
 * Where the text of a turn follows its frame after a blank (transcript, llama2, SentencePiece
 * mistral) the blank belongs to the turn's text, as it does in the model's own tokens: text that
 * enters gets one in front (template_lead).
 */
#ifndef PERSONAD_SESSION_TEMPLATE_H
#define PERSONAD_SESSION_TEMPLATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/status.h"
#include "session/encoder.h"

enum template_format {
    TEMPLATE_NONE = 0, /* the model has no known chat format */
    TEMPLATE_CHATML,
    TEMPLATE_LLAMA2,
    TEMPLATE_LLAMA3,
    TEMPLATE_MISTRAL,
    TEMPLATE_GEMMA,
    TEMPLATE_TRANSCRIPT,
    TEMPLATE_PLAIN,
};

/* Which side of the conversation a turn is on, as the persona sees it. */
enum template_side { TEMPLATE_START, TEMPLATE_USER, TEMPLATE_PERSONA };

struct template
{
    enum template_format format;
    bool adds_bos;                   /* the vocabulary asks for BOS in front of everything */
    bool is_tight;                   /* mistral: no blanks around [INST] and [/INST] */
    uint32_t bos;                    /* TOKEN_NONE when there is none */
    uint32_t start_id;               /* what a context starts with that is empty otherwise */
    struct bytes bos_text, eos_text; /* as the vocabulary writes them; borrowed */
};

/* One end of a frame. */
struct template_end {
    enum template_side side;
    struct bytes name; /* who speaks; empty at START */
    bool is_named;     /* chat formats too put the name in front (transcripts always do) */
};

/* "chatml", ..., "none", "transcript", "plain". Static. */
const char *template_format_name(enum template_format format);

/* The format of a model: recognised from the vocabulary's chat_template (name NULL or "auto"), or
 * the one that is named. UNSUPPORTED when there is no such format, or when a named format's special
 * tokens are not in the vocabulary. NONE when nothing is recognised. */
MUST_USE enum status template_detect(const struct encoder *encoder, const char *name,
                                     struct error *error, enum template_format *out);

void template_init(struct template *out, const struct encoder *encoder,
                   enum template_format format);

/* The same template for a persona that plays in a transcript or plainly. */
struct template template_with_format(const struct template *from, enum template_format format);

/* Appends the start of a prompt: BOS and the system block. `system` may be empty.
 * *is_open: a user turn is open now (see above). */
MUST_USE enum status template_start(const struct template *template, struct encoder *encoder,
                                    struct bytes system, struct error *error, struct id_list *out,
                                    bool *is_open);

/* Appends the frame between two turns. is_open: from START, where a user turn was left open. */
MUST_USE enum status template_frame(const struct template *template, struct encoder *encoder,
                                    const struct template_end *from, const struct template_end *to,
                                    bool is_open, struct error *error, struct id_list *out);

/* As whom the model reads what is inserted between turns. */
enum insert_role { INSERT_SYSTEM = 0, INSERT_USER = 1, INSERT_PERSONA = 2 };

/* What stands open between two turns while texts are inserted there. */
struct template_gap {
    enum template_side open; /* START: nothing */
    bool is_preamble;        /* what the prompt left open */
    bool is_inserted;        /* a user turn that an insert opened */
};

/* Behind a turn of `from`; is_open as for template_frame(). */
struct template_gap template_gap_begin(const struct template *template,
                                       const struct template_end *from, bool is_open);

/* Appends a text and what it needs around it: a block of its role; inside the user's turn where a
 * format keeps the system text there; in brackets in a transcript. Plain: nothing. */
MUST_USE enum status template_gap_insert(const struct template *template, struct encoder *encoder,
                                         struct template_gap *gap, enum insert_role role,
                                         const struct id_list *text, struct error *error,
                                         struct id_list *out);

/* Appends what opens the next turn. */
MUST_USE enum status template_gap_end(const struct template *template, struct encoder *encoder,
                                      const struct template_gap *gap, const struct template_end *to,
                                      struct error *error, struct id_list *out);

/* The blank that text gets in front when it enters as a turn, or nothing. is_open: it goes on a
 * turn that the prompt left open. */
struct bytes template_lead(const struct template *template, enum template_side side, bool is_open);

#endif
