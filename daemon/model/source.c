#include "model/source.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "base/memory.h"
#include "base/sha256.h"

enum { SOURCE_HASH_CHUNK_BYTES = 1024 * 1024 };

enum status source_open(const char *path, struct error *error, struct source *out)
{
    struct source source = {.fd = -1};
    enum status status = STATUS_IO;
    struct stat about;

    source.name = memory_copy_text(path, strlen(path));
    if (source.name == NULL) {
        status = error_set(error, STATUS_MEMORY, "%s: out of memory", path);
        goto done;
    }
    /* Not blocking: a FIFO of that name must not hold the daemon up before it is refused. */
    source.fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (source.fd < 0 || fstat(source.fd, &about) != 0) {
        status = error_set(error, STATUS_IO, "%s: cannot be opened: %s", path, strerror(errno));
        goto done;
    }
    if (!S_ISREG(about.st_mode)) {
        status = error_set(error, STATUS_IO, "%s: is not a regular file", path);
        goto done;
    }
    source.size = (uint64_t)about.st_size;
    /* It is read from front to end, first for its hash: the kernel reads ahead in larger pieces. */
    (void)posix_fadvise(source.fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    *out = source;
    return STATUS_OK;
done:
    source_close(&source);
    return status;
}

enum status source_open_bytes(struct bytes memory, const char *name, struct source *out)
{
    struct source source = {.fd = -1, .memory = memory, .size = memory.size};

    source.name = memory_copy_text(name, strlen(name));
    if (source.name == NULL) {
        return STATUS_MEMORY;
    }
    *out = source;
    return STATUS_OK;
}

void source_close(struct source *source)
{
    if (source->fd >= 0) {
        (void)close(source->fd);
    }
    memory_free(source->name);
    source->fd = -1;
    source->name = NULL;
}

static enum status source_read_file(const struct source *source, uint64_t offset, uint64_t size,
                                    struct error *error, uint8_t *to)
{
    /* One read is kept below what the kernel moves at once. */
    const uint64_t read_bytes_max = 1u << 30;

    while (size > 0) {
        const uint64_t want = size < read_bytes_max ? size : read_bytes_max;
        const ssize_t got = pread(source->fd, to, want, (off_t)offset);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return error_set(error, STATUS_IO, "%s: cannot be read: %s", source->name,
                             strerror(errno));
        }
        if (got == 0) {
            return error_set(error, STATUS_IO,
                             "%s: has become shorter while it was read; it must not change while "
                             "it is in use",
                             source->name);
        }
        to += got;
        offset += (uint64_t)got;
        size -= (uint64_t)got;
    }
    return STATUS_OK;
}

enum status source_read(const struct source *source, uint64_t offset, uint64_t size,
                        struct error *error, void *to)
{
    CHECK(offset <= source->size);
    CHECK(size <= source->size - offset);

    if (source->fd >= 0) {
        return source_read_file(source, offset, size, error, (uint8_t *)to);
    }
    if (size > 0) {
        memcpy(to, source->memory.data + offset, size);
    }
    return STATUS_OK;
}

enum status source_hash(const struct source *source, struct error *error, uint8_t out[32])
{
    enum status status = STATUS_OK;
    struct sha256 sha256;
    uint8_t *chunk = memory_alloc(1, SOURCE_HASH_CHUNK_BYTES);

    if (chunk == NULL) {
        return error_set(error, STATUS_MEMORY, "%s: out of memory", source->name);
    }
    sha256_init(&sha256);
    for (uint64_t offset = 0; offset < source->size;) {
        const uint64_t left = source->size - offset;
        const uint64_t size = left < SOURCE_HASH_CHUNK_BYTES ? left : SOURCE_HASH_CHUNK_BYTES;
        status = source_read(source, offset, size, error, chunk);
        if (status != STATUS_OK) {
            goto done;
        }
        sha256_update(&sha256, bytes_of(chunk, size));
        offset += size;
    }
    sha256_finish(&sha256, out);
done:
    memory_free(chunk);
    return status;
}
