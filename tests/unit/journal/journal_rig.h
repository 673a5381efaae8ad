/* A journal in a folder of its own, and records with usual values.
 *
 * Thread: one. Sessions, personas and origins are made as they are needed; node ids are the test's.
 */
#ifndef PERSONAD_TESTS_UNIT_JOURNAL_JOURNAL_RIG_H
#define PERSONAD_TESTS_UNIT_JOURNAL_JOURNAL_RIG_H

#include "journal/journal.h"

enum { RIG_PATH_BYTES_MAX = 512, RIG_SESSION = 5, RIG_PERSONA = 3 };

struct journal_rig {
    char folder[RIG_PATH_BYTES_MAX];
    char path[RIG_PATH_BYTES_MAX];
    struct journal *journal;
};

/* An empty journal with a persona, a prompt and a session, all committed and told. */
void journal_rig_init(struct journal_rig *rig);
void journal_rig_finish(struct journal_rig *rig); /* removes the folder */

/* Closes it and opens it again. */
void journal_rig_reopen(struct journal_rig *rig);

/* One batch of those records; its status. It is destroyed when it is refused. */
enum status journal_rig_submit(struct journal_rig *rig, const struct journal_record *records,
                               uint32_t count);

/* Runs the journal and takes all that it tells; the worst status. */
enum status journal_rig_settle(struct journal_rig *rig);

struct journal_record rig_given(uint64_t node, uint64_t parent);
struct journal_record rig_intent(uint64_t node, uint64_t parent);
struct journal_record rig_finish(uint64_t node, uint32_t first, uint32_t count);
struct journal_record rig_checkpoint(uint64_t node, uint32_t first, uint32_t count);
struct journal_record rig_context(uint64_t id);
struct journal_record rig_steps(void);
struct journal_record rig_key(uint32_t number);

#endif
