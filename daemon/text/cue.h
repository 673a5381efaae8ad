/* Where generation stops inside the text: cues, stop strings, and UTF-8, over released bytes.
 *
 * Thread: a cue_set is immutable after create and shared; a cue_reader belongs to one branch
 * (engine thread), and its functions never allocate. No I/O.
 *
 * A cue_set is an Aho-Corasick automaton over all patterns. Kinds:
 *   CUE_TEXT     a literal string, wherever it falls ("\nUser:", a stop string)
 *   CUE_SPEAKER  a cast name at the start of a line: the name followed by ':' or alone on its line
 *                (newline or end of generation after optional spaces)
 * The reader is fed the bytes of one sampled token after another and says how many bytes may be
 * shown: bytes that could still become a cue, and bytes of an unfinished UTF-8 sequence, are held
 * back. A byte that can never be completed to UTF-8 is released as it is (model text is raw bytes).
 *
 * Cut rule: on a match, text ends where the match begins (for CUE_SPEAKER at a line start the
 * newline before the name goes too when the match began after the branch's start); trailing held
 * bytes are dropped.
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

/* LIMIT past CUE_COUNT_MAX or CUE_BYTES_MAX; BAD_INPUT for an empty pattern. Zero patterns are
 * fine. */
MUST_USE enum status cue_set_create(const struct cue_pattern *patterns, uint32_t pattern_count,
                                    struct error *error, struct cue_set **out);
void cue_set_destroy(struct cue_set *set);

/* The most bytes that a reader of this set may hold back (with a token of token_bytes_max just
 * fed). */
uint32_t cue_set_held_bytes_max(const struct cue_set *set);

struct cue_reader {
    const struct cue_set *set; /* borrowed */
    uint64_t fed_bytes;        /* of this branch, the lead-in not counted */
    uint64_t released_bytes;   /* of this branch: bytes [0, released) may be shown, for ever */
    uint32_t state;            /* of the automaton */
    uint32_t line_state;       /* bookkeeping of CUE_SPEAKER */
    uint8_t utf8[4];           /* an unfinished sequence */
    uint8_t utf8_size;
    bool stopped;
    uint64_t
        cut_bytes; /* once stopped: text ends here, in bytes of this branch; >= 0 by the cut rule */
    uint32_t pattern;     /* once stopped: index of the pattern that matched */
    uint64_t reserved[4]; /* more bookkeeping */
};

/* lead_in: the turn's earlier bytes (a branch that opens no turn), at most the last few KiB; they
 * set the state but are never cut: a match that began inside them cuts at 0. Empty: the text starts
 * a line. */
void cue_reader_init(struct cue_reader *reader, const struct cue_set *set, struct bytes lead_in);

/* Feeds one token's bytes. Afterwards released_bytes (and, once stopped, cut_bytes) are up to date.
 */
void cue_reader_feed(struct cue_reader *reader, struct bytes token_bytes);

/* Generation ended for another reason (end token, limit): decides a name alone on the last line,
 * releases what is held otherwise, an unfinished UTF-8 tail included. */
void cue_reader_end(struct cue_reader *reader);

#endif
