/* Unicode normalisation form C, for models that were trained on it.
 *
 * Thread: any; pure but for the memory it takes during a call. Text is valid UTF-8. Time is linear
 * in the text also where thousands of combining marks follow each other.
 *
 * Unicode 15 (utf8proc 2.8). The reference's tables are older than Unicode 14: the order of marks
 * that came since may differ from its.
 */
#ifndef PERSONAD_TEXT_NORMALIZER_H
#define PERSONAD_TEXT_NORMALIZER_H

#include "base/bytes.h"
#include "base/status.h"

/* *out is the text in NFC: the text itself where that is plain to see, else the bytes of `room`,
 * whose earlier content is dropped. MEMORY, LIMIT (the bound of `room`). */
MUST_USE enum status normalizer_compose(struct bytes text, struct buffer *room, struct bytes *out);

#endif
