/* Text without the difference of case, for comparing.
 *
 * Thread: any, pure. Bytes that are no UTF-8 stay as they are.
 */
#ifndef PERSONAD_TEXT_CASE_FOLD_H
#define PERSONAD_TEXT_CASE_FOLD_H

#include "base/bytes.h"
#include "base/status.h"

/* Appends. LIMIT, MEMORY. */
MUST_USE enum status case_fold(struct bytes text, struct buffer *out);

#endif
