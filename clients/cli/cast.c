#include "cast.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

void cast_take(struct cast *cast, const struct personad_session *session)
{
    cast->count = 0;
    for (size_t i = 0; i < session->cast_count && i < PERSONAD_CAST_COUNT_MAX; i++) {
        const struct personad_cast_member *from = &session->cast[i];
        struct cast_member *member = &cast->members[cast->count++];
        (void)snprintf(member->name, sizeof member->name, "%.*s", (int)from->name.size,
                       from->name.data != NULL ? from->name.data : "");
        member->is_human = from->persona == 0;
    }
}

const struct personad_session *cast_session(struct cli *cli, uint64_t session)
{
    const struct personad_session *sessions = NULL;
    size_t count = 0;
    bool end = false;
    if (personad_session_list(cli->client, session - 1, &sessions, &count, &end) != PERSONAD_OK) {
        (void)cli_failed(cli);
        return NULL;
    }
    if (count == 0 || sessions[0].id != session) {
        cli_complain("there is no session %" PRIu64, session);
        return NULL;
    }
    return &sessions[0];
}

int cast_read(struct cli *cli, uint64_t session, struct cast *out)
{
    const struct personad_session *found = cast_session(cli, session);
    if (found == NULL) {
        return CLI_FAILED;
    }
    cast_take(out, found);
    return CLI_OK;
}

static bool is_blank(char byte)
{
    return byte == ' ' || byte == '\t';
}

/* Bytes of the name at the beginning of the text, a whole word; 0: it is another. */
static size_t name_bytes(const char *name, const char *text)
{
    const size_t size = strlen(name);
    const bool is_there = size > 0 && strncasecmp(name, text, size) == 0 &&
                          (text[size] == '\0' || is_blank(text[size]));
    return is_there ? size : 0;
}

static void names_complain(const struct cast *cast, const char *text)
{
    char names[512] = "";
    size_t used = 0;
    for (size_t i = 0; i < cast->count && used < sizeof names - 1; i++) {
        const int made = snprintf(names + used, sizeof names - used, "%s%s", i > 0 ? ", " : "",
                                  cast->members[i].name);
        used += made > 0 ? (size_t)made : 0;
    }
    cli_complain("nobody is called '%s'; the cast is %s", text, names);
}

bool cast_find(const struct cast *cast, const char *text, uint32_t *speaker, const char **rest)
{
    size_t longest = 0;
    for (size_t i = 0; i < cast->count; i++) {
        const size_t size = name_bytes(cast->members[i].name, text);
        if (size > 0 && size >= longest) {
            longest = size;
            *speaker = (uint32_t)i;
        }
    }
    if (longest == 0) {
        char *end = NULL;
        const unsigned long number = strtoul(text, &end, 10);
        longest = text[0] >= '0' && text[0] <= '9' && (*end == '\0' || is_blank(*end)) &&
                          number < cast->count
                      ? (size_t)(end - text)
                      : 0;
        *speaker = (uint32_t)number;
    }
    if (longest == 0) {
        names_complain(cast, text);
        return false;
    }
    *rest = text + longest;
    while (is_blank(**rest)) {
        (*rest)++;
    }
    return true;
}
