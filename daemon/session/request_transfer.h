/* The part of request.h that is about sessions as files: what SessionExport and SessionImport ask,
 * and a page of an answer. Include request.h.
 *
 * Thread: loop. What request.h says of borrowing holds here too.
 */
#ifndef PERSONAD_SESSION_REQUEST_TRANSFER_H
#define PERSONAD_SESSION_REQUEST_TRANSFER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"

struct request_export {
    uint64_t session, node; /* node: only the path to it; 0: everything */
    uint64_t transfer;      /* goes on with that one; 0: begins */
};

struct request_import {
    uint64_t transfer; /* 0: begins */
    struct bytes data; /* at most IMPORT_PIECE_BYTES_MAX */
    bool end;          /* that was the last piece */
};

struct exported_view {
    struct bytes data;
    uint64_t transfer;
    bool end;
};

#endif
