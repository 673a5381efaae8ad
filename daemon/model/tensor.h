/* Where a tensor lies and what it is, as the readers of all formats tell it.
 *
 * Thread: any, plain data. The name is borrowed from the reader.
 */
#ifndef PERSONAD_MODEL_TENSOR_H
#define PERSONAD_MODEL_TENSOR_H

#include <stdint.h>

#include "base/bytes.h"

struct model_tensor {
    struct bytes name;
    uint32_t dtype; /* enum dtype of kernels/dtype.h; others are refused only when they are read */
    uint32_t dimension_count;
    uint64_t dimensions[4]; /* fastest first: [cols, rows, 1, 1] */
    uint64_t offset;        /* absolute, in its file */
    uint64_t size_bytes;    /* 0 when the type is not in the map */
};

/* Arguments for "%.*s" that show a name, its first 100 characters at most. */
#define SHOWN(view) (int)((view).size < 100 ? (view).size : 100), (const char *)(view).data

#endif
