#include "settings.h"

#include <argp.h>
#include <errno.h>
#include <ini.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "limits.h"

const char *argp_program_version = "personad " PERSONAD_VERSION;

enum setting_kind { SETTING_TEXT, SETTING_COUNT, SETTING_LOG };

/* One row a setting: the same name on the command line and in the file. */
struct setting {
    const char *name;
    const char *value; /* placeholder in --help */
    const char *help;
    enum setting_kind kind;
    size_t offset; /* in struct settings */
    uint32_t min, max;
};

#define TEXT(field) SETTING_TEXT, offsetof(struct settings, field), 0, 0
#define COUNT(field, min, max) SETTING_COUNT, offsetof(struct settings, field), min, max

static const struct setting table[] = {
    {"model", "FILE", "the model, a GGUF file or a Hugging Face folder (required)", TEXT(model)},
    {"socket", "PATH", "Unix socket to serve on", TEXT(socket)},
    {"socket-group", "NAME", "let members of this group connect too (mode 0660)",
     TEXT(socket_group)},
    {"data", "FOLDER", "the daemon's own folder, made with mode 0700", TEXT(data)},
    {"personas", "FOLDER", "character cards that everybody may play", TEXT(personas)},
    {"persona", "NAME", "the persona of sessions that name none", TEXT(persona)},
    {"backend", "NAME", "what computes: auto (a card, else the CPU), cpu or cuda", TEXT(backend)},
    {"device", "N", "which card, as personad --devices counts them", COUNT(device, 0, 1023)},
    {"gpu-memory", "MIB",
     "memory of the card for weights, keys and values (0: 9/10 of what is free)",
     COUNT(gpu_memory, 0, 1 << 30)},
    {"gpu-providers", "FILE",
     "what multiplies by which matrices on a card, as ./dev gpu measured it (none: mma alone)",
     TEXT(gpu_providers)},
    {"kv-type", "NAME",
     "how keys and values are kept: f16, bf16, or on a card fp8 (bf16 on the CPU where products "
     "round what they multiply, else f16)",
     TEXT(kv_type)},
    {"weights", "NAME", "how float weights are kept: as-is, or on a card fp8", TEXT(weights)},
    {"speculation", "NAME",
     "check guesses of the next tokens where that pays, which changes no bit: auto or off",
     TEXT(speculation)},
    {"numerics", "NAME",
     "how the CPU multiplies: fast (activations in 8 bits, or BF16 by weights of BF16) or precise "
     "(in 16, or floats)",
     TEXT(numerics)},
    {"isa", "NAME", "CPU instructions: auto, scalar; avx2, avx512, avx512bf16; neon, dotprod, i8mm",
     TEXT(isa)},
    {"threads", "N", "threads that compute (0: as many as the affinity mask allows)",
     COUNT(threads, 0, 1024)},
    {"context", "TOKENS", "longest context and reply of a session (0: as the model was trained)",
     COUNT(context, 0, CONTEXT_TOKEN_COUNT_MAX)},
    {"kv-memory", "MIB",
     "most memory for keys and values (0: an eighth of the machine's, all that a card has left)",
     COUNT(kv_memory, 0, 1 << 30)},
    {"tree-memory", "MIB", "memory for trees of sessions; the rest is read when it is asked for",
     COUNT(tree_memory, 1, 1 << 20)},
    {"branches", "N", "branches in one batch", COUNT(branches, 1, BRANCH_RUNNING_COUNT_MAX)},
    {"connections", "N", "connections at once", COUNT(connections, 1, CONNECTION_COUNT_MAX)},
    {"step-ms", "MS", "time budget of one step", COUNT(step_ms, 1, 10000)},
    {"log", "LEVEL", "error, warn, info or debug", SETTING_LOG, offsetof(struct settings, log), 0,
     0},
};

enum {
    SETTING_TABLE_COUNT = sizeof table / sizeof table[0],
    KEY_FIRST = 0x1000, /* option keys that are no characters: long names only */
    KEY_CONFIG = KEY_FIRST + SETTING_TABLE_COUNT,
    KEY_DEVICES,
};

struct parse {
    struct settings *settings;
    struct error *error;
    bool from_line[SETTING_TABLE_COUNT]; /* set on the command line, which wins over the file */
    char *config;                        /* owned */
    enum status status;
};

static enum status text_copy(const char *value, char **slot)
{
    char *copy = memory_copy_text(value, strlen(value));
    if (copy == NULL) {
        return STATUS_MEMORY;
    }
    memory_free(*slot);
    *slot = copy;
    return STATUS_OK;
}

static enum status count_parse(const struct setting *setting, const char *value,
                               struct error *error, uint32_t *out)
{
    char *end = NULL;
    errno = 0;
    const uintmax_t number = strtoumax(value, &end, 10);
    if (value[0] < '0' || value[0] > '9' || *end != '\0' || errno != 0 || number < setting->min ||
        number > setting->max) {
        return error_set(error, STATUS_BAD_INPUT, "'%s' is not a number from %u to %u", value,
                         setting->min, setting->max);
    }
    *out = (uint32_t)number;
    return STATUS_OK;
}

