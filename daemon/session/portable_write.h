/* A session's file, piece by piece.
 *
 * Thread: loop. A writer has the rows of one tree and writes its records in order: session,
 * members, nodes each with its tokens, bookmarks, end. Equal sessions give equal bytes, whatever
 * their ids. What another's persona hides is not in it: nodes that were sampled through its eyes
 * are written as imported ones, with their content alone.
 */
#ifndef PERSONAD_SESSION_PORTABLE_WRITE_H
#define PERSONAD_SESSION_PORTABLE_WRITE_H

#include "base/error.h"
#include "session/portable.h"

struct portable_writer;

/* node: only the path to it; 0: all nodes. portable: borrowed, its rows as they were read, its
 * members with their digests. MEMORY; NOT_FOUND: the rows have no such node; STORAGE. */
MUST_USE enum status portable_writer_create(const struct portable *portable, uint64_t node,
                                            struct error *error, struct portable_writer **out);
void portable_writer_destroy(struct portable_writer *writer); /* NULL is fine */

/* The session and its members. Once, before the rest. */
MUST_USE enum status portable_write_head(struct portable_writer *writer, struct buffer *out);

/* STORAGE where the rows are damaged. Appends records until there are so many bytes in `out`, or
 * the last one is written: *is_over. */
MUST_USE enum status portable_write_some(struct portable_writer *writer, size_t bytes,
                                         struct buffer *out, bool *is_over);

#endif
