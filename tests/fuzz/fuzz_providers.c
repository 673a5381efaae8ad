/* Goal: no bytes break the reader of tables of providers, and a table that it takes is written and
 * read back as the same.
 * Method: the input is a file; what is parsed is written out rule by rule and parsed again. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "kernels/provider_table.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t byte_count);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t byte_count)
{
    static char text[(PROVIDER_RULE_COUNT_MAX + 1) * PROVIDER_LINE_BYTES_MAX];
    struct provider_table table, again;
    struct error error = {.text = ""};

    if (provider_table_parse((const char *)bytes, byte_count, &error, &table) != STATUS_OK) {
        CHECK(error.text[0] != '\0');
        return 0;
    }
    size_t size = (size_t)snprintf(text, sizeof text, "personad gpu providers 1\ncard sm_%u\n",
                                   table.architecture);
    for (uint32_t i = 0; i < table.rule_count; i++) {
        size += provider_rule_format(&table.rules[i], text + size, sizeof text - size);
        CHECK(provider_table_find(&table, table.rules[i].type, table.rules[i].outputs,
                                  table.rules[i].cols, table.rules[i].rows_min) == &table.rules[i]);
    }
    CHECK(provider_table_parse(text, size, NULL, &again) == STATUS_OK);
    CHECK(memcmp(&table, &again, sizeof table) == 0);
    return 0;
}
