-- The journal's tables, as of the newest version. A new database is made from this file; an older
-- one is brought here by migrations/NNNN_*.sql, one a version. docs/JOURNAL.md explains the whole.
--
-- Numbers that are u64 outside (ids, seeds, scopes) are stored as the i64 of the same bits.
-- Arrays are little endian and packed. Times are microseconds since the Unix epoch.
-- Rows are written once. What changes later stands in columns that say so.
-- All tables are STRICT: a value of another type is refused, never converted.

-- What computed the sampled nodes: one row a pair of model file and arithmetic.
CREATE TABLE origin (
    id          INTEGER PRIMARY KEY,
    model_hash  BLOB NOT NULL,              -- SHA-256 of the model file, so of the tokeniser too
    numerics_id TEXT NOT NULL,
    UNIQUE (model_hash, numerics_id)
) STRICT;

-- Personas: immutable versions of cards.
CREATE TABLE persona (
    id         INTEGER PRIMARY KEY,
    version    INTEGER NOT NULL,            -- among the owner's personas of this name
    owner_uid  INTEGER NOT NULL,
    visibility INTEGER NOT NULL,            -- 0 private, 1 public
    created_us INTEGER NOT NULL,
    card       BLOB NOT NULL                -- JSON as it was given
) STRICT;

-- A persona's prompt as it was rendered and tokenised: replay never runs template code again.
-- Sessions with equal variables share a row.
CREATE TABLE prompt (
    digest       BLOB PRIMARY KEY,          -- SHA-256 over the other columns
    persona_id   INTEGER NOT NULL REFERENCES persona(id),
    scope        INTEGER NOT NULL,          -- names what may share its KV
    format       INTEGER NOT NULL,          -- enum template_format
    end_side     INTEGER NOT NULL,          -- enum template_side of the last turn in it
    is_open      INTEGER NOT NULL,          -- it leaves a user turn open
    character    BLOB NOT NULL,             -- names, as rendered
    user         BLOB NOT NULL,
    post_history BLOB NOT NULL,             -- text
    ids          BLOB NOT NULL,             -- [u32]
    greetings    BLOB NOT NULL,             -- for each greeting: count u32, ids [u32]
    inserts      BLOB NOT NULL DEFAULT x''  -- of the card, rendered: docs/JOURNAL.md, "Inserts"
) STRICT, WITHOUT ROWID;

-- One tree of conversation.
CREATE TABLE session (
    id             INTEGER PRIMARY KEY,
    owner_uid      INTEGER NOT NULL,
    seed           INTEGER NOT NULL,
    created_us     INTEGER NOT NULL,
    context_tokens INTEGER NOT NULL,
    origin_id      INTEGER NOT NULL REFERENCES origin(id), -- whose tokens its tree is made of
    label          BLOB NOT NULL,           -- changes
    head_node      INTEGER NOT NULL,        -- changes; 0: the root
    head_offset    INTEGER NOT NULL,        -- changes; 4294967295: the end
    group_mode     INTEGER NOT NULL DEFAULT 0 -- 0 separate, 1 joint
) STRICT;

-- The cast: who speaks under which index.
CREATE TABLE member (
    session_id    INTEGER NOT NULL REFERENCES session(id),
    speaker       INTEGER NOT NULL,
    name          BLOB NOT NULL,
    prompt_digest BLOB REFERENCES prompt(digest), -- NULL: a human
    PRIMARY KEY (session_id, speaker)
) STRICT, WITHOUT ROWID;

-- Of a joint session: a persona's texts as they were rendered, of which joint prompts are made.
CREATE TABLE preamble (
    session_id INTEGER NOT NULL REFERENCES session(id),
    speaker    INTEGER NOT NULL,
    system     BLOB NOT NULL,
    examples   BLOB NOT NULL,
    PRIMARY KEY (session_id, speaker)
) STRICT, WITHOUT ROWID;

-- Of a joint session: prompts with the preambles of all personas, one each time that one joined.
CREATE TABLE joint (
    session_id    INTEGER NOT NULL REFERENCES session(id),
    member_count  INTEGER NOT NULL,         -- of the cast, when it was made
    prompt_digest BLOB NOT NULL REFERENCES prompt(digest),
    PRIMARY KEY (session_id, member_count)
) STRICT, WITHOUT ROWID;

-- Notes that the model reads from a place on. A row is replaced when it changes.
CREATE TABLE author_note (
    session_id  INTEGER NOT NULL REFERENCES session(id),
    node_id     INTEGER NOT NULL,           -- the place; 0: the root
    node_offset INTEGER NOT NULL,
    depth       INTEGER NOT NULL,           -- turns behind it
    role        INTEGER NOT NULL,           -- enum insert_role
    created_us  INTEGER NOT NULL,
    text        BLOB NOT NULL,              -- empty: from here on there is no note
    PRIMARY KEY (session_id, node_id, node_offset)
) STRICT, WITHOUT ROWID;

-- Sampler steps and cues: all that decides a node's tokens besides its context and seed.
CREATE TABLE steps (
    digest  BLOB PRIMARY KEY,               -- SHA-256 over sampler and cues
    sampler BLOB NOT NULL,                  -- daemon/sample/sampler_stored.c
    cues    BLOB NOT NULL                   -- for each: kind u32, size u32, bytes
) STRICT, WITHOUT ROWID;

