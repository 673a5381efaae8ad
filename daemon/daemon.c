#include "daemon.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/queue.h"
#include "compute.h"
#include "folder.h"
#include "journal/journal.h"
#include "limits.h"
#include "model/model.h"
#include "schedule/engine.h"
#include "session/store.h"
#include "text/tokenizer.h"
#include "wire/server.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "files and frames are little endian");

enum {
    FLUSH_MS_MAX = 2000, /* how long replies may still leave once the daemon stops */
    STOP_POLL_MS = 10,
    ENGINE_IDLE_MS = 1000,
};

enum daemon_phase { PHASE_SERVING, PHASE_ENGINE_STOPPING, PHASE_COMMITTING, PHASE_FLUSHING };

struct daemon {
    const struct settings *settings;

    /* owned, in the order in which they are built */
    int data_lock;
    struct model *model;
    struct tokenizer *tokenizer;
    struct compute compute;
    struct engine *engine;
    char *journal_path;
    struct journal *journal;
    struct server *server;
    struct store *store;
    uv_loop_t loop;
    bool loop_is_open;
    uv_async_t pump_wake, engine_ended;
    uv_signal_t on_term, on_int;
    uv_timer_t stop_timer;
    uv_thread_t engine_thread, journal_thread;
    bool threads_run;
    struct flag *engine_stop, *journal_stop;

    uint32_t context_tokens;
    enum daemon_phase phase;
    uint64_t stop_ns;
    bool skip_flush;
};

/* ---------------------------------------------------------------- threads */

static void engine_main(void *context)
{
    struct daemon *daemon = context;
    while (!flag_is_raised(daemon->engine_stop)) {
        if (engine_step(daemon->engine) == STATUS_AGAIN) {
            engine_wait(daemon->engine, ENGINE_IDLE_MS);
        }
    }
    engine_stop(daemon->engine);
    uv_async_send(&daemon->engine_ended);
}

static void journal_main(void *context)
{
    struct daemon *daemon = context;
    for (;;) {
        const bool stop = flag_is_raised(daemon->journal_stop);
        if (journal_step(daemon->journal) > 0) {
            continue;
        }
        if (stop) {
            return;
        }
        journal_wait(daemon->journal, -1);
    }
}

static void on_news(void *context)
{
    uv_async_send(&((struct daemon *)context)->pump_wake);
}

static void on_pump(uv_async_t *handle)
{
    struct daemon *daemon = handle->data;
    if (daemon->store != NULL) {
        store_pump(daemon->store);
    }
}

/* ---------------------------------------------------------------- stopping */

static void handles_close(struct daemon *daemon)
{
    uv_handle_t *handles[] = {(uv_handle_t *)&daemon->pump_wake,
                              (uv_handle_t *)&daemon->engine_ended, (uv_handle_t *)&daemon->on_term,
                              (uv_handle_t *)&daemon->on_int, (uv_handle_t *)&daemon->stop_timer};
    for (size_t i = 0; i < sizeof handles / sizeof handles[0]; i++) {
        if (handles[i]->data != NULL && !uv_is_closing(handles[i])) {
            uv_close(handles[i], NULL);
        }
    }
}

/* Called every few milliseconds once the daemon stops: commits, then flushes, then closes. */
static void on_stop_timer(uv_timer_t *timer)
{
    struct daemon *daemon = timer->data;
    store_pump(daemon->store);
    if (daemon->phase == PHASE_COMMITTING && store_is_idle(daemon->store)) {
        daemon->phase = PHASE_FLUSHING;
        daemon->stop_ns = clock_monotonic_ns();
    }
    if (daemon->phase != PHASE_FLUSHING) {
        return;
    }
    const uint64_t waited_ms = (clock_monotonic_ns() - daemon->stop_ns) / 1000000;
    if (!daemon->skip_flush && !server_is_flushed(daemon->server) && waited_ms < FLUSH_MS_MAX) {
        return;
    }
    server_close(daemon->server);
    handles_close(daemon);
}

static void on_engine_ended(uv_async_t *handle)
{
    struct daemon *daemon = handle->data;
    store_stop(daemon->store);
    server_stop_accepting(daemon->server);
    store_pump(daemon->store);
    daemon->phase = PHASE_COMMITTING;
    (void)uv_timer_start(&daemon->stop_timer, on_stop_timer, 0, STOP_POLL_MS);
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct daemon *daemon = handle->data;
    if (daemon->phase != PHASE_SERVING) {
        daemon->skip_flush = true;
        return;
    }
    log_line(LOG_INFO, "daemon", "stopping: %s", number == SIGTERM ? "SIGTERM" : "SIGINT");
    daemon->phase = PHASE_ENGINE_STOPPING;
    store_stop(daemon->store);
    server_stop_accepting(daemon->server);
    flag_raise(daemon->engine_stop);
    engine_wake(daemon->engine);
}

