/* Info, Stats. */
#include <unistd.h>

#include "limits.h"
#include "wire/codec_inside.h"

enum status codec_decode_backup(const Personad__V1__BackupRequest *from, struct error *error,
                                struct request *out)
{
    const struct bytes path = codec_view(from->path);

    out->type = REQUEST_BACKUP;
    out->u.backup = path;
    TRY(codec_check_count(path.size, BACKUP_PATH_BYTES_MAX, "BACKUP_PATH_BYTES_MAX", "backup.path",
                          error));
    if (path.size == 0 || path.data[0] != '/' || memchr(path.data, 0, path.size) != NULL) {
        return error_set(error, STATUS_BAD_INPUT, "backup.path: an absolute path, without NUL");
    }
    return STATUS_OK;
}

struct limit_row {
    const char *name;
    uint64_t value;
};

#define LIMIT_ROW(name) \
    {                   \
#name, name     \
    }

/* Those that a client can meet, with the names that errors carry. */
static const struct limit_row limit_rows[] = {
    LIMIT_ROW(FRAME_BODY_BYTES_MAX),
    LIMIT_ROW(MESSAGE_UNPACK_BYTES_MAX),
    LIMIT_ROW(CONNECTION_PER_USER_COUNT_MAX),
    LIMIT_ROW(CONNECTION_HELLO_MS_MAX),
    LIMIT_ROW(CONNECTION_QUEUE_BYTES_MAX),
    LIMIT_ROW(INPUT_BYTES_MAX),
    LIMIT_ROW(CLIENT_NAME_BYTES_MAX),
    LIMIT_ROW(REQUEST_PER_CONNECTION_COUNT_MAX),
    LIMIT_ROW(CURSOR_PER_CONNECTION_COUNT_MAX),
    LIMIT_ROW(PERSONA_COUNT_MAX),
    LIMIT_ROW(PERSONA_CARD_BYTES_MAX),
    LIMIT_ROW(PERSONA_NAME_BYTES_MAX),
    LIMIT_ROW(PERSONA_GREETING_COUNT_MAX),
    LIMIT_ROW(PERSONA_VARIABLE_COUNT_MAX),
    LIMIT_ROW(SESSION_COUNT_MAX),
    LIMIT_ROW(SESSION_PER_USER_COUNT_MAX),
    LIMIT_ROW(SESSION_NODE_COUNT_MAX),
    LIMIT_ROW(SESSION_CAST_COUNT_MAX),
    LIMIT_ROW(NODE_COUNT_MAX),
    LIMIT_ROW(LABEL_BYTES_MAX),
    LIMIT_ROW(CLIENT_KEY_BYTES_MAX),
    LIMIT_ROW(TEXT_BYTES_MAX),
    LIMIT_ROW(TEXT_TOKEN_COUNT_MAX),
    LIMIT_ROW(GENERATE_SIBLING_COUNT_MAX),
    LIMIT_ROW(WALK_PAGE_NODE_COUNT_MAX),
    LIMIT_ROW(DISTRIBUTION_TOKEN_COUNT_MAX),
    LIMIT_ROW(SCORE_OPTION_COUNT_MAX),
    LIMIT_ROW(COMPARE_PERSONA_COUNT_MAX),
    LIMIT_ROW(COMPARE_TOKEN_COUNT_MAX),
    LIMIT_ROW(EXPAND_DEPTH_MAX),
    LIMIT_ROW(EXPAND_NODE_COUNT_MAX),
    LIMIT_ROW(EXPANSION_PER_USER_COUNT_MAX),
    LIMIT_ROW(EXPANSION_IDLE_MS_MAX),
    LIMIT_ROW(GROUP_NODE_COUNT_MAX),
    LIMIT_ROW(GROUP_TEXT_BYTES_MAX),
    LIMIT_ROW(LIST_PAGE_COUNT_MAX),
    LIMIT_ROW(TRANSFER_COUNT_MAX),
    LIMIT_ROW(TRANSFER_PER_USER_COUNT_MAX),
    LIMIT_ROW(IMPORT_PIECE_BYTES_MAX),
    LIMIT_ROW(IMPORT_LINE_BYTES_MAX),
    LIMIT_ROW(BRANCH_COUNT_MAX),
    LIMIT_ROW(BRANCH_PER_USER_COUNT_MAX),
    LIMIT_ROW(REPLY_TOKEN_COUNT_MAX),
    LIMIT_ROW(LOGIT_BIAS_COUNT_MAX),
    LIMIT_ROW(CUE_COUNT_MAX),
    LIMIT_ROW(CUE_PATTERN_COUNT_MAX),
    LIMIT_ROW(AUTHOR_NOTE_COUNT_MAX),
    LIMIT_ROW(NOTE_BYTES_MAX),
    LIMIT_ROW(LORE_ENTRY_COUNT_MAX),
    LIMIT_ROW(LORE_KEY_COUNT_MAX),
    LIMIT_ROW(CUE_BYTES_MAX),
    LIMIT_ROW(TOP_COUNT_MAX),
    LIMIT_ROW(USER_COUNT_MAX),
    LIMIT_ROW(CLIENT_KEY_COUNT_MAX),
    LIMIT_ROW(OUTPUT_MIB_PER_USER_MAX),
    LIMIT_ROW(CONTENT_MIB_PER_USER_MAX),
    LIMIT_ROW(JOURNAL_QUEUE_COUNT_MAX),
    LIMIT_ROW(ENGINE_INBOX_COUNT_MAX),
};

