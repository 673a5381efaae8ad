/* Goal: no file makes the reader of sessions crash, leak or take more than its bounds, however it
 * is cut into pieces; and what it took is written as a file that it takes again, with the same
 * bytes. Method: read it whole and in small pieces, which must end alike; write what was taken,
 * read that, write it again, and compare. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/check.h"
#include "base/memory.h"
#include "session/portable_read.h"
#include "session/portable_write.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t byte_count);

enum { PIECE_BYTES = 61, FILE_BYTES_MAX = 256 * 1024 * 1024 };

static enum status read_file(struct bytes file, size_t piece, struct portable *portable,
                             struct error *error)
{
    struct portable_reader reader;
    enum status status = portable_reader_init(&reader, portable);

    CHECK(status == STATUS_OK);
    for (size_t at = 0; at < file.size && status == STATUS_OK; at += piece) {
        const size_t size = file.size - at < piece ? file.size - at : piece;

        status = portable_read(&reader, bytes_of(file.data + at, size), error);
    }
    if (status == STATUS_OK) {
        status = portable_read_end(&reader, error);
    }
    portable_reader_finish(&reader);
    return status;
}

/* Prompts get names, as the store gives them. */
static void name_prompts(struct portable *portable)
{
    for (uint32_t i = 0; i < portable->member_count; i++) {
        portable->members[i].prompt.digest[0] = (uint8_t)(i + 1);
    }
    for (uint32_t i = 0; i < portable->joint_count; i++) {
        portable->joints[i].prompt.digest[0] = (uint8_t)((PORTABLE_JOINT | i) + 1);
    }
    for (uint32_t i = 0; i < portable->tree->context_count; i++) {
        portable->tree->contexts[i].prompt_digest[0] = (uint8_t)(portable->context_prompts[i] + 1);
    }
}

static bool write_file(struct portable *portable, struct buffer *out)
{
    struct portable_writer *writer = NULL;
    bool is_over = false;
    enum status status;

    name_prompts(portable);
    CHECK(portable_writer_create(portable, 0, NULL, &writer) == STATUS_OK);
    status = portable_write_head(writer, out);
    if (status == STATUS_OK) {
        status = portable_write_some(writer, SIZE_MAX, out, &is_over);
    }
    portable_writer_destroy(writer);
    CHECK(status == STATUS_OK || status == STATUS_STORAGE);
    return status == STATUS_OK && is_over;
}

/* The end of a parent whose text is not tokenised yet is no number. */
static bool has_open_offsets(const struct portable *portable)
{
    for (uint32_t i = 0; i < portable->tree->node_count; i++) {
        if (portable->tree->nodes[i].node.parent_offset == OFFSET_END) {
            return true;
        }
    }
    return false;
}

static void check_again(struct portable *portable)
{
    struct portable again;
    struct error error = {0};
    struct buffer one, other;

    buffer_init(&one, FILE_BYTES_MAX);
    buffer_init(&other, FILE_BYTES_MAX);
    if (!has_open_offsets(portable) && write_file(portable, &one)) {
        if (read_file(buffer_bytes(&one), SIZE_MAX, &again, &error) != STATUS_OK) {
            CHECK(error.status == STATUS_LIMIT);
        } else {
            CHECK(write_file(&again, &other));
            CHECK(bytes_equal(buffer_bytes(&one), buffer_bytes(&other)));
        }
        portable_finish(&again);
    }
    buffer_finish(&one);
    buffer_finish(&other);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t byte_count)
{
    const int64_t live = memory_live_count();
    const struct bytes file = bytes_of(bytes, byte_count);
    struct portable whole, pieces;
    struct error error = {0};
    struct error of_pieces = {0};
    const enum status status = read_file(file, byte_count + 1, &whole, &error);

    CHECK(read_file(file, PIECE_BYTES, &pieces, &of_pieces) == status);
    if (status == STATUS_OK) {
        CHECK(whole.tree->node_count == pieces.tree->node_count);
        check_again(&whole);
        portable_renumber(&pieces, 7, 1000);
    } else {
        CHECK(error.status == status && error.text[0] != '\0');
        CHECK(strcmp(error.text, of_pieces.text) == 0);
        CHECK(utf8_is_valid(bytes_of_text(error.text)));
    }
    portable_finish(&whole);
    portable_finish(&pieces);
    CHECK(memory_live_count() == live);
    return 0;
}
