/* The vocabulary of the tree simulator: 39 tokens, of which a fake model samples the first 12, so
 * that stops, cut tokens, halves of characters and ends happen all the time.
 *
 * Thread: one. What is borrowed lives as long as the program.
 */
#ifndef PERSONAD_TESTS_SIM_TREE_WORDS_H
#define PERSONAD_TESTS_SIM_TREE_WORDS_H

#include <stdint.h>

#include "text/tokenizer.h"

enum { TREE_SAMPLED_COUNT = 12 };

/* Makes a tokeniser over the vocabulary. */
struct tokenizer *tree_words_tokenizer(void);

/* Text number `choice`, of the letters that the vocabulary has. */
struct bytes tree_words_text(uint32_t choice);

/* What a reply may be held to: choice number `choice`. */
struct bytes tree_words_choice(uint32_t choice);

/* Stop string number `choice`. */
struct bytes tree_words_stop(uint32_t choice);

#endif
