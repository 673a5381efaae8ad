#include "session/key.h"

#include "base/memory.h"
#include "base/sha256.h"

/* Keys are a peer's choice, so their place comes from a hash that it cannot steer. If two meet all
 * the same, the later one is refused. */
static uint64_t place_of(uint32_t uid, struct bytes text)
{
    struct sha256 hash;
    uint8_t number[8];
    uint8_t digest[SHA256_BYTES];

    bytes_store_u64(number, uid);
    sha256_init(&hash);
    sha256_update(&hash, bytes_of(number, sizeof(number)));
    sha256_update(&hash, text);
    sha256_finish(&hash, digest);
    return bytes_load_u64(digest) | 1;
}

static bool is_key(const struct key *key, uint32_t uid, struct bytes text)
{
    return key->uid == uid && bytes_equal(key->text, text);
}

struct key *key_find(const struct store *store, uint32_t uid, struct bytes text)
{
    struct key *key = text.size == 0 ? NULL : table_find(&store->keys, place_of(uid, text));

    return key != NULL && is_key(key, uid, text) ? key : NULL;
}

enum status key_create(const struct store *store, uint32_t uid, struct bytes text,
                       uint32_t node_count, struct error *error, struct key **out)
{
    struct key *key;

    if (text.size == 0) {
        *out = NULL;
        return STATUS_OK;
    }
    if (store->keys.count >= CLIENT_KEY_COUNT_MAX) {
        return error_set_limit(error, "CLIENT_KEY_COUNT_MAX", CLIENT_KEY_COUNT_MAX,
                               "%u client keys are remembered, which is the most; send this "
                               "request without one",
                               (unsigned)CLIENT_KEY_COUNT_MAX);
    }
    key = memory_alloc(1, sizeof(*key));
    if (key != NULL) {
        key->uid = uid;
        key->text = bytes_of(memory_copy_text((const char *)text.data, text.size), text.size);
        key->nodes = memory_alloc(node_count, sizeof(*key->nodes));
        key->node_count = node_count;
    }
    if (key == NULL || key->text.data == NULL || key->nodes == NULL) {
        key_destroy(key);
        return error_set(error, STATUS_MEMORY, "out of memory for a client key");
    }
    *out = key;
    return STATUS_OK;
}

enum status key_remember(struct store *store, struct key *key, struct error *error)
{
    switch (table_insert(&store->keys, place_of(key->uid, key->text), key)) {
    case STATUS_OK:
        return STATUS_OK;
    case STATUS_CONFLICT:
        return error_set(error, STATUS_CONFLICT, "choose another client key for this request");
    default:
        return error_set(error, STATUS_MEMORY, "out of memory for a client key");
    }
}

void key_forget(struct store *store, uint32_t uid, struct bytes text)
{
    struct key *key = key_find(store, uid, text);

    if (key != NULL) {
        key_destroy(table_remove(&store->keys, place_of(uid, text)));
    }
}

static bool is_of(const struct store *store, const struct key *key, uint64_t session)
{
    const struct node *node = key->node_count > 0 ? table_find(&store->nodes, key->nodes[0]) : NULL;

    return key->session_id == session || (node != NULL && node->session->id == session);
}

void key_forget_session(struct store *store, const struct session *session)
{
    uint32_t cursor = 0;
    uint64_t place = 0;
    void *value = NULL;

    while (table_next(&store->keys, &cursor, &place, &value)) {
        if (is_of(store, value, session->id)) {
            key_destroy(table_remove(&store->keys, place));
        }
    }
}

void key_destroy(struct key *key)
{
    if (key != NULL) {
        memory_free((void *)(uintptr_t)key->text.data);
        memory_free(key->nodes);
        memory_free(key);
    }
}
