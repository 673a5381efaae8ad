#include "sim/tree_plant.h"

#include <stdbool.h>

#include "journal/batch.h"
#include "schedule/engine.h"
#include "schedule/kv_pages.h"
#include "schedule/kv_tree.h"
#include "session/author_note.h"
#include "session/change.h"
#include "session/context.h"
#include "session/expansion.h"
#include "session/filling.h"
#include "session/inserting.h"
#include "session/portable.h"
#include "session/record.h"
#include "session/seed.h"
#include "session/tree.h"
#include "text/byte_mask.h"

/* The linker calls them so (--wrap): what a caller means, and what it gets. */
#define REAL(name) __asm__("__real_" #name)
#define WRAPPED(name) __asm__("__wrap_" #name)

enum status real_tree_node_create(struct session *session, struct place place, uint32_t speaker,
                                  struct error *error, struct node **out) REAL(tree_node_create);
enum status real_context_create(const struct context_query *query, struct error *error,
                                struct context **out) REAL(context_create);
uint64_t real_seed_of_node(uint64_t s, const uint8_t context_digest[SHA256_BYTES],
                           const uint32_t *ordinals, uint32_t ordinal_count) REAL(seed_of_node);
void real_kv_pages_release(struct kv_pages *pages, uint32_t page) REAL(kv_pages_release);
uint32_t real_kv_tree_page(const struct kv_tree *tree, uint32_t node) REAL(kv_tree_page);
enum status real_engine_event_take(struct engine *engine, uint32_t *slot,
                                   struct branch_event *event) REAL(engine_event_take);
enum status real_journal_batch_add(struct journal_batch *batch, const struct journal_record *record)
    REAL(journal_batch_add);

enum status planted_tree_node_create(struct session *session, struct place place, uint32_t speaker,
                                     struct error *error, struct node **out)
    WRAPPED(tree_node_create);
enum status planted_context_create(const struct context_query *query, struct error *error,
                                   struct context **out) WRAPPED(context_create);
uint64_t planted_seed_of_node(uint64_t s, const uint8_t context_digest[SHA256_BYTES],
                              const uint32_t *ordinals, uint32_t ordinal_count)
    WRAPPED(seed_of_node);
void planted_kv_pages_release(struct kv_pages *pages, uint32_t page) WRAPPED(kv_pages_release);
uint32_t planted_kv_tree_page(const struct kv_tree *tree, uint32_t node) WRAPPED(kv_tree_page);
enum status planted_engine_event_take(struct engine *engine, uint32_t *slot,
                                      struct branch_event *event) WRAPPED(engine_event_take);
enum status planted_journal_batch_add(struct journal_batch *batch,
                                      const struct journal_record *record)
    WRAPPED(journal_batch_add);
enum status real_filling_damaged(const struct filling *filling, const char *what, uint64_t id)
    REAL(filling_damaged);
enum status planted_filling_damaged(const struct filling *filling, const char *what, uint64_t id)
    WRAPPED(filling_damaged);

enum status real_change_give(struct change *change, const struct change_given *given,
                             struct place *place) REAL(change_give);
enum status planted_change_give(struct change *change, const struct change_given *given,
                                struct place *place) WRAPPED(change_give);
enum status real_cast_frame_find(struct cast *cast, struct encoder *encoder, uint32_t viewpoint,
                                 uint32_t from, uint32_t to, struct error *error,
                                 const struct cast_frame **out) REAL(cast_frame_find);
enum status planted_cast_frame_find(struct cast *cast, struct encoder *encoder, uint32_t viewpoint,
                                    uint32_t from, uint32_t to, struct error *error,
                                    const struct cast_frame **out) WRAPPED(cast_frame_find);
const struct prompt *real_cast_prompt(const struct cast *cast, uint32_t viewpoint)
    REAL(cast_prompt);
const struct prompt *planted_cast_prompt(const struct cast *cast, uint32_t viewpoint)
    WRAPPED(cast_prompt);
const struct author_note *real_author_note_in_force(const struct session *session,
                                                    const struct tree_step *steps, uint32_t count)
    REAL(author_note_in_force);
const struct author_note *planted_author_note_in_force(const struct session *session,
                                                       const struct tree_step *steps,
                                                       uint32_t count)
    WRAPPED(author_note_in_force);
enum status real_inserting_add_ids(const struct inserting *inserting, enum insert_role role,
                                   uint32_t depth, struct id_list *ids, struct insert_list *out)
    REAL(inserting_add_ids);
enum status planted_inserting_add_ids(const struct inserting *inserting, enum insert_role role,
                                      uint32_t depth, struct id_list *ids, struct insert_list *out)
    WRAPPED(inserting_add_ids);
bool real_byte_rule_fill(const struct byte_rule *rule, const struct byte_mask *mask,
                         struct bytes text, uint32_t *words) REAL(byte_rule_fill);
