/* persona info: what the daemon is and does. Fails when none answers, so it serves as a health
 * check. */
#include <inttypes.h>

#include "cli.h"
#include "json.h"

static void hash_format(struct personad_text hash, char out[65])
{
    size_t at = 0;
    for (size_t i = 0; i < hash.size && i < 32; i++) {
        at += (size_t)snprintf(out + at, 65 - at, "%02x", (unsigned char)hash.data[i]);
    }
    out[at] = '\0';
}

static void row(const char *name, struct personad_text text)
{
    (void)printf("%-12s ", name);
    cli_print_line(stdout, text, 200);
    (void)fputc('\n', stdout);
}

static void info_print(const struct personad_info *info, const struct personad_stats *stats)
{
    char hash[65];
    hash_format(info->model_hash, hash);
    row("personad", info->daemon_version);
    row("socket", info->socket_path);
    row("model", info->model_name);
    row("file", info->model_path);
    (void)printf("%-12s %s\n", "sha256", hash);
    row("format", info->chat_format);
    row("backend", info->backend);
    row("numerics", info->numerics_id);
    (void)printf("%-12s %u tokens (the model was trained for %u)\n", "context",
                 info->context_tokens_max, info->context_tokens_trained);
    (void)printf("%-12s %" PRIu64 " MiB\n", "weights", info->weight_bytes >> 20);
    (void)printf("%-12s %" PRIu64 " pages of 16 tokens, %" PRIu64 " MiB; %" PRIu64 " free, %" PRIu64
                 " cached\n",
                 "kv", info->kv_page_count, info->kv_bytes >> 20, stats->kv_page_free_count,
                 stats->kv_page_cached_count);
    (void)printf("%-12s %" PRIu64 " sessions, %" PRIu64 " nodes, %" PRIu64 " personas, %" PRIu64
                 " connections\n",
                 "holds", stats->session_count, stats->node_count, stats->persona_count,
                 stats->connection_count);
    (void)printf("%-12s %" PRIu64 " running, %" PRIu64 " waiting\n", "branches",
                 stats->branch_running_count, stats->branch_waiting_count);
    (void)printf("%-12s %" PRIu64 " tokens sampled, %" PRIu64 " positions in %" PRIu64 " steps\n",
                 "computed", stats->sample_count, stats->row_count, stats->step_count);
    (void)printf("%-12s %" PRIu64 " asked for, %" PRIu64 " shared, %" PRIu64 " computed\n",
                 "context use", stats->context_token_count, stats->context_cached_count,
                 stats->context_computed_count);
    (void)printf("%-12s ", "speculation");
    cli_print_line(stdout, info->speculation, 16);
    (void)printf("; %" PRIu64 " tokens guessed, %" PRIu64 " of them right\n", stats->drafted_count,
                 stats->accepted_count);
}

static void stats_print_json(struct json *json, const struct personad_stats *stats)
{
    json_object_start(json, "stats");
    json_u64(json, "uptime_us", stats->uptime_us);
    json_u64(json, "connections", stats->connection_count);
    json_u64(json, "sessions", stats->session_count);
    json_u64(json, "nodes", stats->node_count);
    json_u64(json, "personas", stats->persona_count);
    json_u64(json, "branches_waiting", stats->branch_waiting_count);
    json_u64(json, "branches_running", stats->branch_running_count);
    json_u64(json, "steps", stats->step_count);
    json_u64(json, "rows", stats->row_count);
    json_u64(json, "decode_rows", stats->decode_row_count);
    json_u64(json, "prefill_rows", stats->prefill_row_count);
    json_u64(json, "samples", stats->sample_count);
    json_u64(json, "step_ns", stats->step_ns);
    json_u64(json, "context_tokens", stats->context_token_count);
    json_u64(json, "context_cached", stats->context_cached_count);
    json_u64(json, "context_computed", stats->context_computed_count);
    json_u64(json, "preemptions", stats->preemption_count);
    json_u64(json, "cancelled", stats->cancelled_count);
    json_u64(json, "finished", stats->finished_count);
    json_u64(json, "failed", stats->failed_count);
    json_u64(json, "kv_pages", stats->kv_page_count);
    json_u64(json, "kv_pages_free", stats->kv_page_free_count);
    json_u64(json, "kv_pages_cached", stats->kv_page_cached_count);
    json_u64(json, "memory_bytes", stats->memory_bytes);
    json_u64(json, "drafted", stats->drafted_count);
    json_u64(json, "accepted", stats->accepted_count);
    json_object_end(json);
}

static void info_print_json(const struct personad_info *info, const struct personad_stats *stats)
{
    char hash[65];
    struct json json;
    hash_format(info->model_hash, hash);
    json_start(&json, stdout);
    json_text(&json, "version", info->daemon_version);
    json_u64(&json, "pid", info->pid);
    json_text(&json, "socket", info->socket_path);
    json_text(&json, "model", info->model_name);
    json_text(&json, "model_path", info->model_path);
    json_text_of(&json, "model_hash", hash);
    json_text(&json, "architecture", info->architecture);
    json_text(&json, "chat_format", info->chat_format);
    json_text(&json, "backend", info->backend);
    json_text(&json, "numerics_id", info->numerics_id);
    json_text(&json, "speculation", info->speculation);
    json_u64(&json, "vocabulary", info->vocabulary_count);
    json_u64(&json, "context_tokens_max", info->context_tokens_max);
    json_u64(&json, "context_tokens_trained", info->context_tokens_trained);
    json_u64(&json, "kv_pages", info->kv_page_count);
    json_u64(&json, "kv_bytes", info->kv_bytes);
    json_u64(&json, "weight_bytes", info->weight_bytes);
    json_u64(&json, "started_us", info->started_us);
    json_list(&json, "limits");
    for (size_t i = 0; i < info->limit_count; i++) {
        json_object_start(&json, NULL);
        json_text(&json, "name", info->limits[i].name);
        json_u64(&json, "value", info->limits[i].value);
        json_object_end(&json);
    }
    json_list_end(&json);
    stats_print_json(&json, stats);
    json_end(&json);
}

static int run(struct cli *cli, int argument_count, char **arguments)
{
    const int parsed = cli_parse(cli, &command_info, argument_count, arguments, NULL);
    if (parsed != CLI_OK) {
        return parsed < 0 ? CLI_OK : parsed;
    }
    if (cli_has_extra(&command_info, argument_count, arguments)) {
        return CLI_USAGE;
    }
    const int status = cli_connect(cli);
    if (status != CLI_OK) {
        return status;
    }
    struct personad_stats stats;
    const struct personad_info *info = NULL;
    if (personad_stats(cli->client, &stats) != PERSONAD_OK ||
        personad_info(cli->client, &info) != PERSONAD_OK) {
        return cli_failed(cli);
    }
    if (cli->json) {
        info_print_json(info, &stats);
    } else {
        info_print(info, &stats);
    }
    return CLI_OK;
}

const struct cli_command command_info = {
    .name = "info",
    .usage = "[OPTIONS]",
    .summary = "what the daemon serves and how it is doing",
    .help = "Ends with status 1 when no daemon answers: a health check.",
    .run = run,
};
