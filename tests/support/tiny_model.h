/* Tiny random models: real GGUF files of any weight type with either tokeniser, the same bytes from
 * the same seed on every machine.
 *
 * Thread: any, pure. Weights are random blocks of their storage type, scaled so that attention is
 * sharp and logits are spread as a trained model's are (a few nats), so that long texts go on
 * without falling into a loop. The tokenizer covers all bytes, its merges come from a text of our
 * own, and <|im_start|>, <|im_end|> and <|endoftext|> are control tokens, which are very unlikely.
 */
#ifndef PERSONAD_TESTS_SUPPORT_TINY_MODEL_H
#define PERSONAD_TESTS_SUPPORT_TINY_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/vocabulary.h"

struct tiny_spec {
    uint32_t dtype; /* enum dtype of all matrices; norms are F32 */
    enum vocabulary_kind tokenizer;
    uint64_t seed;
    uint32_t layer_count;
    uint32_t width; /* a multiple of the type's block, as query width and hidden are */
    uint32_t head_count;
    uint32_t kv_head_count;
    uint32_t head_size;
    uint32_t hidden;
    uint32_t vocabulary_count; /* at least 400 */
    uint32_t context_token_count;
    bool tied;         /* no output matrix */
    bool biases;       /* q, k, v and attention output have biases */
    bool rope_factors; /* a rope_freqs.weight tensor */
    uint32_t window;   /* of sliding-window attention; 0: no such key */
    float rope_linear; /* linear scaling of positions by this factor; 0: none */
};

/* 2 layers, 256 wide, 4 heads of 64 over 2 KV heads, 512 tokens, a context of 4096. */
struct tiny_spec tiny_spec_of(uint32_t dtype, enum vocabulary_kind tokenizer, uint64_t seed);

/* The file's bytes: free data with memory_free(). */
struct bytes tiny_model_create(const struct tiny_spec *spec);

#endif
