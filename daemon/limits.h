/* Every bound of the daemon in one place, and the relations between them.
 *
 * Past a limit the caller gets STATUS_LIMIT with the limit's name. `Info` reports those that a
 * client can meet. Units are in the names. Kernel-side bounds are in kernels/backend.h.
 */
#ifndef PERSONAD_LIMITS_H
#define PERSONAD_LIMITS_H

#include <assert.h>

enum {
    /* wire */
    FRAME_BODY_BYTES_MAX = 4 * 1024 * 1024,
    MESSAGE_UNPACK_BYTES_MAX = 32 * 1024 * 1024, /* what one message may take once unpacked */
    CONNECTION_COUNT_MAX = 1024,
    CONNECTION_PER_USER_COUNT_MAX = 512,
    CONNECTION_HELLO_MS_MAX = 10 * 1000,
    CONNECTION_DRAIN_MS_MAX = 2 * 1000,       /* to take the last error before the close */
    CONNECTION_WRITE_BYTES_MAX = 1024 * 1024, /* queued to one socket; then it has to read first */
    CONNECTION_QUEUE_BYTES_MAX = 64 * 1024 * 1024, /* queued in all; then it is closed */
    INPUT_BYTES_MAX = 256 * 1024 * 1024,           /* half frames of all connections */
    CLIENT_NAME_BYTES_MAX = 64,
    REQUEST_PER_CONNECTION_COUNT_MAX = 4096, /* credits; streams in progress count */
    CURSOR_PER_CONNECTION_COUNT_MAX = 4096,
    SOCKET_PATH_BYTES_MAX = 107,

    /* session */
    PERSONA_COUNT_MAX = 65536,
    PERSONA_CARD_BYTES_MAX = 1024 * 1024,
    PERSONA_NAME_BYTES_MAX = 256,
    PERSONA_GREETING_COUNT_MAX = 256,
    PERSONA_VARIABLE_COUNT_MAX = 64,
    SESSION_COUNT_MAX = 262144,
    SESSION_PER_USER_COUNT_MAX = 131072,
    SESSION_NODE_COUNT_MAX = 1024 * 1024,
    SESSION_CAST_COUNT_MAX = 64,
    NODE_COUNT_MAX = 4 * 1024 * 1024,
    LABEL_BYTES_MAX = 256,
    BACKUP_PATH_BYTES_MAX = 4000,
    CLIENT_KEY_BYTES_MAX = 64,
    TEXT_BYTES_MAX = 1024 * 1024,  /* one text that enters */
    TEXT_TOKEN_COUNT_MAX = 262144, /* what it may become */
    GENERATE_SIBLING_COUNT_MAX = 1024,
    USER_COUNT_MAX = 65536,
    CLIENT_KEY_COUNT_MAX = 1024 * 1024, /* remembered */
    OUTPUT_MIB_PER_USER_MAX = 2048,     /* output blocks of branches that are alive */
    CONTENT_MIB_PER_USER_MAX = 8192,    /* cards, given texts, settled nodes in memory */
    RESIDENT_MIB_MAX = 2048, /* of trees; then those that rest longest are left to the journal */
    BRANCH_UNFOLLOWED_MS_MAX = 60 * 1000, /* then a branch that nobody follows is parked */
    LEAD_IN_BYTES_MAX = 4096,             /* of an open turn, that the cue reader sees */
    WALK_PAGE_NODE_COUNT_MAX = 1024,
    DISTRIBUTION_TOKEN_COUNT_MAX = 256,
    SCORE_OPTION_COUNT_MAX = 1024, /* of one request */
    COMPARE_PERSONA_COUNT_MAX = 8,
    COMPARE_TOKEN_COUNT_MAX = 32768,      /* a reply must fit a frame */
    COMPARE_ROW_VALUE_COUNT = 512 * 1024, /* logits of all personas, compared at a time */
    GROUP_NODE_COUNT_MAX = 1024,
    GROUP_TEXT_BYTES_MAX = 3 * 1024 * 1024,
    EXPAND_DEPTH_MAX = 256,                 /* tokens of a path */
    EXPAND_NODE_COUNT_MAX = 4096,           /* of one expansion */
    EXPAND_LOOK_COUNT_MAX = 256,            /* its nodes that are computed at a time */
    EXPANSION_PER_USER_COUNT_MAX = 64,      /* remembered: with all their nodes, 8 MiB */
    EXPANSION_IDLE_MS_MAX = 10 * 60 * 1000, /* then one that nobody names is forgotten */
    VERIFY_LOOK_COUNT_MAX = 4,              /* nodes of one request that are computed at a time */
    VERIFY_NODE_COUNT_MAX = 1024,           /* that one request tells of */
    VERIFY_OTHER_TOKEN_COUNT_MAX = 64,      /* places that it tells of a node */
    LIST_PAGE_COUNT_MAX = 1024,
    MARK_NODE_COUNT_MAX = 4096,   /* nodes of one Delete, Undelete or Purge */
    BOOKMARK_COUNT_MAX = 4096,    /* of a session */
    AUTHOR_NOTE_COUNT_MAX = 4096, /* likewise: places where one is set */
    NOTE_BYTES_MAX = 64 * 1024,
    INSERT_DEPTH_MAX = 1000000,
    LORE_ENTRY_COUNT_MAX = 4096,     /* of a card */
    LORE_KEY_COUNT_MAX = 8192,       /* likewise */
    LORE_SCAN_BYTES_MAX = 16 * 1024, /* of the last turns, where keys are looked for */
    LORE_SEARCH_BYTES_MAX =
        32 * 1024 * 1024,    /* a context, text times keys; then no more are found */
    TRANSFER_COUNT_MAX = 32, /* exports and imports under way */
    TRANSFER_PER_USER_COUNT_MAX = 8,
    EXPORT_PAGE_BYTES = 256 * 1024,          /* a reply has about so many bytes of a file */
    IMPORT_PIECE_BYTES_MAX = 1024 * 1024,    /* of a file, in one request */
    IMPORT_LINE_BYTES_MAX = 8 * 1024 * 1024, /* of a file */
    IMPORT_SLICE_WORK = 512, /* of a whole file in one turn of the loop: nodes, or 32 tokens each */

