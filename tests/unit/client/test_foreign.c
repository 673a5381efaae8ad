/* Goal: files of other programs are read and written as far as they can hold a session; what is
 * wrong with one is said, whatever it is, and no failure is silent.
 * Method: files in memory go through the reader, and what it makes of them is looked at; trees are
 * written from made up nodes; a scripted daemon tells what no good one would. For want of memory
 * each allocation of the JSON library fails once.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "foreign.h"
#include "personad.pb-c.h"
#include "support/fake_daemon.h"

enum { FRAME_BYTES_MAX = 1 << 20, HELLO_ID = 1, SESSION = 3, SURVIVORS_MAX = 400 };

/* ---------------------------------------------------------------- what is complained of */

static char complaints[4096];
static FILE *real_stderr;

static void listen_to_complaints(void)
{
    memset(complaints, 0, sizeof complaints);
    real_stderr = stderr;
    stderr = fmemopen(complaints, sizeof complaints, "w");
    assert_non_null(stderr);
}

static void end_listening(void)
{
    (void)fclose(stderr);
    stderr = real_stderr;
}

/* ---------------------------------------------------------------- memory */

static long survivors = -1; /* allocations that work until one fails; -1: all do */

static void *allocate(size_t size)
{
    if (survivors == 0) {
        return NULL;
    }
    survivors -= survivors > 0;
    return malloc(size);
}

/* ---------------------------------------------------------------- in */

static char *made;

static int read_text(enum foreign_format format, const char *text)
{
    const struct cli cli = {.persona = NULL};
    size_t size = 0;
    FILE *file = fmemopen((void *)(uintptr_t)text, strlen(text) + (text[0] == '\0'), "r");
    assert_non_null(file);
    if (text[0] == '\0') {
        (void)fgetc(file);
    }
    free(made);
    made = NULL;
    listen_to_complaints();
    const int status = foreign_read(&cli, format, file, &made, &size);
    end_listening();
    (void)fclose(file);
    return status;
}

static void assert_refused(enum foreign_format format, const char *text, const char *words)
{
    if (read_text(format, text) != CLI_FAILED || strstr(complaints, words) == NULL) {
        fail_msg("%s: wanted '%s', got '%s'", text, words, complaints);
    }
}

#define TREE(root, nodes, lens)                                                    \
    "{\"loomType\":\"Exoloom\",\"schemaVersion\":1,\"tree\":{\"rootNodeId\":" root \
    ",\"nodes\":{" nodes "}},\"lens\":" lens "}"
#define NODE(id, text, author, parent, children)                                              \
    "\"" id "\":{\"content\":\"" text "\",\"authorType\":\"" author "\",\"parentId\":" parent \
    ",\"childrenIds\":[" children "]}"

static void bad_chats_are_named(void **state)
{
    (void)state;
    assert_refused(FOREIGN_SILLYTAVERN, "", "the file holds no chat");
    assert_refused(FOREIGN_SILLYTAVERN, " \n\t\n", "the file holds no chat");
    assert_refused(FOREIGN_SILLYTAVERN, "[]\n", "line 1 is no message of a chat");
    assert_refused(FOREIGN_SILLYTAVERN, "\n{\"a\":1,\"a\":2}\n", "line 2 is no message of a chat");
    assert_refused(FOREIGN_SILLYTAVERN, "{\"mes\":\"\xff\"}\n", "line 1 is no message of a chat");
}

static void a_long_line_is_refused(void **state)
{
    const size_t size = 16 * 1024 * 1024 + 2;
    char *text = malloc(size + 1);
    (void)state;
    assert_non_null(text);
    memset(text, ' ', size);
    text[size - 1] = '\n';
    text[size] = '\0';
    assert_refused(FOREIGN_SILLYTAVERN, text, "line 1 is longer than 16777216 bytes");
    free(text);
}