static enum status setting_assign(struct parse *parse, const struct setting *setting,
                                  const char *value)
{
    void *field = (char *)parse->settings + setting->offset;
    switch (setting->kind) {
    case SETTING_TEXT:
        if (value[0] == '\0') {
            return error_set(parse->error, STATUS_BAD_INPUT, "the value is empty");
        }
        return text_copy(value, field);
    case SETTING_COUNT:
        return count_parse(setting, value, parse->error, field);
    case SETTING_LOG:
        if (log_level_parse(value, field) != STATUS_OK) {
            return error_set(parse->error, STATUS_BAD_INPUT,
                             "'%s' is none of error, warn, info, debug", value);
        }
        return STATUS_OK;
    }
    return STATUS_BAD_INPUT;
}

static error_t on_option(int key, char *value, struct argp_state *state)
{
    struct parse *parse = state->input;
    if (key == KEY_CONFIG) {
        parse->status = text_copy(value, &parse->config);
        return parse->status == STATUS_OK ? 0 : ENOMEM;
    }
    if (key == KEY_DEVICES) {
        parse->settings->list_devices = true;
        return 0;
    }
    if (key >= KEY_FIRST && key < KEY_CONFIG) {
        const struct setting *setting = &table[key - KEY_FIRST];
        parse->status = setting_assign(parse, setting, value);
        if (parse->status != STATUS_OK) {
            error_prefix(parse->error, "--%s", setting->name);
            return EINVAL;
        }
        parse->from_line[key - KEY_FIRST] = true;
        return 0;
    }
    if (key == ARGP_KEY_ARG) {
        parse->status = error_set(parse->error, STATUS_BAD_INPUT,
                                  "'%s' is no option; see personad --help", value);
        return EINVAL;
    }
    return ARGP_ERR_UNKNOWN;
}

/* inih: 1 is fine, 0 stops with this line's number. */
static int on_pair(void *context, const char *section, const char *name, const char *value)
{
    struct parse *parse = context;
    if (section[0] != '\0') {
        parse->status = error_set(parse->error, STATUS_BAD_INPUT,
                                  "[%s]: the file has no sections, only name = value", section);
        return 0;
    }
    for (size_t i = 0; i < SETTING_TABLE_COUNT; i++) {
        if (strcmp(table[i].name, name) == 0) {
            if (!parse->from_line[i]) {
                parse->status = setting_assign(parse, &table[i], value);
            }
            if (parse->status != STATUS_OK) {
                error_prefix(parse->error, "%s", name);
            }
            return parse->status == STATUS_OK;
        }
    }
    parse->status = error_set(parse->error, STATUS_BAD_INPUT,
                              "'%s' is no setting; personad --help lists them", name);
    return 0;
}

static enum status file_parse(struct parse *parse)
{
    const int line = ini_parse(parse->config, on_pair, parse);
    if (line == -1) {
        return error_set(parse->error, STATUS_IO, "--config %s: %s", parse->config,
                         strerror(errno));
    }
    if (line == 0) {
        return STATUS_OK;
    }
    if (parse->status == STATUS_OK) {
        return error_set(parse->error, STATUS_BAD_INPUT, "%s:%d: not a line of name = value",
                         parse->config, line);
    }
    error_prefix(parse->error, "%s:%d", parse->config, line);
    return parse->status;
}

static char *text_format(const char *format, const char *first, const char *second)
{
    char *text = NULL;
    const int size = snprintf(NULL, 0, format, first, second);
    if (size >= 0) {
        text = memory_alloc((size_t)size + 1, 1);
    }
    if (text != NULL) {
        (void)snprintf(text, (size_t)size + 1, format, first, second);
    }
    return text;
}

char *settings_default_socket(void)
{
    const char *named = getenv("PERSONAD_SOCKET");
    if (named != NULL && named[0] != '\0') {
        return memory_copy_text(named, strlen(named));
    }
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    if (runtime != NULL && runtime[0] == '/') {
        return text_format("%s/personad/%s", runtime, "personad.sock");
    }
    char uid[32];
    (void)snprintf(uid, sizeof uid, "%lu", (unsigned long)getuid());
    return text_format("/tmp/personad-%s/%s", uid, "personad.sock");
}

static char *default_data(void)
{
    const char *home = getenv("XDG_DATA_HOME");
    if (home != NULL && home[0] == '/') {
        return text_format("%s/%s", home, "personad");
    }
    home = getenv("HOME");
    return text_format("%s/%s", home != NULL && home[0] == '/' ? home : "/var/lib",
                       home != NULL && home[0] == '/' ? ".local/share/personad" : "personad");
}