    /* schedule */
    BRANCH_COUNT_MAX = 4096, /* alive at once: waiting or generating */
    BRANCH_PER_USER_COUNT_MAX = 2048,
    BRANCH_RUNNING_COUNT_MAX = 256,                /* with a history slot in the backend */
    ENGINE_INBOX_COUNT_MAX = 4 * BRANCH_COUNT_MAX, /* submit, cancel, park and release, unread */
    STEP_ROW_COUNT_MAX = 512,                      /* rows of one engine step */
    STEP_BUDGET_MS = 50,
    DRAFT_COUNT_MAX = 7,        /* of a branch in one step */
    DRAFT_STEP_ROWS = 16,       /* a step of so many rows, drafts among them, gets no more drafts */
    DRAFT_PATH_TOKENS = 2048,   /* of a path, that drafts are looked up in */
    DRAFT_TEXT_COUNT_MAX = 4,   /* siblings that drafts are looked up in */
    DRAFT_TEXT_TOKENS = 1024,   /* of each */
    KV_PAGE_COUNT_MAX = 262144, /* of a card; four million tokens */
    REPLY_TOKEN_COUNT_MAX = 32768, /* max_tokens of one node */
    REPLY_TOKEN_COUNT_DEFAULT = 256,

    /* sample and text */
    SAMPLER_STEP_COUNT_MAX = 32,
    LOGIT_BIAS_COUNT_MAX = 1024,
    CUE_COUNT_MAX = 64,
    CUE_PATTERN_COUNT_MAX = CUE_COUNT_MAX + SESSION_CAST_COUNT_MAX, /* cues, stops and names */
    CUE_BYTES_MAX = 256,
    CUE_SPACE_COUNT_MAX = 16, /* after a name that stands alone on its line */
    TOKEN_BYTES_MAX = 4096,   /* one token of a vocabulary, as the file writes it */
    TOP_COUNT_MAX = 32,       /* alternatives stored a token */
    CHOICE_COUNT_MAX = 1024,  /* strings that a reply is chosen from */
    CHOICE_BYTES_MAX = 4096,  /* of one of them, or prescribed in front of free text */

    /* model */
    MODEL_METADATA_BYTES_MAX = 256 * 1024 * 1024, /* header of a model file */
    MODEL_KEY_COUNT_MAX = 65536,
    MODEL_TENSOR_COUNT_MAX = 65536,
    MODEL_NAME_BYTES_MAX = 65535, /* one key or tensor name */
    MODEL_ALIGNMENT_BYTES_MAX = 1024 * 1024,
    MODEL_FILE_COUNT_MAX = 512,              /* of one model */
    MODEL_JSON_BYTES_MAX = 64 * 1024 * 1024, /* of config.json, tokenizer.json and their like */
    SAFETENSORS_HEADER_BYTES_MAX = 32 * 1024 * 1024,
    CONTEXT_TOKEN_COUNT_MAX = 131072,
    VOCABULARY_COUNT_MAX = 1024 * 1024,
    LAYER_COUNT_MAX = 512,

    /* journal */
    JOURNAL_READ_COUNT_MAX = 64,     /* trees asked for at once; the rest waits */
    JOURNAL_QUEUE_COUNT_MAX = 32768, /* completions that are due */
    JOURNAL_QUEUE_BYTES_MAX = 256 * 1024 * 1024,
    JOURNAL_GROUP_COUNT_MAX = 256,         /* batches of one commit */
    JOURNAL_GROUP_BYTES_MAX = 1024 * 1024, /* then the group is closed */
    TREE_BYTES_MAX = 1024 * 1024 * 1024,   /* of one session, as it is read */
    CHECKPOINT_TOKEN_COUNT = 64,           /* sampled since the last one; then there is another */
};

static_assert(BRANCH_RUNNING_COUNT_MAX <= BRANCH_COUNT_MAX, "running branches are branches");
static_assert(STEP_ROW_COUNT_MAX >= BRANCH_RUNNING_COUNT_MAX, "every branch can decode in a step");
static_assert(JOURNAL_QUEUE_COUNT_MAX >= 3 * BRANCH_COUNT_MAX,
              "an intent, a checkpoint and a finish of every branch fit");
static_assert(FRAME_BODY_BYTES_MAX >= 2 * TEXT_BYTES_MAX, "a text and its request fit a frame");

#endif