/* ---------------------------------------------------------------- building */

static enum status model_build(struct daemon *daemon, struct error *error)
{
    TRY(model_open(daemon->settings->model, error, &daemon->model));
    const struct model_config *config = model_config(daemon->model);
    const uint32_t wanted = daemon->settings->context;
    daemon->context_tokens = wanted != 0 ? wanted : config->context_token_count;
    if (daemon->context_tokens > config->context_token_count) {
        log_line(LOG_WARN, "daemon", "--context %u is more than the %u the model was trained for",
                 wanted, config->context_token_count);
    }
    if (daemon->context_tokens > CONTEXT_TOKEN_COUNT_MAX) {
        daemon->context_tokens = CONTEXT_TOKEN_COUNT_MAX;
    }
    return tokenizer_create(model_vocabulary(daemon->model), error, &daemon->tokenizer);
}

static enum status journal_build(struct daemon *daemon, struct error *error)
{
    static const char name[] = "/journal.db";
    const size_t size = strlen(daemon->settings->data) + sizeof(name);

    daemon->journal_path = memory_alloc(1, size);
    if (daemon->journal_path == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory at start");
    }
    (void)snprintf(daemon->journal_path, size, "%s%s", daemon->settings->data, name);
    return journal_open(daemon->journal_path, error, &daemon->journal);
}

static enum status on_restart(void *context, struct error *error, struct forward **out)
{
    struct compute *compute = context;
    TRY(compute_restart(compute, error));
    *out = compute->forward;
    return STATUS_OK;
}

static bool is_speculating(const struct daemon *daemon)
{
    const char *wanted = daemon->settings->speculation;

    return (wanted == NULL || strcmp(wanted, "auto") == 0) &&
           forward_checks_drafts(daemon->compute.forward);
}

static enum status engine_build(struct daemon *daemon, struct error *error)
{
    struct compute *compute = &daemon->compute;
    const struct engine_settings engine = {
        .forward = compute->forward,
        .tokenizer = daemon->tokenizer,
        .page_count = compute->page_count,
        .row_count_max = STEP_ROW_COUNT_MAX,
        .running_count_max = daemon->settings->branches,
        .step_budget_ms = daemon->settings->step_ms,
        .rest_ms = ENGINE_IDLE_MS,
        .context_token_count_max = daemon->context_tokens,
        .partial_count_max = compute->partial_count_max,
        .speculates = is_speculating(daemon),
        .restart = on_restart,
        .restart_context = compute,
    };
    TRY(engine_create(&engine, error, &daemon->engine));
    return journal_build(daemon, error);
}

static enum status handles_open(struct daemon *daemon, struct error *error)
{
    if (uv_loop_init(&daemon->loop) != 0) {
        return error_set(error, STATUS_IO, "the event loop could not be made");
    }
    daemon->loop_is_open = true;
    int failed = uv_async_init(&daemon->loop, &daemon->pump_wake, on_pump);
    daemon->pump_wake.data = daemon;
    failed |= uv_async_init(&daemon->loop, &daemon->engine_ended, on_engine_ended);
    daemon->engine_ended.data = daemon;
    failed |= uv_signal_init(&daemon->loop, &daemon->on_term);
    daemon->on_term.data = daemon;
    failed |= uv_signal_init(&daemon->loop, &daemon->on_int);
    daemon->on_int.data = daemon;
    failed |= uv_timer_init(&daemon->loop, &daemon->stop_timer);
    daemon->stop_timer.data = daemon;
    if (failed != 0) {
        return error_set(error, STATUS_IO, "the event loop's handles could not be made");
    }
    engine_on_events(daemon->engine, on_news, daemon);
    journal_on_completed(daemon->journal, on_news, daemon);
    return STATUS_OK;
}

static struct info_view info_make(const struct daemon *daemon)
{
    const struct model_config *config = model_config(daemon->model);
    const char *path = daemon->settings->model;
    const char *slash = strrchr(path, '/');
    struct info_view info = {
        .model_name =
            config->name.size > 0 ? config->name : bytes_of_text(slash != NULL ? slash + 1 : path),
        .model_path = bytes_of_text(path),
        .architecture = bytes_of_text(config->architecture),
        .numerics_id = bytes_of_text(daemon->compute.numerics),
        .backend = bytes_of_text(daemon->compute.text),
        .speculation = bytes_of_text(is_speculating(daemon) ? "auto" : "off"),
        .vocabulary_count = config->vocabulary_count,
        .context_tokens_max = daemon->context_tokens,
        .context_tokens_trained = config->context_token_count,
        .kv_page_count = daemon->compute.page_count,
        .kv_bytes = daemon->compute.page_bytes * daemon->compute.page_count,
        .weight_bytes = config->weight_bytes,
        .started_us = clock_wall_us(),
    };
    memcpy(info.model_hash, model_hash(daemon->model), sizeof info.model_hash);
    return info;
}

