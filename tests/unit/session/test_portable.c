/* Goal: the reader of sessions takes a good file whole, however it is cut, and writes the same
 * bytes from it; of a bad one it names the line, the key and what is wrong; it stays within its
 * bounds, and whatever allocation fails, nothing is left behind.
 * Method: real files of the fuzzer's corpus are read and written; one bad record at a time follows
 * a good beginning. Twins: one changed bit, one changed field make another file.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "session/portable_read.h"
#include "session/portable_write.h"

enum { FILE_BYTES_MAX = 1024 * 1024, SURVIVORS_MAX = 4000, WHOLE = FILE_BYTES_MAX };

static char file[FILE_BYTES_MAX];
static struct error error;

/* ---- reading ---- */

static enum status read_pieces(struct bytes from, size_t piece, struct portable *portable)
{
    struct portable_reader reader = {0};
    enum status status = portable_reader_init(&reader, portable);

    error = (struct error){0};
    for (size_t at = 0; at < from.size && status == STATUS_OK; at += piece) {
        const size_t size = from.size - at < piece ? from.size - at : piece;

        status = portable_read(&reader, bytes_of(from.data + at, size), &error);
    }
    if (status == STATUS_OK) {
        status = portable_read_end(&reader, &error);
    }
    portable_reader_finish(&reader);
    return status;
}

static enum status read_text(const char *text)
{
    struct portable portable = {0};
    const enum status status = read_pieces(bytes_of_text(text), WHOLE, &portable);

    portable_finish(&portable);
    return status;
}

static struct bytes load(const char *name)
{
    char path[128];
    FILE *from;
    size_t size;

    (void)snprintf(path, sizeof(path), "tests/fuzz/corpus/portable/%s", name);
    from = fopen(path, "rb");
    assert_non_null(from);
    size = fread(file, 1, sizeof(file), from);
    (void)fclose(from);
    assert_true(size > 0 && size < sizeof(file));
    return bytes_of(file, size);
}

/* ---- writing ---- */

static enum status write_all(struct portable *portable, size_t page, struct buffer *out)
{
    struct portable_writer *writer = NULL;
    bool is_over = false;
    enum status status;

    for (uint32_t i = 0; i < portable->member_count; i++) { /* as the store gives them */
        portable->members[i].prompt.digest[0] = (uint8_t)(i + 1);
    }
    for (uint32_t i = 0; i < portable->tree->context_count; i++) {
        portable->tree->contexts[i].prompt_digest[0] = (uint8_t)(portable->context_prompts[i] + 1);
    }
    buffer_init(out, FILE_BYTES_MAX);
    status = portable_writer_create(portable, 0, &error, &writer);
    if (status == STATUS_OK) {
        status = portable_write_head(writer, out);
    }
    for (size_t until = page; status == STATUS_OK && !is_over; until = out->size + page) {
        status = portable_write_some(writer, until, out, &is_over);
    }
    portable_writer_destroy(writer);
    return status;
}

static const char *const corpus[] = {"sampled", "path", "purged"};

static void test_a_file_is_written_as_it_was_read(void **state)
{
    static const size_t pieces[] = {WHOLE, 1, 7, 61, 4096};

    (void)state;
    for (size_t i = 0; i < 3 * 5; i++) {
        const struct bytes from = load(corpus[i / 5]);
        struct portable portable = {0};
        struct buffer out;

        assert_int_equal(read_pieces(from, pieces[i % 5], &portable), STATUS_OK);
        assert_int_equal(write_all(&portable, pieces[i % 5], &out), STATUS_OK);
        assert_int_equal(out.size, from.size);
        assert_memory_equal(out.data, from.data, from.size);
        buffer_finish(&out);
        portable_finish(&portable);
    }
}