bool planted_byte_rule_fill(const struct byte_rule *rule, const struct byte_mask *mask,
                            struct bytes text, uint32_t *words) WRAPPED(byte_rule_fill);
enum status real_sampler_create_distinct(const struct sampler *from, uint64_t seed, uint32_t index,
                                         const uint32_t *end_ids, uint32_t end_count,
                                         uint32_t vocabulary_count, struct sampler **out)
    REAL(sampler_create_distinct);
enum status planted_sampler_create_distinct(const struct sampler *from, uint64_t seed,
                                            uint32_t index, const uint32_t *end_ids,
                                            uint32_t end_count, uint32_t vocabulary_count,
                                            struct sampler **out) WRAPPED(sampler_create_distinct);
enum status real_expansion_path(const struct expansion *expansion, uint32_t number,
                                struct id_list *out) REAL(expansion_path);
enum status planted_expansion_path(const struct expansion *expansion, uint32_t number,
                                   struct id_list *out) WRAPPED(expansion_path);
void real_portable_renumber(struct portable *portable, uint64_t session, uint64_t first_node)
    REAL(portable_renumber);
void planted_portable_renumber(struct portable *portable, uint64_t session, uint64_t first_node)
    WRAPPED(portable_renumber);

static enum tree_plant planted;
static uint32_t call_count;

void tree_plant_set(enum tree_plant plant)
{
    planted = plant;
    call_count = 0;
}

const char *tree_plant_name(enum tree_plant plant)
{
    static const char *const names[PLANT_LOAD + 1] = {
        [PLANT_NONE] = "nothing",
        [PLANT_FORK_PARENT] = "a fork's parent offset off by one",
        [PLANT_FORK_CONTEXT] = "a fork's context off by one",
        [PLANT_SEED] = "a seed without the path",
        [PLANT_PAGE_TWICE] = "a page released twice",
        [PLANT_PAGE_LOST] = "a page never released",
        [PLANT_PAGE_SWAPPED] = "another page of the KV tree",
        [PLANT_CUT_FORGOTTEN] = "a cut not applied",
        [PLANT_CUT_UNSTORED] = "a cut stored wrong",
        [PLANT_HEAD_UNSTORED] = "a head not stored",
        [PLANT_MARK_UNSTORED] = "a mark not stored",
        [PLANT_KEY_UNSTORED] = "a client key not stored",
        [PLANT_CHECKPOINT] = "a checkpoint not stored",
        [PLANT_GREETING] = "a greeting without its end",
        [PLANT_EYES] = "a turn seen through another's eyes",
        [PLANT_JOINT] = "one persona's prompt for all",
        [PLANT_NOTE_PATH] = "a note at the end of a path overlooked",
        [PLANT_NOTE_UNSTORED] = "a note not stored",
        [PLANT_LORE] = "lore a turn too early",
        [PLANT_CHOICES] = "choices that hold nothing",
        [PLANT_DISTINCT] = "siblings that draw alike",
        [PLANT_EXPAND] = "an expansion behind the parent",
        [PLANT_IMPORT] = "imported ids given out again",
        [PLANT_LOAD] = "a loader that overlooks what is damaged",
    };

    return names[plant];
}

static bool is_inside(struct place place)
{
    uint32_t count = 0;

    (void)node_content(place.node, &count);
    return place.offset > 0 && place.offset < count;
}

/* Every so often, so that a fault is met in the middle of other things. */
static bool is_due(enum tree_plant plant, uint32_t every)
{
    return planted == plant && ++call_count % every == 0;
}

enum status planted_tree_node_create(struct session *session, struct place place, uint32_t speaker,
                                     struct error *error, struct node **out)
{
    if (planted == PLANT_FORK_PARENT && is_inside(place)) {
        place.offset--;
    }
    return real_tree_node_create(session, place, speaker, error, out);
}

enum status planted_context_create(const struct context_query *query, struct error *error,
                                   struct context **out)
{
    struct context_query copy = *query;

    if (planted == PLANT_FORK_CONTEXT && is_inside(copy.place)) {
        copy.place.offset--;
    }
    return real_context_create(&copy, error, out);
}

uint64_t planted_seed_of_node(uint64_t s, const uint8_t context_digest[SHA256_BYTES],
                              const uint32_t *ordinals, uint32_t ordinal_count)
{
    const uint32_t skip = planted == PLANT_SEED ? ordinal_count - 1 : 0;

    return real_seed_of_node(s, context_digest, ordinals + skip, ordinal_count - skip);
}

void planted_kv_pages_release(struct kv_pages *pages, uint32_t page)
{
    if (is_due(PLANT_PAGE_LOST, 20)) {
        return;
    }
    real_kv_pages_release(pages, page);
    if (is_due(PLANT_PAGE_TWICE, 20)) {
        real_kv_pages_release(pages, page);
    }
}

