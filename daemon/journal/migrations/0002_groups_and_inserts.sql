-- Groups of speakers; notes; what a card inserts into the conversation.
ALTER TABLE session ADD COLUMN group_mode INTEGER NOT NULL DEFAULT 0;
ALTER TABLE prompt ADD COLUMN inserts BLOB NOT NULL DEFAULT x'';

CREATE TABLE preamble (
    session_id INTEGER NOT NULL REFERENCES session(id),
    speaker    INTEGER NOT NULL,
    system     BLOB NOT NULL,
    examples   BLOB NOT NULL,
    PRIMARY KEY (session_id, speaker)
) STRICT, WITHOUT ROWID;

CREATE TABLE joint (
    session_id    INTEGER NOT NULL REFERENCES session(id),
    member_count  INTEGER NOT NULL,
    prompt_digest BLOB NOT NULL REFERENCES prompt(digest),
    PRIMARY KEY (session_id, member_count)
) STRICT, WITHOUT ROWID;

CREATE TABLE author_note (
    session_id  INTEGER NOT NULL REFERENCES session(id),
    node_id     INTEGER NOT NULL,
    node_offset INTEGER NOT NULL,
    depth       INTEGER NOT NULL,
    role        INTEGER NOT NULL,
    created_us  INTEGER NOT NULL,
    text        BLOB NOT NULL,
    PRIMARY KEY (session_id, node_id, node_offset)
) STRICT, WITHOUT ROWID;