/* The twin. */
static void test_a_changed_bit_is_written(void **state)
{
    const struct bytes from = load("sampled");
    struct portable portable = {0};
    struct buffer out;
    uint8_t *logprobs;

    (void)state;
    assert_int_equal(read_pieces(from, WHOLE, &portable), STATUS_OK);
    logprobs = (uint8_t *)(uintptr_t)portable.tree->chunks[0].logprobs.data;
    logprobs[0] ^= 1;
    assert_int_equal(write_all(&portable, WHOLE, &out), STATUS_OK);
    assert_true(out.size != from.size || memcmp(out.data, from.data, from.size) != 0);
    buffer_finish(&out);
    portable_finish(&portable);
}

static void test_a_node_that_is_not_there_cannot_be_written(void **state)
{
    struct portable_writer *writer = NULL;
    struct portable portable = {0};

    (void)state;
    assert_int_equal(read_pieces(load("sampled"), WHOLE, &portable), STATUS_OK);
    assert_int_equal(portable_writer_create(&portable, 99, &error, &writer), STATUS_NOT_FOUND);
    assert_non_null(strstr(error.text, "there is no node 99 in this session"));
    assert_null(writer);
    portable_finish(&portable);
}

static void test_numbers_become_ids_everywhere(void **state)
{
    const uint64_t first = 1000;
    struct portable portable = {0};
    const struct rows_tree *tree;

    (void)state;
    assert_int_equal(read_pieces(load("sampled"), WHOLE, &portable), STATUS_OK);
    portable_renumber(&portable, 77, first);
    tree = portable.tree;
    assert_int_equal(tree->session_id, 77);
    for (uint32_t i = 0; i < tree->node_count; i++) {
        const struct rows_node *row = &tree->nodes[i];

        assert_int_equal(row->node.id, first + i);
        assert_int_equal(row->node.session_id, 77);
        assert_true(row->node.parent_id == 0 ||
                    (row->node.parent_id >= first && row->node.parent_id < row->node.id));
        assert_true(!row->is_sampled || row->context_id >= first);
    }
    for (uint32_t i = 0; i < tree->context_count; i++) {
        assert_true(tree->contexts[i].id >= first);
        assert_int_equal(tree->contexts[i].session_id, 77);
    }
    assert_int_equal(portable.head.node, first + 3);
    portable_finish(&portable);
}

/* ---- what is wrong ---- */

#define HASH "2d77abbfa41d8a610b5153d3be757531e34541eb3c795906ab5938ccfc7e1ae9"
#define SESSION \
    "{'record':'session','format':'personad','version':1,'model':'" HASH "','numerics':'n'}\n"
#define JOINT "{'record':'session','format':'personad','version':1,'joint':true}\n"
#define HUMAN "{'record':'member','name':'Ann'}\n"
#define PROMPT "'prompt':{'format':'plain','end':'start','ids':[1,2],'greetings':[]}"
#define PERSONA "{'record':'member','name':'Eva','persona':'Eva'," PROMPT "}\n"
#define GIVEN "{'record':'node','text':'x'}\n"
#define STEPS "'steps':{'sampler':'AAAA','cues':''}"
#define CONTEXT "'context':{'member':1,'tokens':3,'segments':[['prompt'],['node',1,0,1]]}"
#define SAMPLED_AS(fields) \
    "{'record':'node','speaker':1,'origin':'sampled','finish':'end'," fields "}\n"
#define SAMPLED SAMPLED_AS("'sampled':2,'kept':2,'content_bytes':2," CONTEXT "," STEPS)
#define LISTS "'logprobs':[-1,-2],'sampler_logprobs':[-1,-2],'entropies':[1,2],'text_ends':[1,2]"
#define TOKENS "{'record':'tokens','node':2,'tokens':[7,8]," LISTS ",'text':'ab'}\n"
#define BEGUN SESSION HUMAN PERSONA
#define CAST BEGUN GIVEN
#define MARK(name) "{'record':'bookmark','name':'" name "','node':1}\n"
#define NOTE(node, offset) "{'record':'note','node':" node ",'offset':" offset ",'text':'t'}\n"