enum { LIMIT_ROW_COUNT = sizeof limit_rows / sizeof limit_rows[0] };

static void limit_fill(const struct limit_row *row, Personad__V1__Limit *out)
{
    CODEC_SET_BYTES(out, name, bytes_of_text(row->name));
    CODEC_SET(out, value, row->value);
}

static enum status limits_fill(const struct codec_daemon *daemon, struct arena *arena,
                               Personad__V1__InfoReply *out)
{
    out->limits = codec_new_list(arena, &personad__v1__limit__descriptor, LIMIT_ROW_COUNT + 1);
    if (out->limits == NULL) {
        return STATUS_MEMORY;
    }
    out->n_limits = LIMIT_ROW_COUNT + 1;
    for (size_t i = 0; i < LIMIT_ROW_COUNT; i++) {
        limit_fill(&limit_rows[i], out->limits[i]);
    }
    /* As many as were set and as descriptors allow, not as the table says. */
    const struct limit_row connections = {"CONNECTION_COUNT_MAX", daemon->connection_count_max};
    limit_fill(&connections, out->limits[LIMIT_ROW_COUNT]);
    return STATUS_OK;
}

enum status codec_build_info(const struct reply *reply, const struct codec_daemon *daemon,
                             struct arena *arena, Personad__V1__Reply *out)
{
    const struct info_view *view = &reply->u.info;
    Personad__V1__InfoReply *body = codec_new(arena, &personad__v1__info_reply__descriptor);
    if (body == NULL) {
        return STATUS_MEMORY;
    }
    CODEC_SET_BYTES(body, daemon_version, bytes_of_text(daemon->version));
    CODEC_SET_BYTES(body, model_name, view->model_name);
    CODEC_SET_BYTES(body, model_path, view->model_path);
    CODEC_SET_BYTES(body, model_hash, bytes_of(view->model_hash, sizeof view->model_hash));
    CODEC_SET_BYTES(body, architecture, view->architecture);
    CODEC_SET_BYTES(body, numerics_id, view->numerics_id);
    CODEC_SET_BYTES(body, backend, view->backend);
    CODEC_SET_BYTES(body, speculation, view->speculation);
    CODEC_SET(body, vocabulary_count, view->vocabulary_count);
    CODEC_SET(body, context_tokens_max, view->context_tokens_max);
    CODEC_SET(body, context_tokens_trained, view->context_tokens_trained);
    CODEC_SET_BYTES(body, chat_format, view->chat_format);
    CODEC_SET(body, kv_page_count, view->kv_page_count);
    CODEC_SET(body, kv_bytes, view->kv_bytes);
    CODEC_SET(body, weight_bytes, view->weight_bytes);
    CODEC_SET(body, started_us, view->started_us);
    CODEC_SET_BYTES(body, socket_path, bytes_of_text(daemon->socket_path));
    CODEC_SET(body, pid, (uint32_t)getpid());
    TRY(limits_fill(daemon, arena, body));
    out->result_case = PERSONAD__V1__REPLY__RESULT_INFO;
    out->info = body;
    return STATUS_OK;
}

enum status codec_build_stats(const struct reply *reply, const struct codec_daemon *daemon,
                              struct arena *arena, Personad__V1__Reply *out)
{
    const struct stats_view *view = &reply->u.stats;
    Personad__V1__StatsReply *body = codec_new(arena, &personad__v1__stats_reply__descriptor);
    if (body == NULL) {
        return STATUS_MEMORY;
    }
    CODEC_SET(body, uptime_us, view->uptime_us);
    CODEC_SET(body, connection_count, daemon->connection_count);
    CODEC_SET(body, session_count, view->session_count);
    CODEC_SET(body, node_count, view->node_count);
    CODEC_SET(body, persona_count, view->persona_count);
    CODEC_SET(body, branch_waiting_count, view->branch_waiting_count);
    CODEC_SET(body, branch_running_count, view->branch_running_count);
    CODEC_SET(body, step_count, view->step_count);
    CODEC_SET(body, row_count, view->row_count);
    CODEC_SET(body, decode_row_count, view->decode_row_count);
    CODEC_SET(body, prefill_row_count, view->prefill_row_count);
    CODEC_SET(body, sample_count, view->sample_count);
    CODEC_SET(body, step_ns, view->step_ns);
    CODEC_SET(body, context_token_count, view->context_token_count);
    CODEC_SET(body, context_cached_count, view->context_cached_count);
    CODEC_SET(body, context_computed_count, view->context_computed_count);
    CODEC_SET(body, preemption_count, view->preemption_count);
    CODEC_SET(body, cancelled_count, view->cancelled_count);
    CODEC_SET(body, finished_count, view->finished_count);
    CODEC_SET(body, failed_count, view->failed_count);
    CODEC_SET(body, kv_page_count, view->kv_page_count);
    CODEC_SET(body, kv_page_free_count, view->kv_page_free_count);
    CODEC_SET(body, kv_page_cached_count, view->kv_page_cached_count);
    CODEC_SET(body, memory_bytes, daemon->memory_bytes);
    CODEC_SET(body, drafted_count, view->drafted_count);
    CODEC_SET(body, accepted_count, view->accepted_count);
    out->result_case = PERSONAD__V1__REPLY__RESULT_STATS;
    out->stats = body;
    return STATUS_OK;
}
