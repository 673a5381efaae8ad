/* SHA-256 over memory and files: fingerprints of models, seeds of nodes, checks of context ids.
 *
 * Thread: any; a `struct sha256` belongs to one caller and owns nothing, so it can be dropped half
 * way. The library behind it stays out of this header.
 */
#ifndef PERSONAD_BASE_SHA256_H
#define PERSONAD_BASE_SHA256_H

#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/status.h"

enum { SHA256_BYTES = 32, SHA256_STATE_BYTES = 128 };

struct sha256 {
    _Alignas(16) uint8_t state[SHA256_STATE_BYTES];
};

/* The digest of one piece of memory. */
void sha256_bytes(struct bytes bytes, uint8_t out[SHA256_BYTES]);

/* The same in pieces. After finish the struct needs another init. */
void sha256_init(struct sha256 *hash);
void sha256_update(struct sha256 *hash, struct bytes bytes);
void sha256_finish(struct sha256 *hash, uint8_t out[SHA256_BYTES]);

/* Reads the whole file. NOT_FOUND, or IO; the error names the path. */
MUST_USE enum status sha256_file(const char *path, struct error *error, uint8_t out[SHA256_BYTES]);

#endif