static const struct {
    const char *text; /* with ' for " */
    const char *words;
} wrongs[] = {
    {"{'record':'session','format':'loom','version':1}\n", "1 of the file: \"format\" is not"},
    {"{'record':'session','format':'personad','version':2}\n", "\"version\" is none that this"},
    {"{'record':'session','format':'personad','version':1,'seed':5}\n",
     "\"seed\" is no string of digits below 2^64"},
    {"{'record':'session','format':'personad','version':1,'seed':'18446744073709551616'}\n",
     "\"seed\" is no string of digits below 2^64"},
    {"{'record':'session','format':'personad','version':1,'seed':''}\n", "\"seed\" is no string"},
    {"{'record':'session','format':'personad','version':1,'model':'ab','numerics':'n'}\n",
     "\"model\" is no hash of a model file: it has 64 digits"},
    {"{'record':'session','format':'personad','version':1,'model':'AB','numerics':'n'}\n",
     "\"model\" is no hexadecimal number"},
    {"{'record':'session','format':'personad','version':1,'model':5}\n", "\"model\" is no text"},
    {"{'record':'session','format':'personad','version':1,'model':'" HASH "'}\n",
     "\"numerics\" and \"model\" come together or not at all"},
    {"{'record':'session','format':'personad','version':1,'joint':1}\n",
     "\"joint\" is neither true nor false"},
    {"{'record':'session','format':'personad','version':1,'context_tokens':-1}\n",
     "\"context_tokens\" is no number in its range"},
    {"{'record':'session','format':'personad','version':1,'label':['x']}\n",
     "\"label\" is no text"},
    {SESSION SESSION, "line 2 of the file: \"record\" tells of a second session"},
    {HUMAN, "\"record\" stands before the session or behind the end"},
    {SESSION "{'record':'loom'}\n", "\"record\" is no kind that is known here"},
    {SESSION "{}\n", "\"record\" is no kind that is known here"},
    {SESSION "[1]\n", "line 2 of the file is not a JSON object"},
    {SESSION "{'record':'member','record':'member'}\n", "line 2 of the file is not valid JSON"},
    {SESSION "{'record':'member','name':''}\n", "\"name\" is empty"},
    {SESSION "{'record':'member','name':'Eva','persona':''}\n", "\"name\" is empty"},
    {SESSION "{'record':'member','name':'Eva','persona':'E','prompt':5}\n",
     "\"prompt\" is no object"},
    {SESSION "{'record':'member','name':'Eva','persona':'E','prompt':{'ids':[]}}\n",
     "\"greetings\" is no list"},
    {SESSION "{'record':'member','name':'Eva','persona':'E','prompt':{'greetings':[['x']],"
             "'ids':[]}}\n",
     "\"greetings\" has a member that is no number of its kind"},
    {SESSION "{'record':'member','name':'Eva','persona':'E','prompt':{'format':'loom'}}\n",
     "\"format\" is no word that is known here"},
    {SESSION "{'record':'member','name':'Eva','persona':'E','prompt':{'ids':[],'greetings':[],'"
             "inserts':'A'}}\n",
     "\"inserts\" is no base64"},
    {SESSION "{'record':'member','name':'Eva','persona':'E','prompt':{'ids':[],'greetings':[],'"
             "inserts':'AAB='}}\n",
     "\"inserts\" is no base64"},
    {BEGUN "{'record':'joint','members':2," PROMPT "}\n",
     "\"record\" is one too many, or its session is not joint"},
    {JOINT HUMAN PERSONA "{'record':'joint','members':1," PROMPT "}\n",
     "\"members\" are not more than those of the last one"},
    {JOINT HUMAN PERSONA "{'record':'joint','members':2," PROMPT "}\n"
                         "{'record':'joint','members':2," PROMPT "}\n",
     "line 5 of the file: \"members\" are not more than those of the last one"},
    {SESSION GIVEN, "\"record\" is one node too many, or comes before the members"},
    {BEGUN GIVEN PERSONA, "\"record\" is one member too many, or comes behind the nodes"},
    {BEGUN "{'record':'node','node':2,'text':'x'}\n", "\"node\" is not the next number"},
    {BEGUN "{'record':'node','parent':1,'text':'x'}\n", "\"parent\" is no number in its range"},
    {BEGUN "{'record':'node','speaker':2,'text':'x'}\n", "\"speaker\" is no number in its range"},
    {BEGUN "{'record':'node','ordinal':2147483648,'text':'x'}\n",
     "\"ordinal\" is no number in its range"},
    {BEGUN "{'record':'node','finish':'none','text':'x'}\n",
     "\"finish\" is none: nothing in a file is still under way"},
    {BEGUN "{'record':'node','origin':'dreamt','text':'x'}\n", "\"origin\" is no word"},
    {BEGUN "{'record':'node','text':5}\n", "\"text\" is no text"},
    {BEGUN "{'record':'node','text':{'base64':'*'}}\n", "\"base64\" is no base64"},
    {BEGUN "{'record':'node','content':5}\n", "\"content\" is no list"},
    {BEGUN "{'record':'node','content':[-1]}\n", "\"content\" has a member that is no number"},
    {CAST SAMPLED_AS("'context':1," STEPS), "\"context\" names a node that brought none"},
    {CAST SAMPLED_AS("'context':'x'," STEPS), "\"context\" is no object"},
    {CAST SAMPLED_AS("'context':{'member':0,'tokens':1,'segments':[]}," STEPS),
     "\"member\" is none that came with a prompt"},
    {CAST SAMPLED_AS("'context':{'member':1,'segments':[]}," STEPS),
     "\"tokens\" of a context are at least 1"},
    {CAST SAMPLED_AS("'context':{'member':1,'tokens':1,'base':1,'segments':[]}," STEPS),
     "\"base\" names a node that brought no context"},
    {CAST SAMPLED_AS("'context':{'member':1,'tokens':1,'segments':5}," STEPS),
     "\"segments\" is no list"},
    {CAST SAMPLED_AS("'context':{'member':1,'tokens':1,'segments':[['loom']]}," STEPS),
     "\"segments\" has one that is no prompt, node, frame or the like"},
    {CAST SAMPLED_AS("'context':{'member':1,'tokens':1,'segments':[['node',2,0,1]]}," STEPS),
     "\"segments\" name a node that does not stand before this one"},
    {CAST SAMPLED_AS("'context':{'member':1,'tokens':1,'segments':[['node',1]]}," STEPS),
     "\"segments\" is no number in its range"},
    {CAST SAMPLED_AS("'context':{'member':1,'tokens':1,'segments':[['frame',['x']]]}," STEPS),
     "\"segments\" has a member that is no number of its kind"},
    {CAST SAMPLED_AS(CONTEXT ",'steps':1"), "\"steps\" names a node that brought none"},
    {CAST SAMPLED_AS(CONTEXT ",'steps':'x'"), "\"steps\" is no object"},
    {CAST "{'record':'node','origin':'given','finish':'end'," CONTEXT "," STEPS "}\n",
     "\"context\" belongs to sampled nodes"},
    {CAST "{'record':'node','origin':'sampled','finish':'whole'," CONTEXT "," STEPS "}\n",
     "\"context\" belongs to sampled nodes"},
    {JOINT HUMAN PERSONA GIVEN SAMPLED, "\"model\" of a sampled node is not known"},
    {CAST SAMPLED_AS("'sampled':1,'kept':2," CONTEXT "," STEPS), "\"kept\" is no number"},
    {CAST SAMPLED GIVEN, "\"record\" comes before all tokens of the last node have"},
    {CAST SAMPLED "{'record':'end','nodes':2}\n", "\"record\" comes before all tokens"},
    {CAST SAMPLED MARK("a"), "\"record\" comes before all tokens"},
    {CAST SAMPLED NOTE("1", "0"), "\"record\" comes before all tokens"},
    {BEGUN TOKENS, "\"node\" is not the node that stands before its tokens"},
    {CAST TOKENS, "\"node\" is not the node that stands before its tokens"},
    {CAST SAMPLED "{'record':'tokens','node':2,'tokens':[]}\n",
     "\"tokens\" are none, or more than the node says that it has"},
    {CAST SAMPLED "{'record':'tokens','node':2,'tokens':[1,2,3]}\n",
     "\"tokens\" are none, or more"},
    {CAST SAMPLED TOKENS TOKENS, "\"tokens\" are none, or more than the node says that it has"},
    {CAST SAMPLED "{'record':'tokens','node':2,'tokens':[7,8],'logprobs':[1]}\n",
     "\"logprobs\" has not one member a token"},
    {CAST SAMPLED "{'record':'tokens','node':2,'tokens':[7,8],'logprobs':[-1,'nan']}\n",
     "\"logprobs\" has a member that is no number of its kind"},
    {CAST SAMPLED "{'record':'tokens','node':2,'tokens':[7,8],'logprobs':[-1,1e99]}\n",
     "\"logprobs\" has a member that is no number of its kind"},
    {CAST SAMPLED_AS("'sampled':2,'top_count':1," CONTEXT "," STEPS) TOKENS,
     "\"top_tokens\" is no list"},
    {CAST SAMPLED_AS("'top_count':33," CONTEXT "," STEPS), "\"top_count\" is no number"},
    {CAST "{'record':'bookmark','name':'','node':1}\n", "\"name\" is empty"},
    {CAST "{'record':'bookmark','name':'a','node':2}\n", "\"node\" is no number in its range"},
    {CAST MARK("b") MARK("a"), "\"name\" does not come behind the last one by its bytes"},
    {CAST MARK("a") MARK("a"), "\"name\" does not come behind the last one by its bytes"},
    {CAST MARK("ab") MARK("a"), "\"name\" does not come behind the last one by its bytes"},
    {CAST NOTE("1", "1") NOTE("1", "1"), "\"node\" of a note does not come behind that of the"},
    {CAST NOTE("1", "1") NOTE("0", "5"), "\"node\" of a note does not come behind that of the"},
    {CAST "{'record':'note','node':1,'depth':1000001,'text':'t'}\n", "\"depth\" is no number"},
    {CAST "{'record':'end','nodes':2}\n", "\"nodes\" is not the number of nodes in the file"},
    {CAST "{'record':'end'}\n", "\"nodes\" is not the number of nodes in the file"},
    {"{'record':'session','format':'personad','version':1,'head_node':1}\n" HUMAN
     "{'record':'end','nodes':0}\n",
     "\"head_node\" of the session names a node that is not there"},
    {CAST "{'record':'end','nodes':1}\n" GIVEN, "\"record\" stands before the session or behind"},
    {CAST, "the file is cut off: its last line is no end record"},
    {"", "the file is cut off: its last line is no end record"},
    {"{'record':'sess", "line 1 of the file is not valid JSON"},
};

