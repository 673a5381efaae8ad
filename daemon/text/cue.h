/* Where generation stops inside the text: cues, stop strings, and UTF-8, over released bytes.
 *
 * Thread: a cue_set is immutable after create and shared; a cue_reader belongs to one branch
 * (engine thread), and its functions never allocate. No I/O.
 *
 * A cue_set is an Aho-Corasick automaton over the literal patterns and a trie over the names:
 *   CUE_TEXT     a literal string, wherever it falls ("\nUser:", a stop string)
 *   CUE_SPEAKER  a cast name at the start of a line: the name followed by ':' or alone on its line
 *                (newline or end of generation after at most CUE_SPACE_COUNT_MAX spaces, tabs or
 *                carriage returns); spaces around the name as it was given do not count
 * The reader is fed the bytes of one sampled token after another and says how many bytes may be
 * shown: bytes that could still become a cue, and bytes of an unfinished UTF-8 sequence, are held
 * back. A byte that can never be completed to UTF-8 is released as it is (model text is raw bytes).
 *
 * The match that ends first counts; of those that end at the same byte, the one that cuts first,
 * then the one of the lowest index. So the cut does not depend on how tokens cut the text.
 *
 * Cut rule: on a match, text ends where the match begins (for CUE_SPEAKER the newline before the
 * name goes too); what began before the branch cuts at 0. Held bytes from the cut on are dropped.
 */
#ifndef PERSONAD_TEXT_CUE_H
#define PERSONAD_TEXT_CUE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/status.h"

enum cue_kind { CUE_TEXT, CUE_SPEAKER };

struct cue_pattern {
    enum cue_kind kind;
    struct bytes text; /* borrowed during create; 1 to CUE_BYTES_MAX bytes */
};

struct cue_set;

/* LIMIT past CUE_PATTERN_COUNT_MAX or CUE_BYTES_MAX; BAD_INPUT for an empty pattern and for a name
 * that holds a newline. Zero patterns are fine. */
MUST_USE enum status cue_set_create(const struct cue_pattern *patterns, uint32_t pattern_count,
                                    struct error *error, struct cue_set **out);
void cue_set_destroy(struct cue_set *set);

/* The most bytes that a reader of this set holds back after a token was fed. */
uint32_t cue_set_held_bytes_max(const struct cue_set *set);

struct cue_reader {
    const struct cue_set *set; /* borrowed */
    uint64_t fed_bytes;      /* of this branch, no lead-in; stops with the byte that ends a match */
    uint64_t released_bytes; /* of this branch: bytes [0, released) may be shown, for ever */
    uint64_t line_cut_bytes; /* where the text would end if this line became a speaker's */
    uint32_t text_state;     /* of the automaton */
    uint32_t line_state;     /* of the trie of names; 0: this line is no name any more */
    uint32_t alone_pattern;  /* the name that may stand alone on this line, or none */
    uint32_t alone_spaces;   /* after it */
    uint8_t utf8[4];         /* an unfinished sequence */
    uint8_t utf8_size;
    bool stopped;
    uint64_t cut_bytes; /* once stopped: text ends here, in bytes of this branch */
    uint32_t pattern;   /* once stopped: index of the pattern that matched */
};

/* lead_in: the turn's earlier bytes (a branch that opens no turn), all of them or at least the last
 * 1024; they set the state but are never cut. Empty: the text starts a line. */
void cue_reader_init(struct cue_reader *reader, const struct cue_set *set, struct bytes lead_in);

/* Feeds one token's bytes. Afterwards released_bytes (and, once stopped, cut_bytes) are up to date.
 * Once stopped, more bytes change nothing. */
void cue_reader_feed(struct cue_reader *reader, struct bytes token_bytes);

/* Generation ended for another reason (end token, limit): decides a name alone on the last line,
 * releases what is held otherwise, an unfinished UTF-8 tail included. */
void cue_reader_end(struct cue_reader *reader);

#endif
