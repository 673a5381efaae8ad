/* A card for tests of single kernels: copies of the host's arrays on it, there and back. The same
 * test then runs on the emulated card and on a real one.
 *
 * Thread: the test's. Ownership: it owns the card and the copies, of exactly the size; arrays
 * are borrowed until card_finish. Functions assert with cmocka, never in a kernel.
 */
#ifndef PERSONAD_TESTS_EMULATOR_CARD_H
#define PERSONAD_TESTS_EMULATOR_CARD_H

#include <stddef.h>
#include <stdint.h>

#include <vector>

#include "kernels/cuda/device.h"
#include "tests/emulator/emulator.h"

struct card_copy {
    void *host; /* NULL: does not come back */
    void *there;
    uint64_t size_bytes;
};

struct card {
    struct device *device;
    bool is_owner;
    std::vector<struct card_copy> copies;
};

/* A card of its own, or one that the test has opened already. */
void card_open(struct card *card);
void card_borrow(struct card *card, struct device *device);
/* Frees the copies, and the card where it opened it. */
void card_finish(struct card *card);

void *card_give_bytes(struct card *card, const void *bytes, uint64_t size_bytes, void *back_to);

/* A copy of `count` elements on the card; NULL of NULL. card_take brings back what is not const. */
template <typename T> static inline T *card_give(struct card *card, T *array, uint64_t count)
{
    return array == NULL ? NULL
                         : (T *)card_give_bytes(card, array, count * sizeof(T), (void *)array);
}

template <typename T>
static inline const T *card_give(struct card *card, const T *array, uint64_t count)
{
    return array == NULL ? NULL : (const T *)card_give_bytes(card, array, count * sizeof(T), NULL);
}

/* Waits, and brings all copies back to where they came from. */
void card_take(struct card *card);

/* Whether the card is the emulator's, which shows what a real one may do or not. Else it prints
 * `what`, a check that is left to the emulator: the caller leaves it out, or skips the test. */
bool card_is_emulated(const char *what);

/* What a card's memory holds. */
void card_read(struct device *device, void *to, const void *from, uint64_t size_bytes);

#endif