static void bad_trees_are_named(void **state)
{
    static const char none[] = "the file is no tree of exoloom, schemaVersion 1";
    static const char id[] = "neither number nor text";
    static const char missing[] = "of the tree is missing, or hangs in two places";
    (void)state;
    assert_refused(FOREIGN_EXOLOOM, "", none);
    assert_refused(FOREIGN_EXOLOOM, "[]", none);
    assert_refused(FOREIGN_EXOLOOM, "{\"schemaVersion\":1,\"tree\":{\"nodes\":[]}}", none);
    assert_refused(FOREIGN_EXOLOOM, "{\"schemaVersion\":2,\"tree\":{\"nodes\":{}}}", none);
    assert_refused(FOREIGN_EXOLOOM, TREE("1", "", "{}"), missing);
    assert_refused(FOREIGN_EXOLOOM, TREE("null", NODE("1", "a", "USER", "null", ""), "{}"), id);
    assert_refused(FOREIGN_EXOLOOM, TREE("1.5", NODE("1", "a", "USER", "null", ""), "{}"), id);
    assert_refused(FOREIGN_EXOLOOM, TREE("1", NODE("1", "a", "USER", "null", "[]"), "{}"), id);
    assert_refused(FOREIGN_EXOLOOM, TREE("1", NODE("1", "a", "USER", "null", "2"), "{}"), missing);
    assert_refused(FOREIGN_EXOLOOM, TREE("1", NODE("1", "a", "USER", "null", "1"), "{}"), missing);
    assert_refused(
        FOREIGN_EXOLOOM,
        TREE("1", NODE("1", "a", "USER", "null", "2,2") "," NODE("2", "", "LLM", "1", ""), "{}"),
        missing);
}

static void a_tree_becomes_our_lines(void **state)
{
    (void)state;
    assert_int_equal(
        read_text(
            FOREIGN_EXOLOOM,
            TREE("7",
                 NODE("7", "", "USER", "null", "8,9") "," NODE(
                     "8", "a\\u0000b", "USER", "7",
                     "10") "," NODE("9", "c", "LLM", "7", "") "," NODE("10", "d", "USER", "8", ""),
                 "{\"bookmarks\":[{\"nodeId\":10},{\"nodeId\":7},{\"nodeId\":99},5],"
                 "\"prunedNodes\":[{\"nodeId\":9},{}]}")),
        CLI_OK);
    assert_string_equal(
        made, "{\"record\":\"session\",\"format\":\"personad\",\"version\":1,\"label\":\"\"}\n"
              "{\"record\":\"member\",\"name\":\"User\"}\n"
              "{\"record\":\"member\",\"name\":\"Model\",\"persona\":\"plain\"}\n"
              "{\"record\":\"node\",\"parent\":0,\"speaker\":0,\"opens_turn\":true,"
              "\"deleted\":false,\"text\":\"a\\u0000b\"}\n"
              "{\"record\":\"node\",\"parent\":1,\"speaker\":0,\"opens_turn\":false,"
              "\"deleted\":false,\"text\":\"d\"}\n"
              "{\"record\":\"node\",\"parent\":0,\"speaker\":1,\"opens_turn\":true,"
              "\"deleted\":true,\"text\":\"c\"}\n"
              "{\"record\":\"bookmark\",\"name\":\"bookmark 00000001\",\"node\":2}\n"
              "{\"record\":\"bookmark\",\"name\":\"bookmark 00000002\",\"node\":0}\n"
              "{\"record\":\"end\",\"nodes\":3}\n");
}

/* A reader that stops being told of memory would make a smaller session of the file. */
static void no_want_of_memory_is_silent_on_the_way_in(void **state)
{
    static const struct {
        enum foreign_format format;
        const char *text;
    } files[] = {
        {FOREIGN_EXOLOOM,
         TREE("1",
              NODE("1", "a", "USER", "null", "2,3") "," NODE("2", "b", "LLM", "1",
                                                             "") "," NODE("3", "c", "LLM", "1", ""),
              "{\"bookmarks\":[{\"nodeId\":3}],\"prunedNodes\":[{\"nodeId\":2}]}")},
        {FOREIGN_SILLYTAVERN, "{\"user_name\":\"Ann\",\"character_name\":\"Eva\"}\n"
                              "{\"mes\":\"b\",\"swipes\":[\"a\",\"b\"],\"swipe_id\":1}\n"
                              "{\"mes\":\"c\",\"is_user\":true}\n"},
    };
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(read_text(files[i].format, files[i].text), CLI_OK);
        char *whole = made;
        made = NULL;
        int status = CLI_FAILED;
        for (long count = 0; status != CLI_OK; count++) {
            assert_true(count < SURVIVORS_MAX);
            survivors = count;
            status = read_text(files[i].format, files[i].text);
            survivors = -1;
            if (status == CLI_OK) {
                assert_string_equal(made, whole);
            } else {
                assert_int_not_equal(complaints[0], '\0');
            }
        }
        free(whole);
    }
}

/* ---------------------------------------------------------------- out */

static char written[1 << 14];

static struct node_copy node(uint64_t id, size_t above, size_t byte, uint32_t speaker,
                             const char *text)
{
    return (struct node_copy){.id = id,
                              .above = above,
                              .parent_byte = byte,
                              .speaker = speaker,
                              .opens_turn = true,
                              .text = (char *)(uintptr_t)text,
                              .text_size = strlen(text)};
}

