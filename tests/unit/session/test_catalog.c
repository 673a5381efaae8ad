/* Goal: versions, names, prompts and scopes of personas are as documented: equal content is one
 * version, a name finds the right one, what is rendered is shared exactly where it may be.
 * Method: requests to a whole store over a fake engine, by several users. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "unit/session/store_rig.h"

static struct rig rig;

static void put(uint32_t uid, const char *card, enum visibility visibility)
{
    struct request request = rig_request(REQUEST_PERSONA_PUT);

    request.uid = uid;
    request.u.persona_put.card = bytes_of_text(card);
    request.u.persona_put.visibility = visibility;
    rig_execute(&rig, request);
    assert_int_equal(rig.reply.type, REPLY_PERSONA);
}

static uint64_t get(uint32_t uid, const char *name)
{
    struct request request = rig_request(REQUEST_PERSONA_GET);

    request.uid = uid;
    request.u.persona_get.name = bytes_of_text(name);
    rig_execute(&rig, request);
    return rig.reply.type == REPLY_PERSONA ? rig.reply.id : 0;
}

static int restart(void **state)
{
    (void)state;
    rig_restart(&rig, "chatml");
    return 0;
}

static void load(const char *card)
{
    char path[] = "/tmp/personad-card-XXXXXX";
    const int file = mkstemp(path);
    struct error error = {0};

    assert_true(file >= 0);
    assert_int_equal(write(file, card, strlen(card)), (ssize_t)strlen(card));
    close(file);
    assert_int_equal(store_persona_load(rig.store, path, &error), STATUS_OK);
    unlink(path);
}

static void test_equal_content_is_one_version(void **state)
{
    uint64_t first;

    (void)state;
    put(1, "{\"name\":\"A\",\"scenario\":\"x\"}", VISIBILITY_PRIVATE);
    first = rig.reply.id;
    assert_int_equal(rig.reply.persona.version, 1);
    put(1, "{ \"scenario\":\"x\", \"name\":\"A\" }", VISIBILITY_PRIVATE);
    assert_int_equal(rig.reply.id, first);
    put(1, "{\"name\":\"A\",\"scenario\":\"y\"}", VISIBILITY_PRIVATE);
    assert_int_equal(rig.reply.persona.version, 2);
    put(2, "{\"name\":\"A\",\"scenario\":\"x\"}", VISIBILITY_PRIVATE);
    assert_int_not_equal(rig.reply.id, first);
    assert_int_equal(rig.reply.persona.version, 1);
    assert_string_equal(rig.reply.card, "{\"name\":\"A\",\"scenario\":\"x\"}");
}

static void test_a_name_is_ones_own_then_built_in_then_anothers_public_one(void **state)
{
    uint64_t own, built_in, other;

    (void)state;
    put(2, "{\"name\":\"A\",\"scenario\":\"other\"}", VISIBILITY_PUBLIC);
    other = rig.reply.id;
    assert_int_equal(get(1, "A"), other);
    load("{\"name\":\"A\",\"scenario\":\"built in\"}");
    built_in = get(1, "A");
    assert_int_not_equal(built_in, other);
    put(2, "{\"name\":\"A\",\"scenario\":\"other, newer\"}", VISIBILITY_PUBLIC);
    assert_int_equal(get(1, "A"), built_in);
    put(1, "{\"name\":\"A\",\"scenario\":\"own\"}", VISIBILITY_PRIVATE);
    own = rig.reply.id;
    assert_int_equal(get(1, "A"), own);
    assert_int_equal(get(3, "A"), built_in);
    assert_int_equal(get(1, "B"), 0);
    assert_int_equal(rig.reply.error.status, STATUS_NOT_FOUND);
}

/* The content of the first file is newer than that of the second, as after an edit. */
static void test_the_default_is_the_first_file_of_the_folder(void **state)
{
    static const char first[] = "{\"name\":\"A\"}";
    static const char second[] = "{\"name\":\"B\"}";
    const uint32_t owner = (uint32_t)geteuid();

    (void)state;
    assert_int_equal(get(1, ""), 0);
    assert_int_equal(rig.reply.error.status, STATUS_NOT_FOUND);
    put(owner, second, VISIBILITY_PUBLIC);
    const uint64_t other = rig.reply.id;
    load(first);
    load(second);
    assert_int_equal(get(1, "B"), other);
    assert_true(get(1, "A") > other);
    assert_int_equal(get(1, ""), get(1, "A"));
    assert_int_equal(rig.reply.persona.built_in, true);
}

