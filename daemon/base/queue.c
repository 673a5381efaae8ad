#include "base/queue.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "base/check.h"
#include "base/memory.h"

struct queue {
    pthread_mutex_t lock;
    pthread_cond_t filled;
    uint8_t *items; /* ring of item_count_max */
    size_t item_bytes;
    uint32_t item_count_max;
    uint32_t head_index; /* oldest */
    uint32_t count;
    bool is_held;
    bool is_woken; /* stays until a wait has seen it, so that a wake before a wait is not lost */
    void (*on_ready)(void *context);
    void *context;
};

struct board {
    pthread_mutex_t lock;
    uint8_t *values;  /* slot_count * value_bytes */
    uint32_t *order;  /* ring of slot_count: pending slots, oldest first */
    bool *is_pending; /* slot_count */
    size_t value_bytes;
    uint32_t slot_count;
    uint32_t head_index;
    uint32_t count;
    void (*on_ready)(void *context);
    void *context;
};

struct flag {
    atomic_bool is_raised;
};

static void lock_acquire(pthread_mutex_t *lock)
{
    CHECK(pthread_mutex_lock(lock) == 0);
}

static void lock_release(pthread_mutex_t *lock)
{
    CHECK(pthread_mutex_unlock(lock) == 0);
}

/* head + count stays below twice the bound, so a subtraction is the whole modulo; 64 bits because
 * the bound itself may be more than half of the 32-bit range.
 */
static uint32_t ring_index(uint32_t head, uint32_t count, uint32_t bound)
{
    const uint64_t index = (uint64_t)head + count;

    return (uint32_t)(index < bound ? index : index - bound);
}

/* The monotonic clock: a step of the wall clock must not stretch a wait. */
static void condition_init(pthread_cond_t *condition)
{
    pthread_condattr_t attributes;

    CHECK(pthread_condattr_init(&attributes) == 0);
    CHECK(pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) == 0);
    CHECK(pthread_cond_init(condition, &attributes) == 0);
    CHECK(pthread_condattr_destroy(&attributes) == 0);
}

enum status queue_create(size_t item_bytes, uint32_t item_count_max, struct queue **out)
{
    struct queue *queue;

    CHECK(item_bytes > 0);
    CHECK(item_count_max > 0);
    queue = memory_alloc(1, sizeof(*queue));
    if (queue == NULL) {
        return STATUS_MEMORY;
    }
    queue->items = memory_alloc(item_count_max, item_bytes);
    if (queue->items == NULL) {
        memory_free(queue);
        return STATUS_MEMORY;
    }
    queue->item_bytes = item_bytes;
    queue->item_count_max = item_count_max;
    CHECK(pthread_mutex_init(&queue->lock, NULL) == 0);
    condition_init(&queue->filled);
    *out = queue;
    return STATUS_OK;
}

void queue_destroy(struct queue *queue)
{
    if (queue == NULL) {
        return;
    }
    CHECK(pthread_cond_destroy(&queue->filled) == 0);
    CHECK(pthread_mutex_destroy(&queue->lock) == 0);
    memory_free(queue->items);
    memory_free(queue);
}

void queue_on_ready(struct queue *queue, void (*on_ready)(void *context), void *context)
{
    lock_acquire(&queue->lock);
    queue->on_ready = on_ready;
    queue->context = context;
    lock_release(&queue->lock);
}

enum status queue_push(struct queue *queue, const void *item)
{
    void (*on_ready)(void *context);
    void *context;
    uint32_t index;

    lock_acquire(&queue->lock);
    if (queue->count == queue->item_count_max) {
        lock_release(&queue->lock);
        return STATUS_LIMIT;
    }
    index = ring_index(queue->head_index, queue->count, queue->item_count_max);
    memcpy(queue->items + index * queue->item_bytes, item, queue->item_bytes);
    queue->count++;
    on_ready = queue->on_ready;
    context = queue->context;
    CHECK(pthread_cond_signal(&queue->filled) == 0);
    lock_release(&queue->lock);
    if (on_ready != NULL) {
        on_ready(context);
    }
    return STATUS_OK;
}

enum status queue_pop(struct queue *queue, void *item)
{
    lock_acquire(&queue->lock);
    if (queue->count == 0 || queue->is_held) {
        lock_release(&queue->lock);
        return STATUS_AGAIN;
    }
    memcpy(item, queue->items + queue->head_index * queue->item_bytes, queue->item_bytes);
    queue->head_index = ring_index(queue->head_index, 1, queue->item_count_max);
    queue->count--;
    lock_release(&queue->lock);
    return STATUS_OK;
}

void queue_hold(struct queue *queue, bool is_held)
{
    lock_acquire(&queue->lock);
    queue->is_held = is_held;
    CHECK(pthread_cond_signal(&queue->filled) == 0);
    lock_release(&queue->lock);
}