static void a_tree_is_cut_where_nodes_fork(void **state)
{
    /* A character of two bytes with a fork between them, and one that nothing completes. */
    struct node_copy list[] = {
        node(11, 0, 0, 0, "a\xc3\xa9"), node(12, 1, 2, 1, "\xa4"), node(13, 1, 2, 1, "\xe4\xb8"),
        node(14, 1, 0, 1, "!"),         node(15, 4, 1, 7, ""),
    };
    struct node_copies nodes = {.list = list, .count = 5};
    struct foreign_place marks[] = {{0, 0}, {1, 1}, {5, 0}};
    const struct cast cast = {.members = {{"Ann", true}, {"Eva", false}}, .count = 2};
    const struct foreign_tree tree = {.title = "a \"title\"",
                                      .created_us = 1700000000000001,
                                      .cast = &cast,
                                      .nodes = &nodes,
                                      .marks = marks,
                                      .mark_count = 3};
    FILE *file = fmemopen(written, sizeof written, "w");
    (void)state;
    list[2].deleted = true;
    assert_non_null(file);
    assert_int_equal(foreign_print_loom(&tree, file), CLI_OK);
    (void)fclose(file);
#define AT ",\"createdAt\":\"1970-01-01T00:00:00.000000Z\"}"
    assert_string_equal(
        written,
        "{\"loomType\":\"Exoloom\",\"version\":\"1\",\"schemaVersion\":1,\"tree\":{\"title\":"
        "\"a \\\"title\\\"\",\"createdAt\":\"2023-11-14T22:13:20.000001Z\",\"rootNodeId\":1,"
        "\"nodes\":{\"1\":{\"content\":\"\",\"authorType\":\"USER\",\"parentId\":null,"
        "\"childrenIds\":[2]},"
        "\"2\":{\"content\":\"\",\"authorType\":\"USER\",\"authorName\":\"Ann\",\"parentId\":1,"
        "\"childrenIds\":[3,8]" AT ","
        "\"3\":{\"content\":\"a\",\"authorType\":\"USER\",\"authorName\":\"Ann\",\"parentId\":2,"
        "\"childrenIds\":[4]" AT ","
        "\"4\":{\"content\":\"\",\"authorType\":\"USER\",\"authorName\":\"Ann\",\"parentId\":3,"
        "\"childrenIds\":[5,6,7]" AT ","
        "\"5\":{\"content\":\"\xc3\xa9\",\"authorType\":\"USER\",\"authorName\":\"Ann\","
        "\"parentId\":4,\"childrenIds\":[]" AT ","
        "\"6\":{\"content\":\"\xc3\xa4\",\"authorType\":\"LLM\",\"authorName\":\"Eva\","
        "\"parentId\":4,\"childrenIds\":[]" AT ","
        "\"7\":{\"content\":\"\\ufffd\\ufffd\\ufffd\",\"authorType\":\"LLM\",\"authorName\":"
        "\"Eva\",\"parentId\":4,\"childrenIds\":[]" AT ","
        "\"8\":{\"content\":\"!\",\"authorType\":\"LLM\",\"authorName\":\"Eva\",\"parentId\":2,"
        "\"childrenIds\":[9]" AT ","
        "\"9\":{\"content\":\"\",\"authorType\":\"USER\",\"authorName\":\"\",\"parentId\":8,"
        "\"childrenIds\":[]" AT "}},"
        "\"lens\":{\"bookmarks\":[{\"nodeId\":1},{\"nodeId\":3},{\"nodeId\":9}],"
        "\"prunedNodes\":[{\"nodeId\":7}]}}\n");
#undef AT
}

/* ---------------------------------------------------------------- from a daemon */

static struct fake_daemon fake;
static uint64_t next_id;

static void add_reply(Personad__V1__Reply *reply)
{
    uint8_t body[8192];
    reply->has_id = true;
    reply->id = next_id++;
    assert_true(personad__v1__reply__get_packed_size(reply) <= sizeof body);
    fake_daemon_add(&fake, FAKE_DAEMON_HEAR, 0);
    fake_daemon_add_frame(&fake, FAKE_DAEMON_SEND, body, personad__v1__reply__pack(reply, body));
}

