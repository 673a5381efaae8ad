/* Goal: no patterns and no text make a cue reader show a byte of a cue, take one back, or say
 * something else when the same bytes come in other tokens.
 * Method: the input is patterns, one a line ("=" a name, anything else a literal), a blank line,
 * and text, which is read once byte by byte and once in tokens whose sizes come from the text. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/check.h"
#include "limits.h"
#include "text/cue.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t byte_count);

static uint32_t read_patterns(struct bytes *input, struct cue_pattern *patterns)
{
    uint32_t count = 0;

    while (input->size > 0 && count < CUE_COUNT_MAX) {
        const uint8_t *end = memchr(input->data, '\n', input->size);
        const size_t size = end == NULL ? input->size : (size_t)(end - input->data);
        const size_t taken = end == NULL ? size : size + 1;
        const struct bytes line = bytes_of(input->data, size);

        *input = bytes_of(input->data + taken, input->size - taken);
        if (size == 0) {
            break;
        }
        patterns[count].kind = line.data[0] == '=' ? CUE_SPEAKER : CUE_TEXT;
        patterns[count++].text = bytes_of(line.data + 1, size - 1);
    }
    return count;
}

/* Reads to the end in tokens of 1 byte, or of sizes taken from the text itself. */
static struct cue_reader read_all(const struct cue_set *set, struct bytes text, bool in_tokens)
{
    const size_t lead = text.size > 0 ? text.data[0] % 8 : 0;
    const size_t start = lead < text.size ? lead : text.size;
    struct cue_reader reader;
    uint64_t shown = 0;
    size_t at = start;

    cue_reader_init(&reader, set, bytes_of(text.data, start));
    while (at < text.size) {
        const size_t wanted = in_tokens ? text.data[at] % 16 + 1u : 1;
        const size_t size = wanted < text.size - at ? wanted : text.size - at;

        cue_reader_feed(&reader, bytes_of(text.data + at, size));
        CHECK(reader.released_bytes >= shown);
        CHECK(reader.released_bytes <= reader.fed_bytes);
        CHECK(!reader.stopped || reader.released_bytes == reader.cut_bytes);
        CHECK(reader.stopped ||
              reader.fed_bytes - reader.released_bytes <= cue_set_held_bytes_max(set));
        shown = reader.released_bytes;
        at += size;
    }
    cue_reader_end(&reader);
    CHECK(reader.released_bytes >= shown);
    return reader;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t byte_count)
{
    struct cue_pattern patterns[CUE_COUNT_MAX];
    struct bytes input = bytes_of(bytes, byte_count);
    const uint32_t count = read_patterns(&input, patterns);
    struct cue_set *set = NULL;

    if (cue_set_create(patterns, count, NULL, &set) != STATUS_OK) {
        CHECK(set == NULL);
        return 0;
    }
    const struct cue_reader a = read_all(set, input, false);
    const struct cue_reader b = read_all(set, input, true);
    CHECK(a.stopped == b.stopped && a.released_bytes == b.released_bytes);
    CHECK(!a.stopped || (a.cut_bytes == b.cut_bytes && a.pattern == b.pattern));
    cue_set_destroy(set);
    return 0;
}