uint32_t planted_kv_tree_page(const struct kv_tree *tree, uint32_t node)
{
    const uint32_t page = real_kv_tree_page(tree, node);

    return is_due(PLANT_PAGE_SWAPPED, 5) && page > 0 ? page - 1 : page;
}

enum status planted_engine_event_take(struct engine *engine, uint32_t *slot,
                                      struct branch_event *event)
{
    const enum status status = real_engine_event_take(engine, slot, event);

    if (status == STATUS_OK && planted == PLANT_CUT_FORGOTTEN &&
        event->finish == FINISH_CANCELLED && event->sampled_count > 0) {
        event->finish = FINISH_LENGTH;
        event->kept = event->released_count;
    }
    return status;
}

static bool is_lost(const struct journal_record *record)
{
    return (planted == PLANT_HEAD_UNSTORED && record->kind == JOURNAL_HEAD) ||
           (planted == PLANT_MARK_UNSTORED && record->kind == JOURNAL_NODE_MARK) ||
           (planted == PLANT_KEY_UNSTORED && record->kind == JOURNAL_KEY) ||
           (planted == PLANT_CHECKPOINT && record->kind == JOURNAL_CHECKPOINT) ||
           (planted == PLANT_NOTE_UNSTORED && record->kind == JOURNAL_AUTHOR_NOTE);
}

enum status planted_journal_batch_add(struct journal_batch *batch,
                                      const struct journal_record *record)
{
    struct journal_record copy = *record;

    if (is_lost(record)) {
        return STATUS_OK;
    }
    if (planted == PLANT_CUT_UNSTORED && record->kind == JOURNAL_FINISH &&
        record->u.finish.finish == NODE_CUT && record->u.finish.kept > 0) {
        copy.u.finish.kept--;
        copy.u.finish.content_bytes = 0;
    }
    return real_journal_batch_add(batch, &copy);
}

enum status planted_filling_damaged(const struct filling *filling, const char *what, uint64_t id)
{
    return planted == PLANT_LOAD ? STATUS_OK : real_filling_damaged(filling, what, id);
}

enum status planted_change_give(struct change *change, const struct change_given *given,
                                struct place *place)
{
    struct change_given copy = *given;

    copy.count -= planted == PLANT_GREETING && copy.is_greeting;
    return real_change_give(change, &copy, place);
}

enum status planted_cast_frame_find(struct cast *cast, struct encoder *encoder, uint32_t viewpoint,
                                    uint32_t from, uint32_t to, struct error *error,
                                    const struct cast_frame **out)
{
    return real_cast_frame_find(cast, encoder,
                                planted == PLANT_EYES ? cast_first_persona(cast) : viewpoint, from,
                                to, error, out);
}

const struct prompt *planted_cast_prompt(const struct cast *cast, uint32_t viewpoint)
{
    return planted == PLANT_JOINT ? cast->members[viewpoint].prompt
                                  : real_cast_prompt(cast, viewpoint);
}

const struct author_note *planted_author_note_in_force(const struct session *session,
                                                       const struct tree_step *steps,
                                                       uint32_t count)
{
    return real_author_note_in_force(session, steps,
                                     count - (planted == PLANT_NOTE_PATH && count > 0));
}

enum status planted_inserting_add_ids(const struct inserting *inserting, enum insert_role role,
                                      uint32_t depth, struct id_list *ids, struct insert_list *out)
{
    return real_inserting_add_ids(inserting, role,
                                  depth + (planted == PLANT_LORE && depth < UINT32_MAX), ids, out);
}

bool planted_byte_rule_fill(const struct byte_rule *rule, const struct byte_mask *mask,
                            struct bytes text, uint32_t *words)
{
    return planted == PLANT_CHOICES || real_byte_rule_fill(rule, mask, text, words);
}

enum status planted_sampler_create_distinct(const struct sampler *from, uint64_t seed,
                                            uint32_t index, const uint32_t *end_ids,
                                            uint32_t end_count, uint32_t vocabulary_count,
                                            struct sampler **out)
{
    return real_sampler_create_distinct(from, seed, planted == PLANT_DISTINCT ? 0 : index, end_ids,
                                        end_count, vocabulary_count, out);
}

enum status planted_expansion_path(const struct expansion *expansion, uint32_t number,
                                   struct id_list *out)
{
    if (planted == PLANT_EXPAND && number > 0) {
        number = expansion->nodes[number - 1].parent;
    }
    return real_expansion_path(expansion, number, out);
}

void planted_portable_renumber(struct portable *portable, uint64_t session, uint64_t first_node)
{
    real_portable_renumber(portable, session, first_node + (planted == PLANT_IMPORT));
}
