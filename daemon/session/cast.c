#include "session/cast.h"

#include <string.h>

#include "base/check.h"
#include "base/memory.h"
#include "limits.h"

static void forget_frames(struct cast *cast)
{
    for (uint32_t i = 0; i < cast->frame_count; i++) {
        memory_free(cast->frames[i]->ids);
        memory_free(cast->frames[i]);
    }
    cast->frame_count = 0;
}

/* Another member, or another name: frames may be others now. */
static void change(struct cast *cast)
{
    uint32_t name_count = 0;

    for (uint32_t i = 0; i < cast->count; i++) {
        uint32_t k = 0;

        while (k < i && !bytes_equal(cast->members[k].name, cast->members[i].name)) {
            k++;
        }
        name_count += k == i;
    }
    cast->is_group = name_count > 2;
    forget_frames(cast);
}

enum status cast_add(struct cast *cast, struct bytes name, struct prompt *prompt,
                     struct error *error)
{
    struct cast_member *members;
    char *copy;

    if (cast->count == SESSION_CAST_COUNT_MAX) {
        return error_set_limit(error, "SESSION_CAST_COUNT_MAX", SESSION_CAST_COUNT_MAX,
                               "a session has at most %u speakers",
                               (unsigned)SESSION_CAST_COUNT_MAX);
    }
    copy = memory_copy_text((const char *)name.data, name.size);
    members = memory_resize(cast->members, cast->count + 1, sizeof(*members));
    if (members != NULL) {
        cast->members = members;
    }
    if (copy == NULL || members == NULL) {
        memory_free(copy);
        return error_set(error, STATUS_MEMORY, "out of memory for a speaker");
    }
    cast->members[cast->count] =
        (struct cast_member){.name = bytes_of(copy, name.size), .prompt = prompt};
    cast->count++;
    change(cast);
    return STATUS_OK;
}

enum status cast_keep_texts(struct cast_member *member, struct bytes system, struct bytes examples,
                            struct error *error)
{
    char *system_copy = memory_copy_text((const char *)system.data, system.size);
    char *examples_copy = memory_copy_text((const char *)examples.data, examples.size);

    CHECK(member->system.data == NULL);
    if (system_copy == NULL || examples_copy == NULL) {
        memory_free(system_copy);
        memory_free(examples_copy);
        return error_set(error, STATUS_MEMORY, "out of memory for a speaker");
    }
    member->system = bytes_of(system_copy, system.size);
    member->examples = bytes_of(examples_copy, examples.size);
    return STATUS_OK;
}

enum status cast_add_joint(struct cast *cast, struct prompt *prompt, uint32_t member_count,
                           struct error *error)
{
    struct cast_joint *joints = memory_resize(cast->joints, cast->joint_count + 1, sizeof(*joints));

    if (joints == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory for a prompt");
    }
    cast->joints = joints;
    cast->joints[cast->joint_count++] = (struct cast_joint){prompt, member_count};
    forget_frames(cast);
    return STATUS_OK;
}

enum status cast_check_name(const struct cast *cast, struct bytes name, bool is_human,
                            struct error *error)
{
    for (uint32_t i = 0; i < cast->count; i++) {
        const struct cast_member *member = &cast->members[i];

        if ((is_human || member->prompt == NULL) && bytes_equal(member->name, name)) {
            return error_set(error, STATUS_CONFLICT,
                             "speaker %u is called \"%.*s\" already; choose another name", i,
                             (int)name.size, (const char *)name.data);
        }
    }
    return STATUS_OK;
}

void cast_swap_name(struct cast *cast, uint32_t speaker, struct bytes *name)
{
    const struct bytes before = cast->members[speaker].name;

    CHECK(speaker < cast->count);
    cast->members[speaker].name = *name;
    *name = before;
    change(cast);
}

void cast_cut(struct cast *cast, uint32_t count,
              void (*release)(void *context, struct prompt *prompt), void *context)
{
    while (cast->count > count) {
        struct cast_member *member = &cast->members[--cast->count];

        memory_free((void *)(uintptr_t)member->name.data);
        memory_free((void *)(uintptr_t)member->system.data);
        memory_free((void *)(uintptr_t)member->examples.data);
        if (member->prompt != NULL) {
            release(context, member->prompt);
        }
    }
    while (cast->joint_count > 0 && cast->joints[cast->joint_count - 1].member_count > count) {
        release(context, cast->joints[--cast->joint_count].prompt);
    }
    change(cast);
}

void cast_finish(struct cast *cast, void (*release)(void *context, struct prompt *prompt),
                 void *context)
{
    cast_cut(cast, 0, release, context);
    memory_free(cast->members);
    memory_free(cast->joints);
    memory_free(cast->frames);
    memset(cast, 0, sizeof(*cast));
}

