/* Goal: no stored bytes break the reader of sampler steps, and what it accepts is stable.
 * Method: parse; what is accepted is stored, parsed and stored again, and the two are compared. */
#include <stddef.h>
#include <stdint.h>

#include "base/check.h"
#include "sample/sampler.h"

enum { VOCABULARY_COUNT = 49152 };

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t byte_count);

static struct buffer store(const struct sampler *sampler)
{
    struct buffer stored;

    buffer_init(&stored, 1u << 24);
    const enum status status = sampler_format(sampler, &stored);
    CHECK(status == STATUS_OK);
    return stored;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t byte_count)
{
    struct sampler *first = NULL, *second = NULL;

    if (sampler_parse(bytes_of(bytes, byte_count), VOCABULARY_COUNT, NULL, &first) != STATUS_OK) {
        CHECK(first == NULL);
        return 0;
    }
    struct buffer a = store(first);
    const enum status status = sampler_parse(buffer_bytes(&a), VOCABULARY_COUNT, NULL, &second);
    CHECK(status == STATUS_OK);
    struct buffer b = store(second);
    CHECK(bytes_equal(buffer_bytes(&a), buffer_bytes(&b)));
    buffer_finish(&a);
    buffer_finish(&b);
    sampler_release(first);
    sampler_release(second);
    return 0;
}
