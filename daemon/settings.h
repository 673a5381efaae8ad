/* What a person sets, on the command line or in one INI file: every setting has one name in both.
 *
 * Thread: before the others start. The command line wins over the file, the file over the defaults.
 * The settings own their strings.
 */
#ifndef PERSONAD_SETTINGS_H
#define PERSONAD_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/log.h"
#include "base/status.h"

struct settings {
    char *model;  /* GGUF file; required */
    char *socket; /* default: settings_default_socket() */
    char *data;   /* folder, 0700; default: $XDG_DATA_HOME/personad, else ~/.local/share/personad */
    char *socket_group;   /* NULL: the owner alone may connect */
    char *personas;       /* folder of cards; NULL: those that ship with the daemon */
    char *persona;        /* name of the default persona; NULL: see default_persona() */
    char *backend;        /* "auto", "cpu", "cuda"; NULL: auto */
    char *kv_type;        /* "f16", "bf16", "fp8"; NULL: forward_kv_type() */
    char *weights;        /* "as-is", "fp8"; NULL: as-is */
    char *speculation;    /* "auto", "off"; NULL: auto */
    char *numerics;       /* "fast", "precise"; NULL: fast */
    char *isa;            /* "auto" or a name of kernels/cpu/isa.h */
    char *gpu_providers;  /* file of kernels/provider_table.h; NULL: mma alone */
    uint32_t threads;     /* 0: as many as the affinity mask allows */
    uint32_t context;     /* tokens; 0: what the model was trained for */
    uint32_t kv_memory;   /* MiB; 0: an eighth of the machine's memory, or what a card has left */
    uint32_t gpu_memory;  /* MiB of a card; 0: nine tenths of what is free */
    uint32_t device;      /* a card's number */
    uint32_t tree_memory; /* MiB of trees in memory */
    uint32_t branches;    /* in one batch; at most BRANCH_RUNNING_COUNT_MAX */
    uint32_t connections; /* at most CONNECTION_COUNT_MAX */
    uint32_t step_ms;     /* time budget of a step */
    enum log_level log;
    bool list_devices; /* command line only: --devices, and nothing else is done */
};

/* Parses. --help, --version and unknown options print and end the program, as argp does. BAD_INPUT
 * names the option, or the file, line and key, that is wrong. */
MUST_USE enum status settings_parse(int argument_count, char **arguments, struct error *error,
                                    struct settings *settings);
void settings_finish(struct settings *settings);

/* $PERSONAD_SOCKET, else $XDG_RUNTIME_DIR/personad/personad.sock, else
 * /tmp/personad-UID/personad.sock. The caller frees; NULL when out of memory. */
char *settings_default_socket(void);

#endif