static void test_a_file_brings_a_deleted_persona_back(void **state)
{
    static const char card[] = "{\"name\":\"A\"}";
    struct request request = rig_request(REQUEST_PERSONA_DELETE);

    (void)state;
    request.uid = (uint32_t)geteuid();
    put(request.uid, card, VISIBILITY_PUBLIC);
    const uint64_t id = rig.reply.id;
    request.u.persona_delete = id;
    rig_execute(&rig, request);
    assert_int_equal(rig.reply.type, REPLY_DONE);
    assert_int_equal(get(1, "A"), 0);
    load(card);
    assert_int_equal(get(1, "A"), id);
    assert_int_equal(get(1, ""), id);
}

static void test_a_list_shows_what_may_be_played(void **state)
{
    struct request list = rig_request(REQUEST_PERSONA_LIST);

    (void)state;
    put(1, "{\"name\":\"A\"}", VISIBILITY_PRIVATE);
    put(2, "{\"name\":\"B\"}", VISIBILITY_PRIVATE);
    put(2, "{\"name\":\"C\"}", VISIBILITY_PUBLIC);
    list.uid = 1;
    list.u.page.count = 10;
    rig_execute(&rig, list);
    assert_int_equal(rig.reply.item_count, 2);
    assert_true(rig.reply.end);
    list.u.page.count = 1;
    rig_execute(&rig, list);
    assert_int_equal(rig.reply.item_count, 1);
    assert_false(rig.reply.end);
    list.u.page.after = 1;
    rig_execute(&rig, list);
    assert_int_equal(rig.reply.item_count, 1);
}

static void test_a_card_with_impossible_settings_is_refused_when_it_is_put(void **state)
{
    struct request request = rig_request(REQUEST_PERSONA_PUT);

    (void)state;
    request.u.persona_put.card =
        bytes_of_text("{\"name\":\"A\",\"extensions\":{\"personad\":{\"sampler\":{\"top_p\":7}}}}");
    rig_execute(&rig, request);
    assert_int_equal(rig.reply.error.status, STATUS_BAD_INPUT);
    assert_non_null(strstr(rig.reply.error.text, "top_p"));
}

static uint64_t scope_of(uint32_t uid, uint64_t persona, const char *user, const char *town)
{
    const struct variable variable = {bytes_of_text("town"), bytes_of_text(town)};
    struct request open = rig_request(REQUEST_SESSION_OPEN);
    struct request say;

    open.uid = uid;
    open.u.session_open.persona = persona;
    open.u.session_open.user_name = bytes_of_text(user);
    open.u.session_open.variables = &variable;
    open.u.session_open.variable_count = 1;
    rig_execute(&rig, open);
    assert_int_equal(rig.reply.type, REPLY_SESSION);
    say = rig_say(rig.reply.id, "x");
    say.uid = uid;
    rig_execute(&rig, say);
    assert_int_equal(rig.reply.type, REPLY_CREATED);
    return rig.engine->branches[rig.engine->branch_count - 1].scope.prompt;
}