-- Skeletons of nodes: what a walk over the tree needs. A sampled node's row is its intent.
CREATE TABLE node (
    id             INTEGER PRIMARY KEY,
    session_id     INTEGER NOT NULL REFERENCES session(id),
    parent_id      INTEGER REFERENCES node(id), -- NULL: the root
    parent_offset  INTEGER NOT NULL,        -- tokens of the parent's content
    ordinal        INTEGER NOT NULL,
    speaker        INTEGER NOT NULL,
    origin         INTEGER NOT NULL,        -- enum node_origin
    flags          INTEGER NOT NULL,        -- 1 opens a turn, 2 greeting; these change: 4 deleted,
                                            -- 8 purged
    created_us     INTEGER NOT NULL,
    finish         INTEGER NOT NULL,        -- changes once, from 0: enum node_finish
    finished_us    INTEGER NOT NULL         -- changes with it
) STRICT;
CREATE INDEX node_by_session ON node(session_id, id);
CREATE INDEX node_unfinished ON node(id) WHERE finish = 0;

-- What people say about things, and where they put bookmarks. A row is replaced when it changes.
CREATE TABLE note (
    kind        INTEGER NOT NULL,           -- 0 node, 1 session, 2 persona, 3 bookmark of a session
    id          INTEGER NOT NULL,           -- of the node, session or persona
    name        BLOB NOT NULL,              -- of the bookmark; else empty
    flags       INTEGER NOT NULL,           -- 1 deleted, 2 purged, 4 of a file
    label       BLOB NOT NULL,
    node_id     INTEGER NOT NULL,           -- the bookmark's place; 0: the root
    node_offset INTEGER NOT NULL,
    created_us  INTEGER NOT NULL,
    PRIMARY KEY (kind, id, name)
) STRICT, WITHOUT ROWID;

-- Content that was given: tokens and the text that they show.
CREATE TABLE given (
    node_id INTEGER PRIMARY KEY REFERENCES node(id),
    ids     BLOB NOT NULL,                  -- [u32]
    text    BLOB NOT NULL,
    original INTEGER NOT NULL               -- the node that it was edited from; 0: it is new
) STRICT;

-- What the model saw before the first token of the nodes that name it, as a difference.
CREATE TABLE context (
    id                INTEGER PRIMARY KEY,  -- that of the first node that was sampled from it
    session_id        INTEGER NOT NULL REFERENCES session(id),
    base_id           INTEGER REFERENCES context(id), -- NULL: it has all of its segments itself
    base_count        INTEGER NOT NULL,     -- leading segments taken from the base
    speaker           INTEGER NOT NULL,
    prompt_digest     BLOB NOT NULL REFERENCES prompt(digest),
    token_count       INTEGER NOT NULL,
    first_turn        INTEGER NOT NULL,     -- turns of the path that the window left out
    scope_token_count INTEGER NOT NULL,     -- leading tokens under the prompt's scope
    segments          BLOB NOT NULL         -- docs/JOURNAL.md, "Segments"
) STRICT;
CREATE INDEX context_by_session ON context(session_id, id);

-- The sampled part of a node: what it is computed from, then how it ended.
CREATE TABLE sampled (
    node_id        INTEGER PRIMARY KEY REFERENCES node(id),
    seed           INTEGER NOT NULL,
    context_id     INTEGER NOT NULL REFERENCES context(id),
    steps_digest   BLOB NOT NULL REFERENCES steps(digest),
    origin_id      INTEGER NOT NULL REFERENCES origin(id),
    room           INTEGER NOT NULL,        -- context and reply together, tokens
    top_count      INTEGER NOT NULL,        -- alternatives stored a token
    -- These change with every checkpoint and with the finish.
    sampled_count  INTEGER NOT NULL,        -- tokens in its chunks
    kept           INTEGER NOT NULL,        -- whole tokens that are content (so far: released)
    content_bytes  INTEGER NOT NULL,        -- of the text, that are content (so far: released)
    -- These come with the finish.
    tail           BLOB NOT NULL,           -- [u32] the whole content, when it ends inside a token
    cue_pattern    INTEGER NOT NULL,
    queued_ns      INTEGER NOT NULL,
    first_token_ns INTEGER NOT NULL,
    last_token_ns  INTEGER NOT NULL,
    cached_count   INTEGER NOT NULL,        -- context tokens found in the KV tree
    computed_count INTEGER NOT NULL,
    error_status   INTEGER NOT NULL,        -- enum status, with finish 6
    error_text     TEXT NOT NULL
) STRICT;

-- Tokens of sampled nodes with their numbers, in stretches: a checkpoint adds one, the finish the
-- last. key = node id * 65536 + index of the first token, so that a node's chunks lie together.
CREATE TABLE chunk (
    key             INTEGER PRIMARY KEY,
    tokens          BLOB NOT NULL,          -- [u32]
    logprobs        BLOB NOT NULL,          -- [f32] under the model
    logprobs_sampler BLOB NOT NULL,         -- [f32] under the sampler
    entropies       BLOB NOT NULL,          -- [f32]
    text_ends       BLOB NOT NULL,          -- [u32] where in the node's text each token ends
    tops            BLOB NOT NULL,          -- [top_count](id u32, log probability f32) a token
    text            BLOB NOT NULL           -- bytes that these tokens show
) STRICT;

-- Client keys: a repeat of a request gives the same nodes.
CREATE TABLE client_key (
    uid        INTEGER NOT NULL,
    key        BLOB NOT NULL,
    request    INTEGER NOT NULL,            -- enum request_type of the first one
    session_id INTEGER NOT NULL REFERENCES session(id),
    nodes      BLOB NOT NULL,               -- [u64] ids, in the order of the answer
    PRIMARY KEY (uid, key)
) STRICT, WITHOUT ROWID;
