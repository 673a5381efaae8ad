#include <nettle/sha2.h>

/* The library maps these plain names to its prefixed ones, and they are ours here. */
#undef sha256_init
#undef sha256_update

#include "base/sha256.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum { FILE_PIECE_BYTES = 64 * 1024 };

static_assert(sizeof(struct sha256_ctx) <= SHA256_STATE_BYTES, "the library's state fits");
static_assert(_Alignof(struct sha256_ctx) <= _Alignof(struct sha256), "and is aligned");

static struct sha256_ctx *context_of(struct sha256 *hash)
{
    return (struct sha256_ctx *)(void *)hash->state;
}

void sha256_init(struct sha256 *hash)
{
    nettle_sha256_init(context_of(hash));
}

void sha256_update(struct sha256 *hash, struct bytes bytes)
{
    if (bytes.size > 0) {
        nettle_sha256_update(context_of(hash), bytes.size, bytes.data);
    }
}

void sha256_finish(struct sha256 *hash, uint8_t out[SHA256_BYTES])
{
    nettle_sha256_digest(context_of(hash), SHA256_BYTES, out);
}

void sha256_bytes(struct bytes bytes, uint8_t out[SHA256_BYTES])
{
    struct sha256 hash;

    sha256_init(&hash);
    sha256_update(&hash, bytes);
    sha256_finish(&hash, out);
}

static enum status set_io_error(struct error *error, const char *path, const char *what)
{
    return error_set(error, STATUS_IO, "cannot %s \"%s\": %s", what, path, strerror(errno));
}

enum status sha256_file(const char *path, struct error *error, uint8_t out[SHA256_BYTES])
{
    uint8_t piece[FILE_PIECE_BYTES];
    struct sha256 hash;
    enum status status = STATUS_OK;
    const int file = open(path, O_RDONLY | O_CLOEXEC);

    if (file < 0 && errno == ENOENT) {
        return error_set(error, STATUS_NOT_FOUND, "there is no file \"%s\"", path);
    }
    if (file < 0) {
        return set_io_error(error, path, "open");
    }
    sha256_init(&hash);
    for (;;) {
        const ssize_t count = read(file, piece, sizeof(piece));

        if (count == 0) {
            sha256_finish(&hash, out);
            break;
        }
        if (count > 0) {
            sha256_update(&hash, bytes_of(piece, (size_t)count));
        } else if (errno != EINTR) {
            status = set_io_error(error, path, "read");
            break;
        }
    }
    close(file);
    return status;
}
