/* The one error idiom: every function that can fail returns a status.
 *
 * Thread: any. Results travel through out parameters, placed last and untouched on failure.
 * The numbers are on the wire (ErrorCode in proto/personad.proto): append, never renumber.
 */
#ifndef PERSONAD_BASE_STATUS_H
#define PERSONAD_BASE_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

#define STATUS_MAP(X)                                               \
    X(OK, 0, "ok")                                                  \
    X(AGAIN, 1, "nothing ready yet, call again")                    \
    X(MEMORY, 2, "out of memory")                                   \
    X(LIMIT, 3, "a limit was reached")                              \
    X(BAD_INPUT, 4, "the input is malformed")                       \
    X(NOT_FOUND, 5, "no such thing")                                \
    X(DEVICE, 6, "the compute backend failed")                      \
    X(STORAGE, 7, "the data could not be stored; reads still work") \
    X(DENIED, 8, "this belongs to another user")                    \
    X(CONFLICT, 9, "the state of the thing does not allow this")    \
    X(UNSUPPORTED, 10, "this is not supported")                     \
    X(IO, 11, "the operating system refused")                       \
    X(CANCELLED, 12, "cancelled by a request")                      \
    X(STOPPING, 13, "the daemon is stopping")                       \
    X(NUMERIC, 14, "the model produced a value that is not a number")

enum status {
#define X(name, number, text) STATUS_##name = (number),
    STATUS_MAP(X)
#undef X
};

#define MUST_USE __attribute__((warn_unused_result))

/* Returns from the caller when the call fails. For callers that own nothing. */
#define TRY(call)                              \
    do {                                       \
        const enum status try_status = (call); \
        if (try_status != STATUS_OK) {         \
            return try_status;                 \
        }                                      \
    } while (0)

/* "BAD_INPUT"; "unknown" for a number outside the map. Static storage. */
const char *status_name(enum status status);

/* The sentence of the map. Static storage. */
const char *status_text(enum status status);

#ifdef __cplusplus
}
#endif

#endif
