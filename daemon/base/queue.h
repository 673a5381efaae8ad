/* The only place where threads meet (besides the kernels' thread pool).
 *
 * queue   bounded FIFO of small values between two threads; a full queue answers LIMIT and never
 *         blocks
 * board   a coalescing mailbox: one value a slot and at most one pending entry a slot, so it cannot
 *         overflow; posting again replaces the value, and slots are taken in the order in which
 *         they became pending
 * flag    goes from down to up, once
 *
 * Thread: any may push or post, any may pop or take, one at a time may wait. Memory written before
 * a push is visible after the pop. Everything is allocated in create; the rest allocates nothing.
 *
 * on_ready (may be NULL) is called after a push or post, outside the lock, on the pushing thread.
 * It is the wake-up hook of a consumer that sleeps elsewhere (uv_async_send). Wake-ups may merge,
 * so consumers drain.
 */
#ifndef PERSONAD_BASE_QUEUE_H
#define PERSONAD_BASE_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct queue;
struct board;

MUST_USE enum status queue_create(size_t item_bytes, uint32_t item_count_max, struct queue **out);
void queue_destroy(struct queue *queue);
void queue_on_ready(struct queue *queue, void (*on_ready)(void *context), void *context);

/* Copies *item in. LIMIT when full. */
MUST_USE enum status queue_push(struct queue *queue, const void *item);

/* Copies the oldest item out. AGAIN when empty. */
MUST_USE enum status queue_pop(struct queue *queue, void *item);

/* While it is held nothing can be popped and no item ends a wait: what is pushed meanwhile is there
 * all at once when it is let go. */
void queue_hold(struct queue *queue, bool is_held);

/* Sleeps until an item is there, queue_wake() was called, or timeout_ms passed (negative: no
 * limit). A wake before the wait counts: the next wait returns at once.
 */
void queue_wait(struct queue *queue, int timeout_ms);
void queue_wake(struct queue *queue);
uint32_t queue_count(struct queue *queue);

MUST_USE enum status board_create(size_t value_bytes, uint32_t slot_count, struct board **out);
void board_destroy(struct board *board);
void board_on_ready(struct board *board, void (*on_ready)(void *context), void *context);
void board_post(struct board *board, uint32_t slot, const void *value);

/* AGAIN when nothing is pending. */
MUST_USE enum status board_take(struct board *board, uint32_t *slot, void *value);

/* A flag that one thread raises and others read (stop requests). */
struct flag;
MUST_USE enum status flag_create(struct flag **out);
void flag_destroy(struct flag *flag);
void flag_raise(struct flag *flag);
bool flag_is_raised(const struct flag *flag);

#endif
