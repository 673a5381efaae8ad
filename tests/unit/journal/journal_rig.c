#include "unit/journal/journal_rig.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"

static const char letters[] = "abcdefghijklmnopqrstuvwxyz";
static const uint32_t words[64] = {1, 2, 3, 4, 5, 6, 7, 8};
static const uint8_t prompt_digest[JOURNAL_DIGEST_BYTES] = {7};
static const uint8_t steps_digest[JOURNAL_DIGEST_BYTES] = {9};

static struct journal_origin origin(void)
{
    return (struct journal_origin){.model_hash = {1, 2}, .numerics_id = bytes_of_text("test/1")};
}

void journal_rig_init(struct journal_rig *rig)
{
    const struct journal_record records[] = {
        {.kind = JOURNAL_PERSONA,
         .u.persona = {.id = RIG_PERSONA, .version = 1, .card = bytes_of_text("{}")}},
        {.kind = JOURNAL_PROMPT,
         .u.prompt = {.digest = {7},
                      .persona_id = RIG_PERSONA,
                      .scope = UINT64_C(1) << 63 | 12345,
                      .character = bytes_of_text("Ada"),
                      .user = bytes_of_text("User"),
                      .ids = bytes_of(words, 12)}},
        {.kind = JOURNAL_SESSION,
         .u.session = {.id = RIG_SESSION,
                       .seed = UINT64_MAX,
                       .label = bytes_of_text("label"),
                       .head_offset = UINT32_MAX,
                       .origin = origin()}},
        {.kind = JOURNAL_MEMBER,
         .u.member = {.session_id = RIG_SESSION, .name = bytes_of_text("User")}},
        {.kind = JOURNAL_MEMBER,
         .u.member = {.session_id = RIG_SESSION,
                      .speaker = 1,
                      .name = bytes_of_text("Ada"),
                      .prompt_digest = bytes_of(prompt_digest, sizeof(prompt_digest))}},
    };
    struct error error = {0};

    memset(rig, 0, sizeof(*rig));
    (void)snprintf(rig->folder, sizeof(rig->folder), "/tmp/pd-journal-XXXXXX");
    CHECK(mkdtemp(rig->folder) != NULL);
    (void)snprintf(rig->path, sizeof(rig->path), "%.400s/journal.db", rig->folder);
    if (journal_open(rig->path, &error, &rig->journal) != STATUS_OK) {
        fprintf(stderr, "%s\n", error.text);
        abort();
    }
    CHECK(journal_rig_submit(rig, records, sizeof(records) / sizeof(records[0])) == STATUS_OK);
    CHECK(journal_rig_settle(rig) == STATUS_OK);
}

void journal_rig_finish(struct journal_rig *rig)
{
    DIR *folder;

    journal_close(rig->journal);
    folder = opendir(rig->folder);
    CHECK(folder != NULL);
    for (struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder)) {
        char path[2 * RIG_PATH_BYTES_MAX];

        (void)snprintf(path, sizeof(path), "%s/%s", rig->folder, entry->d_name);
        (void)unlink(path);
    }
    (void)closedir(folder);
    CHECK(rmdir(rig->folder) == 0);
}

void journal_rig_reopen(struct journal_rig *rig)
{
    struct error error = {0};

    journal_close(rig->journal);
    rig->journal = NULL;
    if (journal_open(rig->path, &error, &rig->journal) != STATUS_OK) {
        fprintf(stderr, "%s\n", error.text);
        abort();
    }
}

enum status journal_rig_submit(struct journal_rig *rig, const struct journal_record *records,
                               uint32_t count)
{
    struct journal_batch *batch = NULL;
    enum status status;

    CHECK(journal_batch_create(&batch) == STATUS_OK);
    for (uint32_t i = 0; i < count; i++) {
        CHECK(journal_batch_add(batch, &records[i]) == STATUS_OK);
    }
    status = journal_submit(rig->journal, batch);
    if (status != STATUS_OK) {
        journal_batch_destroy(batch);
    }
    return status;
}

enum status journal_rig_settle(struct journal_rig *rig)
{
    struct journal_completion completion;
    enum status worst = STATUS_OK;

