/* schema.sql and migrations/NNNN_*.sql, as the build puts them into the program.
 *
 * Thread: any, constant.
 */
#ifndef PERSONAD_JOURNAL_SCHEMA_H
#define PERSONAD_JOURNAL_SCHEMA_H

#include <stdint.h>

extern const char schema_sql[];

/* [i] brings version i + 1 to version i + 2. */
extern const char *const schema_migrations[]; /* ends with NULL */
extern const uint32_t schema_migration_count;

#endif
