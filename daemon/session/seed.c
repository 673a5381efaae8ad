#include "session/seed.h"

#include "base/bytes.h"

enum { IDS_A_BLOCK = 256 };

static void add_ids(struct sha256 *hash, const uint32_t *ids, uint32_t count)
{
    uint8_t block[IDS_A_BLOCK * 4];
    uint32_t done = 0;

    while (done < count) {
        uint32_t part = count - done < IDS_A_BLOCK ? count - done : IDS_A_BLOCK;

        for (uint32_t i = 0; i < part; i++) {
            bytes_store_u32(block + (size_t)4 * i, ids[done + i]);
        }
        sha256_update(hash, bytes_of(block, (size_t)part * 4));
        done += part;
    }
}

void seed_context_init(struct seed_context *context)
{
    sha256_init(&context->hash);
}

void seed_context_add(struct seed_context *context, const uint32_t *ids, uint32_t count)
{
    add_ids(&context->hash, ids, count);
}

void seed_context_finish(struct seed_context *context, uint8_t out[SHA256_BYTES])
{
    sha256_finish(&context->hash, out);
}

uint64_t seed_of_node(uint64_t s, const uint8_t context_digest[SHA256_BYTES],
                      const uint32_t *ordinals, uint32_t ordinal_count)
{
    struct sha256 hash;
    uint8_t number[8];
    uint8_t digest[SHA256_BYTES];

    sha256_init(&hash);
    sha256_update(&hash, bytes_of_text("personad/1"));
    bytes_store_u64(number, s);
    sha256_update(&hash, bytes_of(number, sizeof(number)));
    sha256_update(&hash, bytes_of(context_digest, SHA256_BYTES));
    add_ids(&hash, ordinals, ordinal_count);
    sha256_finish(&hash, digest);
    return bytes_load_u64(digest);
}