/* Of the cards that ship, the one for a first conversation; of other folders, the first card. */
static const char *default_persona(const struct settings *settings)
{
    if (settings->persona != NULL || settings->personas != NULL) {
        return settings->persona;
    }
    return "keeper";
}

static enum status store_build(struct daemon *daemon, struct error *error)
{
    const struct server_settings server = {
        .loop = &daemon->loop,
        .socket_path = daemon->settings->socket,
        .socket_group = daemon->settings->socket_group,
        .connection_count_max = folder_connection_count_max(daemon->settings->connections),
        .daemon_version = PERSONAD_VERSION,
    };
    TRY(folder_prepare_socket(daemon->settings->socket, error));
    TRY(server_open(&server, error, &daemon->server));
    const struct store_settings store = {
        .tokenizer = daemon->tokenizer,
        .engine = daemon->engine,
        .journal = daemon->journal,
        .model_hash = model_hash(daemon->model),
        .numerics_id = daemon->compute.numerics,
        .default_persona = default_persona(daemon->settings),
        .context_token_count_max = daemon->context_tokens,
        .resident_bytes_max = (uint64_t)daemon->settings->tree_memory << 20,
        .info = info_make(daemon),
        .events = server_events(daemon->server),
    };
    TRY(store_create(&store, error, &daemon->store));
    TRY(store_load(daemon->store, error));
    return folder_load_personas(daemon->settings->personas, daemon->store, error);
}

static enum status threads_start(struct daemon *daemon, struct error *error)
{
    TRY(flag_create(&daemon->engine_stop));
    TRY(flag_create(&daemon->journal_stop));
    if (uv_signal_start(&daemon->on_term, on_signal, SIGTERM) != 0 ||
        uv_signal_start(&daemon->on_int, on_signal, SIGINT) != 0) {
        return error_set(error, STATUS_IO, "signals could not be watched");
    }
    if (uv_thread_create(&daemon->journal_thread, journal_main, daemon) != 0) {
        return error_set(error, STATUS_IO, "the journal thread could not be started");
    }
    if (uv_thread_create(&daemon->engine_thread, engine_main, daemon) != 0) {
        flag_raise(daemon->journal_stop);
        journal_wake(daemon->journal);
        uv_thread_join(&daemon->journal_thread);
        return error_set(error, STATUS_IO, "the engine thread could not be started");
    }
    daemon->threads_run = true;
    return STATUS_OK;
}

static enum status daemon_build(struct daemon *daemon, struct error *error)
{
    TRY(folder_prepare_data(daemon->settings->data, error, &daemon->data_lock));
    TRY(model_build(daemon, error));
    TRY(compute_open(daemon->settings, daemon->model, daemon->context_tokens, error,
                     &daemon->compute));
    TRY(engine_build(daemon, error));
    TRY(handles_open(daemon, error));
    TRY(store_build(daemon, error));
    TRY(threads_start(daemon, error));
    return server_start(daemon->server, daemon->store, error);
}

/* Stops the threads if they still run, then frees everything in reverse. */
static void daemon_tear_down(struct daemon *daemon)
{
    if (daemon->threads_run) {
        flag_raise(daemon->engine_stop);
        engine_wake(daemon->engine);
        uv_thread_join(&daemon->engine_thread);
        flag_raise(daemon->journal_stop);
        journal_wake(daemon->journal);
        uv_thread_join(&daemon->journal_thread);
    }
    if (daemon->loop_is_open) {
        if (daemon->server != NULL) {
            server_close(daemon->server);
        }
        handles_close(daemon);
        (void)uv_run(&daemon->loop, UV_RUN_DEFAULT);
        CHECK(uv_loop_close(&daemon->loop) == 0);
    }
    store_destroy(daemon->store);
    server_destroy(daemon->server);
    engine_destroy(daemon->engine);
    journal_close(daemon->journal);
    memory_free(daemon->journal_path);
    flag_destroy(daemon->engine_stop);
    flag_destroy(daemon->journal_stop);
    compute_close(&daemon->compute);
    tokenizer_destroy(daemon->tokenizer);
    model_close(daemon->model);
    folder_release(daemon->data_lock);
}

enum status daemon_run(const struct settings *settings, struct error *error)
{
    log_level_set(settings->log);
    folder_prepare_process();
    struct daemon *daemon = memory_alloc(1, sizeof *daemon);
    if (daemon == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory at start");
    }
    daemon->settings = settings;
    daemon->data_lock = -1;
    enum status status = daemon_build(daemon, error);
    if (status == STATUS_OK) {
        (void)printf("personad: ready on %s\n", settings->socket);
        (void)fflush(stdout);
        (void)uv_run(&daemon->loop, UV_RUN_DEFAULT);
    }
    daemon_tear_down(daemon);
    memory_free(daemon);
    return status;
}