static struct timespec deadline_after_ms(int timeout_ms)
{
    struct timespec deadline;

    CHECK(clock_gettime(CLOCK_MONOTONIC, &deadline) == 0);
    deadline.tv_sec += timeout_ms / 1000;
    deadline.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (deadline.tv_nsec >= 1000000000) {
        deadline.tv_sec++;
        deadline.tv_nsec -= 1000000000;
    }
    return deadline;
}

void queue_wait(struct queue *queue, int timeout_ms)
{
    const struct timespec deadline = deadline_after_ms(timeout_ms < 0 ? 0 : timeout_ms);

    lock_acquire(&queue->lock);
    while ((queue->count == 0 || queue->is_held) && !queue->is_woken) {
        int result;

        if (timeout_ms < 0) {
            result = pthread_cond_wait(&queue->filled, &queue->lock);
        } else {
            result = pthread_cond_timedwait(&queue->filled, &queue->lock, &deadline);
        }
        if (result == ETIMEDOUT) {
            break;
        }
        CHECK(result == 0);
    }
    queue->is_woken = false;
    lock_release(&queue->lock);
}

void queue_wake(struct queue *queue)
{
    lock_acquire(&queue->lock);
    queue->is_woken = true;
    CHECK(pthread_cond_broadcast(&queue->filled) == 0);
    lock_release(&queue->lock);
}

uint32_t queue_count(struct queue *queue)
{
    uint32_t count;

    lock_acquire(&queue->lock);
    count = queue->count;
    lock_release(&queue->lock);
    return count;
}

enum status board_create(size_t value_bytes, uint32_t slot_count, struct board **out)
{
    struct board *board;
    enum status status = STATUS_MEMORY;

    CHECK(value_bytes > 0);
    CHECK(slot_count > 0);
    board = memory_alloc(1, sizeof(*board));
    if (board == NULL) {
        return STATUS_MEMORY;
    }
    CHECK(pthread_mutex_init(&board->lock, NULL) == 0);
    board->value_bytes = value_bytes;
    board->slot_count = slot_count;
    board->values = memory_alloc(slot_count, value_bytes);
    board->order = memory_alloc(slot_count, sizeof(*board->order));
    board->is_pending = memory_alloc(slot_count, sizeof(*board->is_pending));
    if (board->values == NULL || board->order == NULL || board->is_pending == NULL) {
        goto done;
    }
    *out = board;
    board = NULL; /* handed over */
    status = STATUS_OK;
done:
    board_destroy(board);
    return status;
}

void board_destroy(struct board *board)
{
    if (board == NULL) {
        return;
    }
    CHECK(pthread_mutex_destroy(&board->lock) == 0);
    memory_free(board->is_pending);
    memory_free(board->order);
    memory_free(board->values);
    memory_free(board);
}

void board_on_ready(struct board *board, void (*on_ready)(void *context), void *context)
{
    lock_acquire(&board->lock);
    board->on_ready = on_ready;
    board->context = context;
    lock_release(&board->lock);
}

void board_post(struct board *board, uint32_t slot, const void *value)
{
    void (*on_ready)(void *context);
    void *context;

    CHECK(slot < board->slot_count);
    lock_acquire(&board->lock);
    memcpy(board->values + slot * board->value_bytes, value, board->value_bytes);
    if (!board->is_pending[slot]) {
        board->is_pending[slot] = true;
        board->order[ring_index(board->head_index, board->count, board->slot_count)] = slot;
        board->count++;
    }
    on_ready = board->on_ready;
    context = board->context;
    lock_release(&board->lock);
    if (on_ready != NULL) {
        on_ready(context);
    }
}

enum status board_take(struct board *board, uint32_t *slot, void *value)
{
    uint32_t taken;

    lock_acquire(&board->lock);
    if (board->count == 0) {
        lock_release(&board->lock);
        return STATUS_AGAIN;
    }
    taken = board->order[board->head_index];
    board->head_index = ring_index(board->head_index, 1, board->slot_count);
    board->count--;
    board->is_pending[taken] = false;
    memcpy(value, board->values + taken * board->value_bytes, board->value_bytes);
    lock_release(&board->lock);
    *slot = taken;
    return STATUS_OK;
}

enum status flag_create(struct flag **out)
{
    struct flag *flag = memory_alloc(1, sizeof(*flag));

    if (flag == NULL) {
        return STATUS_MEMORY;
    }
    atomic_init(&flag->is_raised, false);
    *out = flag;
    return STATUS_OK;
}

void flag_destroy(struct flag *flag)
{
    memory_free(flag);
}

void flag_raise(struct flag *flag)
{
    atomic_store_explicit(&flag->is_raised, true, memory_order_release);
}

bool flag_is_raised(const struct flag *flag)
{
    return atomic_load_explicit(&flag->is_raised, memory_order_acquire);
}