static void quote(char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '\'') {
            *text = '"';
        }
    }
}

static void test_what_is_wrong_is_named(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(wrongs) / sizeof(wrongs[0]); i++) {
        (void)snprintf(file, sizeof(file), "%s", wrongs[i].text);
        quote(file);
        if (read_text(file) != STATUS_BAD_INPUT || strstr(error.text, wrongs[i].words) == NULL) {
            fail_msg("case %zu, wanted '%s', got %d '%s'", i, wrongs[i].words, error.status,
                     error.text);
        }
    }
}

/* The twin: without what is wrong all of it is right, so each refusal has its own cause. */
static void test_the_same_records_without_a_fault_are_taken(void **state)
{
    static const char *const rights[] = {
        CAST SAMPLED TOKENS MARK("a") MARK("ab") NOTE("0", "5") NOTE("1", "0")
            NOTE("1", "1") "{'record':'end','nodes':2}\n",
        JOINT HUMAN PERSONA "{'record':'joint','members':2," PROMPT "}\n" GIVEN
                            "\r\n\n{'record':'end','nodes':1}",
        SESSION HUMAN PERSONA "{'record':'end','nodes':0}\n",
    };

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        (void)snprintf(file, sizeof(file), "%s", rights[i]);
        quote(file);
        if (read_text(file) != STATUS_OK) {
            fail_msg("file %zu: %s", i, error.text);
        }
    }
}