    while (journal_step(rig->journal) > 0) {
    }
    while (journal_completed_pop(rig->journal, &completion) == STATUS_OK) {
        worst = completion.status != STATUS_OK ? completion.status : worst;
    }
    CHECK(journal_pending_count(rig->journal) == 0);
    return worst;
}

/* ---- records ---- */

static struct journal_node node_of(uint64_t node, uint64_t parent)
{
    return (struct journal_node){.id = node,
                                 .session_id = RIG_SESSION,
                                 .parent_id = parent,
                                 .created_us = 1000 + node,
                                 .ordinal = 2,
                                 .speaker = 1,
                                 .flags = JOURNAL_NODE_OPENS_TURN};
}

struct journal_record rig_given(uint64_t node, uint64_t parent)
{
    struct journal_record record = {.kind = JOURNAL_GIVEN};

    record.u.given = (struct journal_given){.node = node_of(node, parent),
                                            .finish = 8,
                                            .ids = bytes_of(words, 8),
                                            .text = bytes_of_text("two words")};
    record.u.given.node.origin = 1;
    return record;
}

struct journal_record rig_context(uint64_t id)
{
    struct journal_record record = {.kind = JOURNAL_CONTEXT};

    record.u.context = (struct journal_context){.id = id,
                                                .session_id = RIG_SESSION,
                                                .speaker = 1,
                                                .prompt_digest = {7},
                                                .token_count = 3,
                                                .segments = bytes_of_text("segments")};
    return record;
}

struct journal_record rig_steps(void)
{
    struct journal_record record = {.kind = JOURNAL_STEPS};

    record.u.steps = (struct journal_steps){
        .digest = {9}, .sampler = bytes_of_text("sampler"), .cues = bytes_of_text("cues")};
    return record;
}

/* With the context of its own id, which has to be there. */
struct journal_record rig_intent(uint64_t node, uint64_t parent)
{
    struct journal_record record = {.kind = JOURNAL_INTENT};

    record.u.intent = (struct journal_intent){.node = node_of(node, parent),
                                              .seed = UINT64_MAX - node,
                                              .context_id = node,
                                              .room = 100,
                                              .top_count = 1,
                                              .origin = origin()};
    memcpy(record.u.intent.steps_digest, steps_digest, sizeof(steps_digest));
    return record;
}

static struct journal_chunk chunk_of(uint32_t first, uint32_t count)
{
    const struct bytes row = bytes_of(words + first, (size_t)count * 4);

    return (struct journal_chunk){
        .first = first,
        .count = count,
        .tokens = row,
        .logprobs = row,
        .logprobs_sampler = row,
        .entropies = row,
        .text_ends = row,
        .tops = bytes_of(words + first, (size_t)count * 8),
        .text = bytes_of(&letters[first], count),
    };
}

struct journal_record rig_checkpoint(uint64_t node, uint32_t first, uint32_t count)
{
    struct journal_record record = {.kind = JOURNAL_CHECKPOINT};

    record.u.checkpoint = (struct journal_checkpoint){
        .node_id = node, .chunk = chunk_of(first, count), .released_count = first + count};
    return record;
}

struct journal_record rig_finish(uint64_t node, uint32_t first, uint32_t count)
{
    struct journal_record record = {.kind = JOURNAL_FINISH};

    record.u.finish = (struct journal_finish){.node_id = node,
                                              .finished_us = 99,
                                              .chunk = chunk_of(first, count),
                                              .finish = 1,
                                              .kept = first + count,
                                              .tail = bytes_of(words, 4),
                                              .error_text = bytes_of_text("")};
    return record;
}

struct journal_record rig_key(uint32_t number)
{
    struct journal_record record = {.kind = JOURNAL_KEY};
    static const uint64_t nodes[] = {1, 2};

    record.u.key = (struct journal_key){.uid = number,
                                        .request = 7,
                                        .session_id = RIG_SESSION,
                                        .key = bytes_of_text("key"),
                                        .nodes = bytes_of(nodes, sizeof(nodes))};
    return record;
}
