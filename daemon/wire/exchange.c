#include "wire/exchange.h"

#include "base/check.h"
#include "base/memory.h"
#include "session/store.h"

enum status exchange_create(struct connection *connection, uint64_t id, uint32_t cursor_count_max,
                            struct exchange **out)
{
    struct exchange *exchange = memory_alloc(1, sizeof *exchange);
    if (exchange == NULL) {
        return STATUS_MEMORY;
    }
    exchange->id = id;
    exchange->connection = connection;
    exchange->cursor_count_max = cursor_count_max;
    link_init(&exchange->cursors);
    link_init(&exchange->of_ready);
    *out = exchange;
    return STATUS_OK;
}

void exchange_drop(struct cursor *cursor, struct cursor_index *index, struct store *store)
{
    const uint64_t node = cursor->node->id;
    cursor_destroy(index, cursor);
    store_node_unfollow(store, node);
}

void exchange_destroy(struct exchange *exchange, struct cursor_index *index, struct store *store)
{
    if (exchange == NULL) {
        return;
    }
    while (!link_is_alone(&exchange->cursors)) {
        exchange_drop(LINK_OWNER(exchange->cursors.next, struct cursor, of_exchange), index, store);
    }
    link_remove(&exchange->of_ready);
    memory_free(exchange->nodes);
    memory_free(exchange);
}

enum status exchange_follow(struct exchange *exchange, struct cursor_index *index,
                            struct store *store, const struct follow *follow)
{
    exchange->is_following = true;
    for (uint32_t i = 0; i < follow->node_count; i++) {
        struct cursor *cursor = NULL;
        TRY(cursor_create(index, follow, i, &cursor));
        cursor->exchange = exchange;
        link_push_back(&exchange->cursors, &cursor->of_exchange);
        store_node_follow(store, follow->nodes[i]);
    }
    return STATUS_OK;
}

enum status exchange_nodes_reserve(struct exchange *exchange, uint32_t node_count)
{
    uint64_t *nodes =
        memory_resize(exchange->nodes, exchange->node_count + node_count + 1, sizeof *nodes);
    if (nodes == NULL) {
        return STATUS_MEMORY;
    }
    exchange->nodes = nodes;
    return STATUS_OK;
}