/* ---- bounds ---- */

static void begin(struct portable_reader *reader, struct portable *portable)
{
    char text[] = BEGUN;

    quote(text);
    error = (struct error){0};
    assert_int_equal(portable_reader_init(reader, portable), STATUS_OK);
    assert_int_equal(portable_read(reader, bytes_of_text(text), &error), STATUS_OK);
}

static void finish(struct portable_reader *reader, struct portable *portable)
{
    portable_reader_finish(reader);
    portable_finish(portable);
}

static enum status read_more(struct portable_reader *reader, const char *record)
{
    (void)snprintf(file, sizeof(file), "%s", record);
    quote(file);
    return portable_read(reader, bytes_of_text(file), &error);
}

static void test_a_line_has_a_bound(void **state)
{
    struct portable_reader reader;
    struct portable portable;
    enum status status = STATUS_OK;
    size_t taken = 0;

    (void)state;
    begin(&reader, &portable);
    memset(file, 'x', sizeof(file));
    for (; status == STATUS_OK && taken <= IMPORT_LINE_BYTES_MAX; taken += sizeof(file)) {
        status = portable_read(&reader, bytes_of(file, sizeof(file)), &error);
    }
    assert_int_equal(status, STATUS_LIMIT);
    assert_int_equal(taken, IMPORT_LINE_BYTES_MAX + sizeof(file));
    assert_string_equal(error.limit_name, "IMPORT_LINE_BYTES_MAX");
    assert_non_null(strstr(error.text, "line 4 of the file is longer than 8388608 bytes"));
    finish(&reader, &portable);
}