static void script_begin(void)
{
    Personad__V1__HelloReply hello = PERSONAD__V1__HELLO_REPLY__INIT;
    Personad__V1__Reply reply = PERSONAD__V1__REPLY__INIT;
    hello.has_frame_bytes_max = true;
    hello.frame_bytes_max = FRAME_BYTES_MAX;
    reply.result_case = PERSONAD__V1__REPLY__RESULT_HELLO;
    reply.hello = &hello;
    fake_daemon_init(&fake);
    next_id = HELLO_ID;
    add_reply(&reply);
}

static ProtobufCBinaryData bytes(const char *text)
{
    return (ProtobufCBinaryData){strlen(text), (uint8_t *)(uintptr_t)text};
}

/* Ann, and the persona Eva. */
static void add_session(void)
{
    Personad__V1__CastMember ann = PERSONAD__V1__CAST_MEMBER__INIT;
    Personad__V1__CastMember eva = PERSONAD__V1__CAST_MEMBER__INIT;
    Personad__V1__CastMember *cast[] = {&ann, &eva};
    Personad__V1__SessionInfo info = PERSONAD__V1__SESSION_INFO__INIT;
    Personad__V1__SessionInfo *list[] = {&info};
    Personad__V1__SessionListReply sessions = PERSONAD__V1__SESSION_LIST_REPLY__INIT;
    Personad__V1__Reply reply = PERSONAD__V1__REPLY__INIT;
    ann.has_name = eva.has_name = eva.has_persona = true;
    ann.name = bytes("Ann");
    eva.name = bytes("Eva");
    eva.persona = 1;
    info.has_id = true;
    info.id = SESSION;
    info.cast = cast;
    info.n_cast = 2;
    sessions.sessions = list;
    sessions.n_sessions = 1;
    sessions.has_end = sessions.end = true;
    reply.result_case = PERSONAD__V1__REPLY__RESULT_SESSION_LIST;
    reply.session_list = &sessions;
    add_reply(&reply);
}

struct told {
    uint64_t id, parent;
    uint32_t offset, speaker;
    const char *text; /* a token a byte */
};

static void add_walk(const struct told *told, size_t count)
{
    Personad__V1__NodeInfo infos[4];
    Personad__V1__NodeInfo *list[4];
    Personad__V1__Position parents[4];
    static uint32_t content[64];
    Personad__V1__WalkReply walk = PERSONAD__V1__WALK_REPLY__INIT;
    Personad__V1__Reply reply = PERSONAD__V1__REPLY__INIT;
    for (size_t i = 0; i < count; i++) {
        personad__v1__node_info__init(&infos[i]);
        personad__v1__position__init(&parents[i]);
        list[i] = &infos[i];
        infos[i].has_id = infos[i].has_speaker = infos[i].has_text = true;
        infos[i].has_opens_turn = infos[i].opens_turn = true;
        infos[i].id = told[i].id;
        infos[i].speaker = told[i].speaker;
        infos[i].text = bytes(told[i].text);
        infos[i].content = content;
        infos[i].n_content = strlen(told[i].text);
        infos[i].parent = &parents[i];
        parents[i].has_node = parents[i].has_offset = true;
        parents[i].node = told[i].parent;
        parents[i].offset = told[i].offset;
    }
    walk.nodes = list;
    walk.n_nodes = count;
    walk.has_end = walk.end = true;
    reply.result_case = PERSONAD__V1__REPLY__RESULT_WALK;
    reply.walk = &walk;
    add_reply(&reply);
}

static void add_detokenize(const char *text)
{
    Personad__V1__DetokenizeReply shown = PERSONAD__V1__DETOKENIZE_REPLY__INIT;
    Personad__V1__Reply reply = PERSONAD__V1__REPLY__INIT;
    shown.has_text = true;
    shown.text = bytes(text);
    reply.result_case = PERSONAD__V1__REPLY__RESULT_DETOKENIZE;
    reply.detokenize = &shown;
    add_reply(&reply);
}

/* What the scripted daemon told, in that format; the path to a node or everything. */
static int write_told(enum foreign_format format, uint64_t at)
{
    struct personad_error error;
    struct cli cli = {0};
    FILE *file = fmemopen(written, sizeof written, "w");
    assert_non_null(file);
    fake_daemon_start(&fake);
    cli.client = personad_connect(fake.path, &error);
    assert_non_null(cli.client);
    listen_to_complaints();
    const int status = format == FOREIGN_EXOLOOM ? foreign_write_loom(&cli, SESSION, at, file)
                                                 : foreign_write_chat(&cli, SESSION, at, file);
    end_listening();
    personad_close(cli.client);
    fake_daemon_finish(&fake);
    (void)fclose(file);
    return status;
}

static const struct told path[] = {{5, 0, 0, 0, "one two"}, {6, 5, 3, 1, "three"}};

