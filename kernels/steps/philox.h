/* Philox4x32-10: four random words as a pure function of a key and a counter.
 *
 * Reads as C11 and as CUDA C++. Thread: any. The generator of Salmon, Moraes, Dror and Shaw,
 * "Parallel random numbers: as easy as 1, 2, 3" (2011). The key is a node's seed, low word first;
 * the counter is (index in the node's sampled ids, purpose, draw, 0). There is no other randomness.
 */
#ifndef PERSONAD_KERNELS_STEPS_PHILOX_H
#define PERSONAD_KERNELS_STEPS_PHILOX_H

#include "kernels/steps/math.h"

enum philox_purpose {
    PHILOX_TOKEN = 0,
    PHILOX_DISTINCT = 1
}; /* stored nodes depend on the numbers: only append */

struct philox_words {
    uint32_t word[4];
};

STEPS_FUNCTION struct philox_words philox_block(uint64_t key, uint32_t c0, uint32_t c1, uint32_t c2,
                                                uint32_t c3)
{
    uint32_t key_low = (uint32_t)key;
    uint32_t key_high = (uint32_t)(key >> 32);
    struct philox_words out;

    for (int round = 0; round < 10; round++) {
        const uint64_t first = (uint64_t)0xd2511f53u * c0;
        const uint64_t second = (uint64_t)0xcd9e8d57u * c2;
        const uint32_t next0 = (uint32_t)(second >> 32) ^ c1 ^ key_low;
        const uint32_t next2 = (uint32_t)(first >> 32) ^ c3 ^ key_high;
        c1 = (uint32_t)second;
        c3 = (uint32_t)first;
        c0 = next0;
        c2 = next2;
        key_low += 0x9e3779b9u;
        key_high += 0xbb67ae85u;
    }
    out.word[0] = c0;
    out.word[1] = c1;
    out.word[2] = c2;
    out.word[3] = c3;
    return out;
}

/* 64 bits of draw number `draw` for one purpose at one place of a node. */
STEPS_FUNCTION uint64_t philox_draw(uint64_t seed, uint32_t index, uint32_t purpose, uint32_t draw)
{
    const struct philox_words words = philox_block(seed, index, purpose, draw, 0);
    return (uint64_t)words.word[1] << 32 | words.word[0];
}

#endif