static void test_members_and_notes_have_bounds(void **state)
{
    struct portable_reader reader;
    struct portable portable;

    (void)state;
    begin(&reader, &portable);
    for (int i = 2; i < SESSION_CAST_COUNT_MAX; i++) {
        assert_int_equal(read_more(&reader, HUMAN), STATUS_OK);
    }
    assert_int_equal(read_more(&reader, HUMAN), STATUS_BAD_INPUT);
    assert_non_null(strstr(error.text, "is one member too many"));
    finish(&reader, &portable);

    begin(&reader, &portable);
    assert_int_equal(read_more(&reader, GIVEN), STATUS_OK);
    for (int i = 0; i < AUTHOR_NOTE_COUNT_MAX; i++) {
        char note[96];

        (void)snprintf(note, sizeof(note), NOTE("1", "%d"), i);
        assert_int_equal(read_more(&reader, note), STATUS_OK);
    }
    assert_int_equal(read_more(&reader, NOTE("1", "9999999")), STATUS_BAD_INPUT);
    assert_non_null(strstr(error.text, "is one note too many"));
    finish(&reader, &portable);
}

static void test_nodes_have_a_bound(void **state)
{
    struct portable_reader reader;
    struct portable portable;
    struct rows_tree *tree;

    (void)state;
    begin(&reader, &portable);
    tree = portable.tree;
    memory_free(tree->nodes); /* as if so many had been read */
    tree->nodes = memory_alloc(SESSION_NODE_COUNT_MAX, sizeof(*tree->nodes));
    assert_non_null(tree->nodes);
    tree->node_capacity = SESSION_NODE_COUNT_MAX;
    tree->node_count = SESSION_NODE_COUNT_MAX - 1;
    assert_int_equal(read_more(&reader, GIVEN), STATUS_OK);
    assert_int_equal(read_more(&reader, GIVEN), STATUS_BAD_INPUT);
    assert_non_null(strstr(error.text, "is one node too many"));
    finish(&reader, &portable);
}

