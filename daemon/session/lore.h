/* Lore: texts of a card that the conversation calls up by their keys.
 *
 * Thread: loop, pure. An entry is active when it is constant, or when one of its keys (and, where
 * it has secondary ones, one of those too) stands in the last turns before the one that is written.
 * While all active ones take more tokens than the card's budget, those of the lowest priority are
 * left out. What is left stands by insertion order: at its depth, or behind the prompt.
 */
#ifndef PERSONAD_SESSION_LORE_H
#define PERSONAD_SESSION_LORE_H

#include "session/inserting.h"

/* Adds the active lore of that persona of the cast. MEMORY. */
MUST_USE enum status lore_add(const struct inserting *inserting, uint32_t speaker,
                              struct insert_list *out);

#endif