/* The settings that are one of a few words. */
static enum status names_check(const struct settings *settings, struct error *error)
{
    if (settings->kv_type != NULL && strcmp(settings->kv_type, "f16") != 0 &&
        strcmp(settings->kv_type, "bf16") != 0 && strcmp(settings->kv_type, "fp8") != 0) {
        return error_set(error, STATUS_BAD_INPUT,
                         "kv-type: '%s' is none that this daemon has; it has f16, bf16 and fp8",
                         settings->kv_type);
    }
    if (settings->weights != NULL && strcmp(settings->weights, "as-is") != 0 &&
        strcmp(settings->weights, "fp8") != 0) {
        return error_set(error, STATUS_BAD_INPUT,
                         "weights: '%s' is none that this daemon has; it has as-is and fp8",
                         settings->weights);
    }
    if (settings->speculation != NULL && strcmp(settings->speculation, "auto") != 0 &&
        strcmp(settings->speculation, "off") != 0) {
        return error_set(error, STATUS_BAD_INPUT,
                         "speculation: '%s' is none that this daemon has; it has auto and off",
                         settings->speculation);
    }
    if (settings->numerics != NULL && strcmp(settings->numerics, "fast") != 0 &&
        strcmp(settings->numerics, "precise") != 0) {
        return error_set(error, STATUS_BAD_INPUT,
                         "numerics: '%s' is none that this daemon has; it has fast and precise",
                         settings->numerics);
    }
    if (settings->backend != NULL && strcmp(settings->backend, "auto") != 0 &&
        strcmp(settings->backend, "cpu") != 0 && strcmp(settings->backend, "cuda") != 0) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "backend: '%s' is none that this daemon has; it has auto, cpu and cuda",
                         settings->backend);
    }
    return STATUS_OK;
}

static enum status defaults_fill(struct settings *settings, struct error *error)
{
    if (settings->model == NULL && !settings->list_devices) {
        return error_set(
            error, STATUS_BAD_INPUT,
            "no model was named; start with --model FILE (a GGUF file or a Hugging Face folder)");
    }
    if (settings->socket == NULL) {
        settings->socket = settings_default_socket();
    }
    if (settings->data == NULL) {
        settings->data = default_data();
    }
    if (settings->socket == NULL || settings->data == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory while reading the settings");
    }
    return names_check(settings, error);
}

static void options_make(struct argp_option *options)
{
    for (size_t i = 0; i < SETTING_TABLE_COUNT; i++) {
        options[i] = (struct argp_option){.name = table[i].name,
                                          .key = KEY_FIRST + (int)i,
                                          .arg = table[i].value,
                                          .doc = table[i].help};
    }
    options[SETTING_TABLE_COUNT] =
        (struct argp_option){.name = "config",
                             .key = KEY_CONFIG,
                             .arg = "FILE",
                             .doc = "INI file of the same names; the command line wins over it"};
    options[SETTING_TABLE_COUNT + 1] = (struct argp_option){
        .name = "devices", .key = KEY_DEVICES, .doc = "list what could compute here, and end"};
    options[SETTING_TABLE_COUNT + 2] = (struct argp_option){0};
}

enum status settings_parse(int argument_count, char **arguments, struct error *error,
                           struct settings *settings)
{
    struct argp_option options[SETTING_TABLE_COUNT + 3];
    options_make(options);
    const struct argp argp = {
        .options = options,
        .parser = on_option,
        .doc = "Serves a language model to local programs: conversations are trees, every branch "
               "shares one batch, and any reply can be computed again bit for bit.",
    };
    struct settings made = {
        .branches = 64,
        .tree_memory = RESIDENT_MIB_MAX,
        .connections = CONNECTION_COUNT_MAX,
        .step_ms = STEP_BUDGET_MS,
        .log = LOG_INFO,
    };
    struct parse parse = {.settings = &made, .error = error, .status = STATUS_OK};
    const error_t failed = argp_parse(&argp, argument_count, arguments, 0, NULL, &parse);
    enum status status = parse.status;
    if (failed != 0 && status == STATUS_OK) {
        status = error_set(error, STATUS_BAD_INPUT, "%s", strerror(failed));
    }
    if (status == STATUS_OK && parse.config != NULL) {
        status = file_parse(&parse);
    }
    memory_free(parse.config);
    if (status == STATUS_OK) {
        status = defaults_fill(&made, error);
    }
    if (status != STATUS_OK) {
        settings_finish(&made);
        return status;
    }
    *settings = made;
    return STATUS_OK;
}

void settings_finish(struct settings *settings)
{
    char *texts[] = {settings->model,        settings->socket,      settings->data,
                     settings->socket_group, settings->personas,    settings->persona,
                     settings->backend,      settings->isa,         settings->kv_type,
                     settings->weights,      settings->speculation, settings->numerics,
                     settings->gpu_providers};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        memory_free(texts[i]);
    }
    *settings = (struct settings){0};
}