static void test_a_text_has_a_bound(void **state)
{
    static char record[2 * TEXT_BYTES_MAX];
    struct portable_reader reader;
    struct portable portable;
    size_t size = strlen("{\"record\":\"node\",\"text\":\"");

    (void)state;
    for (size_t more = 0; more < 2; more++) {
        begin(&reader, &portable);
        memset(record, 'x', sizeof(record));
        memcpy(record, "{\"record\":\"node\",\"text\":\"", size);
        memcpy(record + size + TEXT_BYTES_MAX + more, "\"}\n", 4);
        assert_int_equal(portable_read(&reader, bytes_of_text(record), &error),
                         more == 0 ? STATUS_OK : STATUS_BAD_INPUT);
        assert_true(more == 0 || strstr(error.text, "\"content\" is longer than a text may be"));
        finish(&reader, &portable);
    }
}

static void test_all_of_it_has_a_bound(void **state)
{
    struct portable_reader reader;
    struct portable portable;
    enum status status = STATUS_OK;

    (void)state;
    begin(&reader, &portable);
    portable.tree->arena.bytes_max = portable.tree->arena.used_bytes + 4096;
    for (int i = 0; i < 4096 && status == STATUS_OK; i++) {
        status = read_more(&reader, GIVEN);
    }
    assert_int_equal(status, STATUS_LIMIT);
    assert_string_equal(error.limit_name, "TREE_BYTES_MAX");
    assert_non_null(strstr(error.text, "the session holds more than can be loaded"));
    finish(&reader, &portable);
}

/* ---- faults ---- */

static void test_every_allocation_of_reading_and_writing_may_fail(void **state)
{
    const uint64_t live = memory_live_count();

    (void)state;
    for (int64_t survivors = 0;; survivors++) {
        const struct bytes from = load("sampled");
        struct portable portable = {0};
        struct buffer out = {0};
        enum status status;

        assert_true(survivors < SURVIVORS_MAX);
        memory_fault_set(survivors);
        status = read_pieces(from, WHOLE, &portable);
        if (status == STATUS_OK) {
            status = write_all(&portable, WHOLE, &out);
        }
        memory_fault_set(-1);
        if (status == STATUS_OK) {
            assert_memory_equal(out.data, from.data, from.size);
        }
        buffer_finish(&out);
        portable_finish(&portable);
        assert_int_equal(memory_live_count(), live);
        if (status == STATUS_OK) {
            assert_true(survivors > 50);
            return;
        }
        assert_int_equal(status, STATUS_MEMORY);
    }
}

static int tear_down(void **state)
{
    (void)state;
    return memory_live_count() == 0 ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_file_is_written_as_it_was_read),
        cmocka_unit_test(test_a_changed_bit_is_written),
        cmocka_unit_test(test_a_node_that_is_not_there_cannot_be_written),
        cmocka_unit_test(test_numbers_become_ids_everywhere),
        cmocka_unit_test(test_what_is_wrong_is_named),
        cmocka_unit_test(test_the_same_records_without_a_fault_are_taken),
        cmocka_unit_test(test_a_line_has_a_bound),
        cmocka_unit_test(test_members_and_notes_have_bounds),
        cmocka_unit_test(test_nodes_have_a_bound),
        cmocka_unit_test(test_a_text_has_a_bound),
        cmocka_unit_test(test_all_of_it_has_a_bound),
        cmocka_unit_test(test_every_allocation_of_reading_and_writing_may_fail),
    };

    return cmocka_run_group_tests(tests, NULL, tear_down);
}