uint32_t cast_first_persona(const struct cast *cast)
{
    for (uint32_t i = 0; i < cast->count; i++) {
        if (cast->members[i].prompt != NULL) {
            return i;
        }
    }
    return CAST_START;
}

uint32_t cast_viewpoint(const struct cast *cast, uint32_t speaker)
{
    CHECK(speaker < cast->count);
    return cast->members[speaker].prompt != NULL ? speaker : cast_first_persona(cast);
}

const struct prompt *cast_prompt(const struct cast *cast, uint32_t viewpoint)
{
    return cast->joint_count > 0 ? cast->joints[cast->joint_count - 1].prompt
                                 : cast->members[viewpoint].prompt;
}

/* Whether `b` is on the side of the model where `a` speaks. Versions of a persona are one
 * character. */
static bool is_own_side(const struct cast *cast, uint32_t a, uint32_t b)
{
    if (cast->mode == GROUP_JOINT) {
        return cast->members[b].prompt != NULL;
    }
    return a == b || (cast->members[a].prompt != NULL && cast->members[b].prompt != NULL &&
                      bytes_equal(cast->members[a].name, cast->members[b].name));
}

struct template_end cast_end(const struct cast *cast, uint32_t viewpoint, uint32_t speaker)
{
    if (speaker == CAST_START) {
        return cast_prompt(cast, viewpoint)->end;
    }
    const bool is_own = is_own_side(cast, viewpoint, speaker);

    return (struct template_end){
        .side = is_own ? TEMPLATE_PERSONA : TEMPLATE_USER,
        .name = cast->members[speaker].name,
        .is_named = cast->is_group && (!is_own || cast->mode == GROUP_JOINT),
    };
}

static enum status make_frame(struct cast *cast, struct encoder *encoder, struct cast_frame *frame,
                              struct error *error)
{
    const struct prompt *prompt = cast_prompt(cast, frame->viewpoint);
    const struct template_end from = cast_end(cast, frame->viewpoint, frame->from);
    const struct template_end to = cast_end(cast, frame->viewpoint, frame->to);
    const bool is_open = frame->from == CAST_START && prompt->is_open;
    struct id_list ids = {0};
    const enum status status =
        template_frame(&prompt->template, encoder, &from, &to, is_open, error, &ids);

    if (status != STATUS_OK) {
        id_list_finish(&ids);
        return status;
    }
    frame->ids = ids.ids;
    frame->count = ids.count;
    return STATUS_OK;
}

enum status cast_frame_find(struct cast *cast, struct encoder *encoder, uint32_t viewpoint,
                            uint32_t from, uint32_t to, struct error *error,
                            const struct cast_frame **out)
{
    struct cast_frame *frame;
    enum status status;

    for (uint32_t i = 0; i < cast->frame_count; i++) {
        frame = cast->frames[i];
        if (frame->viewpoint == viewpoint && frame->from == from && frame->to == to) {
            *out = frame;
            return STATUS_OK;
        }
    }
    if (cast->frame_count == cast->frame_capacity) {
        const uint32_t capacity = cast->frame_capacity == 0 ? 8 : cast->frame_capacity * 2;
        struct cast_frame **frames = memory_resize(cast->frames, capacity, sizeof(*frames));

        if (frames == NULL) {
            return error_set(error, STATUS_MEMORY, "out of memory while a frame was made");
        }
        cast->frames = frames;
        cast->frame_capacity = capacity;
    }
    frame = memory_alloc(1, sizeof(*frame));
    if (frame == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory while a frame was made");
    }
    *frame = (struct cast_frame){.viewpoint = viewpoint, .from = from, .to = to};
    status = make_frame(cast, encoder, frame, error);
    if (status != STATUS_OK) {
        memory_free(frame);
        return status;
    }
    cast->frames[cast->frame_count++] = frame;
    *out = frame;
    return STATUS_OK;
}

struct bytes cast_lead(const struct cast *cast, uint32_t from, uint32_t speaker)
{
    const uint32_t viewpoint = cast_viewpoint(cast, speaker);
    const struct prompt *prompt;
    bool is_open;

    if (viewpoint == CAST_START) {
        return bytes_of(NULL, 0);
    }
    prompt = cast_prompt(cast, viewpoint);
    is_open = from == CAST_START && prompt->is_open;
    return template_lead(&prompt->template,
                         is_own_side(cast, viewpoint, speaker) ? TEMPLATE_PERSONA : TEMPLATE_USER,
                         is_open);
}
