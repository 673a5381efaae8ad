/* Bytes at an offset, from a regular file or from memory: what the model readers stand on.
 *
 * Thread: one at a time. The file stays open and is read, never mapped: a file that is cut while
 * the daemon runs gives an error, not a signal. The caller keeps within `size`.
 */
#ifndef PERSONAD_MODEL_SOURCE_H
#define PERSONAD_MODEL_SOURCE_H

#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/status.h"

struct source {
    char *name;          /* owned; for errors */
    int fd;              /* -1: memory */
    struct bytes memory; /* borrowed */
    uint64_t size;
};

/* IO names the file and the reason. */
MUST_USE enum status source_open(const char *path, struct error *error, struct source *out);
MUST_USE enum status source_open_bytes(struct bytes memory, const char *name, struct source *out);
void source_close(struct source *source); /* a zeroed source is not open; close it once */

/* IO when the file has become shorter or cannot be read. */
MUST_USE enum status source_read(const struct source *source, uint64_t offset, uint64_t size,
                                 struct error *error, void *to);

/* SHA-256 of everything. */
MUST_USE enum status source_hash(const struct source *source, struct error *error, uint8_t out[32]);

#endif