static void test_scopes_are_shared_by_equal_prompts_of_who_may_share(void **state)
{
    static const char card[] =
        "{\"name\":\"A\",\"description\":\"{{user}} lives in {{town}}.\",\"extensions\":"
        "{\"personad\":{\"variables\":{\"town\":\"Ulm\"}}}}";
    uint64_t persona, scope;

    (void)state;
    put(1, card, VISIBILITY_PUBLIC);
    persona = rig.reply.id;
    scope = scope_of(1, persona, "Bob", "Rome");
    assert_true(scope == scope_of(1, persona, "Bob", "Rome"));
    assert_true(scope == scope_of(2, persona, "Bob", "Rome")); /* public */
    assert_true(scope != scope_of(1, persona, "Bob", "Oslo"));
    assert_true(scope != scope_of(1, persona, "Eve", "Rome"));
    put(1,
        "{\"name\":\"B\",\"description\":\"x\",\"extensions\":{\"personad\":{\"variables\":"
        "{\"town\":\"\"}}}}",
        VISIBILITY_PRIVATE);
    persona = rig.reply.id;
    scope = scope_of(1, persona, "Bob", "a");
    /* The town is nowhere in its text, so all its prompts are equal. */
    assert_true(scope == scope_of(1, persona, "Bob", "b"));
    put(2,
        "{\"name\":\"B\",\"description\":\"x\",\"extensions\":{\"personad\":{\"variables\":"
        "{\"town\":\"\"}}}}",
        VISIBILITY_PRIVATE);
    assert_true(scope != scope_of(2, rig.reply.id, "Bob", "a")); /* equal text, another's */
}

static void test_an_unknown_variable_is_named(void **state)
{
    const struct variable variable = {bytes_of_text("colour"), bytes_of_text("red")};
    struct request open = rig_request(REQUEST_SESSION_OPEN);

    (void)state;
    open.u.session_open.persona = rig_put(&rig, "{\"name\":\"A\"}");
    open.u.session_open.variables = &variable;
    open.u.session_open.variable_count = 1;
    rig_execute(&rig, open);
    assert_int_equal(rig.reply.error.status, STATUS_BAD_INPUT);
    assert_non_null(strstr(rig.reply.error.text, "colour"));
}

static void test_the_shipped_personas_load_and_open(void **state)
{
    static const char *const names[] = {"keeper", "twenty-questions", "conductor", "plain"};
    struct request list = rig_request(REQUEST_PERSONA_LIST);

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        struct request open = rig_request(REQUEST_SESSION_OPEN);
        struct error error = {0};
        char path[64];

        snprintf(path, sizeof(path), "personas/%s.json", names[i]);
        assert_int_equal(store_persona_load(rig.store, path, &error), STATUS_OK);
        open.u.session_open.persona_name = bytes_of_text(names[i]);
        rig_execute(&rig, open);
        assert_int_equal(rig.reply.type, REPLY_SESSION);
        assert_int_equal(rig.reply.node_count > 0, strcmp(names[i], "plain") != 0);
    }
    list.u.page.count = 10;
    rig_execute(&rig, list);
    assert_int_equal(rig.reply.item_count, 4);
    assert_int_equal(store_persona_load(rig.store, "personas/none.json", NULL), STATUS_NOT_FOUND);
}

static int set_up(void **state)
{
    (void)state;
    rig_init(&rig, "smollm", "chatml");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    rig_finish(&rig);
    return memory_live_count() == 0 ? 0 : -1;
}

#define TEST(name) cmocka_unit_test_setup(name, restart)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_equal_content_is_one_version),
        TEST(test_a_name_is_ones_own_then_built_in_then_anothers_public_one),
        TEST(test_the_default_is_the_first_file_of_the_folder),
        TEST(test_a_file_brings_a_deleted_persona_back),
        TEST(test_a_list_shows_what_may_be_played),
        TEST(test_a_card_with_impossible_settings_is_refused_when_it_is_put),
        TEST(test_scopes_are_shared_by_equal_prompts_of_who_may_share),
        TEST(test_an_unknown_variable_is_named),
        TEST(test_the_shipped_personas_load_and_open),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
