/* One value of a journal becomes another one, as no daemon would have written it.
 *
 * Thread: one. For tests of what reads a journal as hostile input.
 */
#ifndef PERSONAD_TESTS_UNIT_JOURNAL_DAMAGE_H
#define PERSONAD_TESTS_UNIT_JOURNAL_DAMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "journal/journal.h"

/* Draws table, column, row and change from the seed; *what says them. False: the file itself has
 * refused it (a key that is there already, say), or the table is empty. */
bool journal_damage(struct journal *journal, uint64_t seed, char *what, size_t size);

#endif
