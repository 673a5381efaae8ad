/* Goal: a table of providers says exactly what its lines say, its digest tells tables apart and
 * nothing else, and whatever is wrong is named with its line.
 * Method: texts against the rules that they must give; the same rules in another order, with
 * comments; each digit of a table changed must change the digest; a list of broken tables against
 * the words that must be in the sentence.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernels/provider_table.h"

#define HEAD "personad gpu providers 1\ncard sm_90\n"
#define WORD "0123456789abcdef"
#define ALGORITHM_OF(first) first "123456789abcdef" WORD WORD WORD WORD WORD WORD WORD
#define ALGORITHM ALGORITHM_OF("0")

static struct provider_table parsed(const char *text)
{
    struct error error = {.text = ""};
    struct provider_table table;

    if (provider_table_parse(text, strlen(text), &error, &table) != STATUS_OK) {
        fail_msg("%s", error.text);
    }
    return table;
}

static void test_rules_are_found_by_shape_and_rows(void **state)
{
    const struct provider_table table = parsed(HEAD "BF16 6144 4096 wgmma 65\n"
                                                    "Q4_K 4096 14336 wgmma 1");
    (void)state;
    assert_int_equal(table.architecture, 90);
    assert_int_equal(table.rule_count, 2);
    assert_null(provider_table_find(&table, 0, 6144, 4096, 64));
    const struct provider_rule *rule = provider_table_find(&table, 0, 6144, 4096, 65);
    assert_non_null(rule);
    assert_int_equal(rule->provider, PROVIDER_WGMMA);
    assert_ptr_equal(provider_table_find(&table, 0, 6144, 4096, 2048), rule);
    assert_null(provider_table_find(&table, 1, 6144, 4096, 2048));
    assert_null(provider_table_find(&table, 0, 6145, 4096, 2048));
    assert_null(provider_table_find(&table, 0, 6144, 4095, 2048));
    assert_null(provider_table_find(NULL, 0, 6144, 4096, 2048));
    uint32_t type = 99;
    assert_int_equal(provider_type_parse("Q4_K", &type), STATUS_OK);
    assert_non_null(provider_table_find(&table, type, 4096, 14336, 1));
    assert_string_equal(provider_type_name(type), "Q4_K");
    assert_null(provider_type_name(9));
    assert_int_equal(provider_type_parse("F32", &type), STATUS_NOT_FOUND);
}

static void test_the_digest_is_of_the_rules_alone(void **state)
{
    const char *text = HEAD "BF16 6144 4096 wgmma 65\nF16 512 256 wgmma 1\nQ4_0 512 256 wgmma 9\n"
                            "BF16 64 64 cublaslt 1 130101 " ALGORITHM "\n";
    uint32_t changed_count = 0;
    const struct provider_table table = parsed(text);
    const struct provider_table same =
        parsed("# measured on a day\n\npersonad  gpu\tproviders 1\n  card sm_90\n# more\n"
               "BF16 64 64  cublaslt 1 130101 " ALGORITHM
               "\nQ4_0 512 256 wgmma 9\n  F16 512 256 wgmma 1  \nBF16 6144 4096 wgmma 65");

    (void)state;
    assert_memory_equal(&table, &same, sizeof table);
    assert_int_not_equal(parsed(HEAD).digest, table.digest);
    for (size_t i = strlen(HEAD); text[i] != '\0'; i++) {
        struct provider_table changed;
        char other[512];

        (void)snprintf(other, sizeof other, "%s", text);
        other[i] ^= 1;
        if (provider_table_parse(other, strlen(other), NULL, &changed) == STATUS_OK) {
            assert_int_not_equal(changed.digest, table.digest);
            changed_count++;
        }
    }
    assert_true(changed_count >= 100);
}

static void test_a_rule_that_is_written_is_read_back(void **state)
{
    const struct provider_table table = parsed(HEAD "FP8 28672 4096 wgmma 129\n");
    const struct provider_table library =
        parsed(HEAD "F16 28672 4096 cublaslt 1 130101 " ALGORITHM "\n");
    const struct provider_table unpacked = parsed(HEAD "Q4_K 28672 4096 unpacked 129\n");
    char text[512], line[PROVIDER_LINE_BYTES_MAX];

    (void)state;
    assert_int_equal(unpacked.rules[0].provider, PROVIDER_UNPACKED);
    (void)provider_rule_format(&unpacked.rules[0], line, sizeof line);
    assert_string_equal(line, "Q4_K 28672 4096 unpacked 129\n");
    assert_int_equal(library.rules[0].version, 130101);
    assert_int_equal(library.rules[0].algorithm.words[7], 0x0123456789abcdef);
    (void)provider_rule_format(&library.rules[0], line, sizeof line);
    assert_string_equal(line, "F16 28672 4096 cublaslt 1 130101 " ALGORITHM "\n");
    const size_t size = provider_rule_format(&table.rules[0], line, sizeof line);
    assert_int_equal(size, strlen(line));
    assert_string_equal(line, "FP8 28672 4096 wgmma 129\n");
    (void)snprintf(text, sizeof text, "%s%s", HEAD, line);
    const struct provider_table again = parsed(text);
    assert_memory_equal(&table, &again, sizeof table);
}

static void test_what_is_wrong_is_named_with_its_line(void **state)
{
    static const struct {
        const char *text, *said;
    } cases[] = {
        {"", "it ends before"},
        {"personad gpu providers 1\n", "it ends before"},
        {"personad gpu providers 2\ncard sm_90\n", "line 1: a table of providers begins"},
        {"personad gpu providers\ncard sm_90\n", "line 1: a table of providers begins"},
        {"BF16 1 1 wgmma 1\n", "line 1: a table of providers begins"},
        {"personad gpu providers 1\nBF16 1 1 wgmma 1\n", "line 2: the second line names the card"},
        {"personad gpu providers 1\ncard 90\n", "line 2: the second line names the card"},
        {"personad gpu providers 1\ncard sm_90a\n", "line 2: the card: '90a' is not a number"},
        {HEAD "\n# x\nF32 1 1 wgmma 1\n", "line 5: 'F32' is none of the types"},
        {HEAD "BF16 1 1 cutlass 1\n", "line 3: 'cutlass' is no provider"},
        {HEAD "BF16 1 1 cublaslt 1\n", "line 3: 5 words where a rule has seven"},
        {HEAD "BF16 1 1 cublaslt 1 x " ALGORITHM "\n", "line 3: version: 'x' is not a number"},
        {HEAD "BF16 1 1 cublaslt 1 1 " ALGORITHM "0\n", "line 3: an algorithm of cublaslt is 128"},
        {HEAD "BF16 1 1 cublaslt 1 1 " ALGORITHM_OF("X") "\n", "line 3: an algorithm of cublaslt"},
        {HEAD "FP8 1 1 cublaslt 1 1 " ALGORITHM "\n", "line 3: cublaslt multiplies BF16 and F16"},
        {HEAD "BF16 1 1 mma 1\n", "line 3: 'mma' is no provider"},
        {"personad gpu providers 1\ncard sm_80\nBF16 1 1 wgmma 1\n",
         "line 3: wgmma is for sm_90 alone, not for sm_80"},
        {"personad gpu providers 1\ncard sm_80\nQ8_0 1 1 unpacked 1\n",
         "line 3: unpacked is for sm_90 alone, not for sm_80"},
        {HEAD "BF16 1 1 unpacked 9\n", "line 3: BF16 has nothing to unpack"},
        {HEAD "F16 1 1 unpacked 9\n", "line 3: F16 has nothing to unpack"},
        {HEAD "BF16 1 1 wgmma\n", "line 3: 4 words where a rule has five"},
        {HEAD "BF16 1 1 wgmma 1 1\n", "line 3: 6 words where a rule has five"},
        {HEAD "BF16 0 1 wgmma 1\n", "line 3: outputs: '0' is not a number from 1 to"},
        {HEAD "BF16 1 -1 wgmma 1\n", "line 3: columns: '-1' is not a number from 1 to"},
        {HEAD "BF16 1 1 wgmma 65537\n", "line 3: rows: '65537' is not a number from 1 to 65536"},
        {HEAD "BF16 1 99999999999999999999 wgmma 1\n", "is not a number from 1 to"},
        {HEAD "BF16 1 1 wgmma 1\nQ4_0 1 1 wgmma 1\nBF16 1 1 wgmma 2\n",
         "line 5: BF16 1 1 has a rule already"},
        {HEAD "BF16 1 1 wgmma 1\r\n", "line 3: byte 16 of the line is 0x0d"},
        {HEAD "a b c d e f g h i\n", "line 3: it has too many words"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct error error = {.text = ""};
        struct provider_table table = {.rule_count = 77};

        assert_int_equal(provider_table_parse(cases[i].text, strlen(cases[i].text), &error, &table),
                         STATUS_BAD_INPUT);
        assert_int_equal(table.rule_count, 77);
        if (strstr(error.text, cases[i].said) == NULL) {
            fail_msg("case %zu: '%s' does not say '%s'", i, error.text, cases[i].said);
        }
    }
}

static void test_there_is_a_most_of_rules(void **state)
{
    char text[8192] = HEAD;
    struct error error = {.text = ""};
    struct provider_table table;

    (void)state;
    for (uint32_t i = 0; i <= PROVIDER_RULE_COUNT_MAX; i++) {
        const size_t size = strlen(text);

        assert_int_equal(provider_table_parse(text, size, &error, &table), STATUS_OK);
        assert_int_equal(table.rule_count, i);
        (void)snprintf(text + size, sizeof text - size, "BF16 %u 64 wgmma 1\n", 1000 - i);
    }
    assert_int_equal(provider_table_parse(text, strlen(text), &error, &table), STATUS_LIMIT);
    assert_string_equal(error.limit_name, "PROVIDER_RULE_COUNT_MAX");
}

static void test_a_file_is_read_and_named_in_sentences(void **state)
{
    char path[] = "/tmp/pd-providers-XXXXXX";
    const int file = mkstemp(path);
    struct error error = {.text = ""};
    struct provider_table table;

    (void)state;
    assert_true(file >= 0);
    assert_int_equal(write(file, HEAD "BF16 64 64 wgmma x\n", strlen(HEAD) + 19),
                     strlen(HEAD) + 19);
    assert_int_equal(provider_table_read(path, &error, &table), STATUS_BAD_INPUT);
    assert_non_null(strstr(error.text, path));
    assert_non_null(strstr(error.text, "line 3: rows: 'x'"));
    assert_int_equal(pwrite(file, "9", 1, (off_t)strlen(HEAD) + 17), 1);
    assert_int_equal(provider_table_read(path, &error, &table), STATUS_OK);
    assert_int_equal(table.rules[0].rows_min, 9);
    assert_int_equal(ftruncate(file, PROVIDER_TEXT_BYTES_MAX + 1), 0);
    assert_int_equal(provider_table_read(path, &error, &table), STATUS_LIMIT);
    close(file);
    unlink(path);
    assert_int_equal(provider_table_read(path, &error, &table), STATUS_NOT_FOUND);
    assert_non_null(strstr(error.text, path));
    assert_int_equal(provider_table_read("/tmp", &error, &table), STATUS_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rules_are_found_by_shape_and_rows),
        cmocka_unit_test(test_the_digest_is_of_the_rules_alone),
        cmocka_unit_test(test_a_rule_that_is_written_is_read_back),
        cmocka_unit_test(test_what_is_wrong_is_named_with_its_line),
        cmocka_unit_test(test_there_is_a_most_of_rules),
        cmocka_unit_test(test_a_file_is_read_and_named_in_sentences),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