static void add_chat(void)
{
    const struct told children[] = {{4, 5, 3, 1, "other"}, {6, 5, 3, 1, "three"}};
    script_begin();
    add_session();
    add_walk(path, 2);
    add_detokenize("one");
    add_walk(children, 2);
}

static void a_chat_leaves_a_node_where_its_path_does(void **state)
{
    (void)state;
    add_chat();
    assert_int_equal(write_told(FOREIGN_SILLYTAVERN, 6), CLI_OK);
    assert_string_equal(written,
                        "{\"user_name\":\"Ann\",\"character_name\":\"Eva\",\"chat_metadata\":{}}\n"
                        "{\"name\":\"Ann\",\"is_user\":true,\"is_system\":false,\"mes\":\"one\"}\n"
                        "{\"name\":\"Eva\",\"is_user\":false,\"is_system\":false,\"mes\":\"three\","
                        "\"swipe_id\":1,\"swipes\":[\"other\",\"three\"]}\n");
}

static void no_want_of_memory_is_silent_on_the_way_out(void **state)
{
    char whole[sizeof written];
    int status = CLI_FAILED;
    (void)state;
    add_chat();
    assert_int_equal(write_told(FOREIGN_SILLYTAVERN, 6), CLI_OK);
    memcpy(whole, written, sizeof whole);
    for (long count = 0; status != CLI_OK; count++) {
        assert_true(count < SURVIVORS_MAX);
        add_chat();
        survivors = count;
        status = write_told(FOREIGN_SILLYTAVERN, 6);
        survivors = -1;
        if (status != CLI_OK) {
            assert_non_null(strstr(complaints, "out of memory"));
        }
    }
    assert_string_equal(written, whole);
}

static void a_tree_that_changed_meanwhile_is_not_written(void **state)
{
    const struct told twice[] = {{5, 0, 0, 0, "a"}, {6, 5, 1, 1, "b"}, {5, 0, 0, 0, "a"}};
    const struct told orphan[] = {{5, 0, 0, 0, "a"}, {6, 9, 1, 1, "b"}};
    const struct told early[] = {{6, 5, 1, 1, "b"}, {5, 0, 0, 0, "a"}};
    const struct told *const trees[] = {twice, orphan, early};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        script_begin();
        add_session();
        add_walk(trees[i], i == 0 ? 3 : 2);
        assert_int_equal(write_told(FOREIGN_EXOLOOM, 0), CLI_FAILED);
        assert_non_null(strstr(complaints, "the tree changed while it was read; try again"));
    }
}

static void tokens_that_do_not_show_the_text_place_nothing(void **state)
{
    static const char *const shown[] = {"two", "one two three"};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        script_begin();
        add_session();
        add_walk(path, 2);
        add_detokenize(shown[i]);
        assert_int_equal(write_told(FOREIGN_EXOLOOM, 0), CLI_FAILED);
        assert_non_null(strstr(complaints, "the tokens of node 5 do not show its text here"));
    }
}

static void a_session_that_is_not_there_is_named(void **state)
{
    Personad__V1__SessionListReply sessions = PERSONAD__V1__SESSION_LIST_REPLY__INIT;
    Personad__V1__Reply reply = PERSONAD__V1__REPLY__INIT;
    (void)state;
    sessions.has_end = sessions.end = true;
    reply.result_case = PERSONAD__V1__REPLY__RESULT_SESSION_LIST;
    reply.session_list = &sessions;
    script_begin();
    add_reply(&reply);
    assert_int_equal(write_told(FOREIGN_EXOLOOM, 0), CLI_FAILED);
    assert_non_null(strstr(complaints, "there is no session 3"));
}

static int set_up(void **state)
{
    (void)state;
    json_set_alloc_funcs(allocate, free);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    free(made);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_chats_are_named),
        cmocka_unit_test(a_long_line_is_refused),
        cmocka_unit_test(bad_trees_are_named),
        cmocka_unit_test(a_tree_becomes_our_lines),
        cmocka_unit_test(no_want_of_memory_is_silent_on_the_way_in),
        cmocka_unit_test(a_tree_is_cut_where_nodes_fork),
        cmocka_unit_test(a_chat_leaves_a_node_where_its_path_does),
        cmocka_unit_test(no_want_of_memory_is_silent_on_the_way_out),
        cmocka_unit_test(a_tree_that_changed_meanwhile_is_not_written),
        cmocka_unit_test(tokens_that_do_not_show_the_text_place_nothing),
        cmocka_unit_test(a_session_that_is_not_there_is_named),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
