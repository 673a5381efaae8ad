/* The statements by which the writer changes the database (writer.c), prepared once.
 *
 * Thread: constant.
 */
#ifndef PERSONAD_JOURNAL_STATEMENTS_H
#define PERSONAD_JOURNAL_STATEMENTS_H

/* What one statement does, and what it is bound to. */
#define STATEMENT_MAP(X)                                                                           \
    X(ORIGIN_ADD, "INSERT OR IGNORE INTO origin (model_hash, numerics_id) VALUES (?, ?)")          \
    X(ORIGIN_FIND, "SELECT id FROM origin WHERE model_hash = ? AND numerics_id = ?")               \
    X(PERSONA, "INSERT INTO persona (id, version, owner_uid, visibility, created_us, card) "       \
               "VALUES (?, ?, ?, ?, ?, ?)")                                                        \
    X(PROMPT, "INSERT OR IGNORE INTO prompt (digest, persona_id, scope, format, end_side, "        \
              "is_open, character, user, post_history, ids, greetings, inserts) "                  \
              "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")                                       \
    X(SESSION, "INSERT INTO session (id, owner_uid, seed, created_us, context_tokens, origin_id, " \
               "label, head_node, head_offset, group_mode) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)") \
    X(MEMBER, "INSERT INTO member (session_id, speaker, name, prompt_digest) "                     \
              "VALUES (?, ?, ?, ?) "                                                               \
              "ON CONFLICT (session_id, speaker) DO UPDATE SET name = excluded.name")              \
    X(HEAD, "UPDATE session SET head_node = ?2, head_offset = ?3 WHERE id = ?1")                   \
    X(STEPS, "INSERT OR IGNORE INTO steps (digest, sampler, cues) VALUES (?, ?, ?)")               \
    X(CONTEXT, "INSERT INTO context (id, session_id, base_id, base_count, speaker, "               \
               "prompt_digest, token_count, first_turn, scope_token_count, segments) "             \
               "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")                                            \
    X(NODE, "INSERT INTO node (id, session_id, parent_id, parent_offset, ordinal, speaker, "       \
            "origin, flags, created_us, finish, finished_us) "                                     \
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")                                            \
    X(GIVEN, "INSERT INTO given (node_id, ids, text, original) VALUES (?, ?, ?, ?)")               \
    X(SAMPLED, "INSERT INTO sampled VALUES (?, ?, ?, ?, ?, ?, ?, 0, 0, 0, x'', 0, 0, 0, 0, 0, 0, " \
               "0, '')")                                                                           \
    X(CHUNK, "INSERT INTO chunk (key, tokens, logprobs, logprobs_sampler, entropies, text_ends, "  \
             "tops, text) VALUES (?, ?, ?, ?, ?, ?, ?, ?)")                                        \
    X(CHECKPOINT, "UPDATE sampled SET sampled_count = ?2, kept = ?3, content_bytes = ?4 "          \
                  "WHERE node_id = ?1")                                                            \
    X(FINISH, "UPDATE node SET finish = ?2, finished_us = ?3 WHERE id = ?1 AND finish = 0")        \
    X(ENDING, "UPDATE sampled SET sampled_count = ?2, kept = ?3, content_bytes = ?4, tail = ?5, "  \
              "cue_pattern = ?6, queued_ns = ?7, first_token_ns = ?8, last_token_ns = ?9, "        \
              "cached_count = ?10, computed_count = ?11, error_status = ?12, error_text = ?13 "    \
              "WHERE node_id = ?1")                                                                \
    X(KEY, "INSERT INTO client_key (uid, key, request, session_id, nodes) "                        \
           "VALUES (?, ?, ?, ?, ?)")                                                               \
    X(NODE_MARK, "UPDATE node SET flags = (flags & 3) | ?2 WHERE id = ?1")                         \
    X(NODE_GIVEN_ERASE, "UPDATE given SET ids = x'', text = x'' WHERE node_id = ?1")               \
    X(NODE_CHUNKS_ERASE, "DELETE FROM chunk WHERE key >= ?1 * 65536 AND key < (?1 + 1) * 65536")   \
    X(NODE_SAMPLED_ERASE, "UPDATE sampled SET sampled_count = 0, kept = 0, content_bytes = 0, "    \
                          "tail = x'' WHERE node_id = ?1")                                         \
    X(NODE_NOTE_ERASE, "UPDATE note SET label = x'' WHERE kind = 0 AND id = ?1")                   \
    X(PREAMBLE, "INSERT OR IGNORE INTO preamble VALUES (?, ?, ?, ?)")                              \
    X(JOINT, "INSERT INTO joint VALUES (?, ?, ?)")                                                 \
    X(AUTHOR_NOTE, "INSERT OR REPLACE INTO author_note VALUES (?, ?, ?, ?, ?, ?, ?)")              \
    X(AUTHOR_NOTE_REMOVE, "DELETE FROM author_note WHERE session_id = ?1 AND node_id = ?2 AND "    \
                          "node_offset = ?3")                                                      \
    X(NODE_AUTHOR_NOTES_ERASE, "DELETE FROM author_note WHERE session_id = "                       \
                               "(SELECT session_id FROM node WHERE id = ?1) AND node_id = ?1")     \
    X(SESSION_AUTHOR_NOTES_ERASE, "DELETE FROM author_note WHERE session_id = ?1")                 \
    X(NOTE, "INSERT OR REPLACE INTO note VALUES (?, ?, ?, ?, ?, ?, ?, ?)")                         \
    X(SESSION_GIVEN_ERASE, "UPDATE given SET ids = x'', text = x'' WHERE node_id IN "              \
                           "(SELECT id FROM node WHERE session_id = ?1)")                          \
    X(SESSION_CHUNKS_ERASE, "DELETE FROM chunk WHERE key / 65536 IN "                              \
                            "(SELECT id FROM node WHERE session_id = ?1)")                         \
    X(SESSION_TAILS_ERASE, "UPDATE sampled SET tail = x'' WHERE node_id IN "                       \
                           "(SELECT id FROM node WHERE session_id = ?1)")                          \
    X(SESSION_CONTEXTS_ERASE, "UPDATE context SET segments = x'' WHERE session_id = ?1")           \
    X(SESSION_LABEL_ERASE, "UPDATE session SET label = x'' WHERE id = ?1")                         \
    X(SESSION_NOTES_ERASE, "DELETE FROM note WHERE kind = 3 AND id = ?1 OR kind = 0 AND id IN "    \
                           "(SELECT id FROM node WHERE session_id = ?1)")                          \
    X(BEGIN, "BEGIN IMMEDIATE")                                                                    \
    X(COMMIT, "COMMIT")                                                                            \
    X(ROLLBACK, "ROLLBACK")

enum statement {
#define X(name, sql) STATEMENT_##name,
    STATEMENT_MAP(X)
#undef X
        STATEMENT_COUNT
};

#endif
