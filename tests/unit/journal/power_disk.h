/* A disk in memory that can lose its power, under SQLite.
 *
 * Thread: one. Installed, it is where every database that is opened lives. What was written and not
 * synced when the power goes is there or not, sector by sector, as a seed draws it; what was synced
 * is there. Making and deleting a file is taken as durable at once.
 */
#ifndef PERSONAD_TESTS_UNIT_JOURNAL_POWER_DISK_H
#define PERSONAD_TESTS_UNIT_JOURNAL_POWER_DISK_H

#include <stdbool.h>
#include <stdint.h>

void power_disk_install(void);
void power_disk_remove(void);

/* An empty disk without faults. */
void power_disk_reset(void);

/* Writes, truncations and syncs so far. */
uint64_t power_disk_operation_count(void);

/* From that operation on (0: never) each fails; only_one: that one alone. full: as a full disk. */
void power_disk_fail_at(uint64_t operation, bool only_one, bool full);

/* The power goes and comes back: the files are what the disk really holds. */
void power_disk_cut(uint64_t seed);

#endif
