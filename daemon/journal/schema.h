/* schema.sql and migrations/NNNN_*.sql, as the build puts them into the program.
 *
 * Thread: any, constant.
 */
#ifndef PERSONAD_JOURNAL_SCHEMA_H
#define PERSONAD_JOURNAL_SCHEMA_H

#include <stdint.h>

struct schema {
    const char *sql;               /* makes an empty database of the newest version */
    const char *const *migrations; /* [i] brings version i + 1 to version i + 2; ends with NULL */
    uint32_t migration_count;      /* so the newest version is one more */
};

extern const struct schema schema_current;

#endif
