/* CHECK(condition): stays on in release. For our own mistakes only (arguments, invariants,
 * impossible states), never for peers, files, devices or memory. Thread: any.
 */
#ifndef PERSONAD_BASE_CHECK_H
#define PERSONAD_BASE_CHECK_H

#ifdef __cplusplus
extern "C" {
#endif

/* Prints the place and the condition to standard error and aborts. */
void check_failed(const char *file, int line, const char *condition)
    __attribute__((noreturn, cold));

#ifdef __cplusplus
}
#endif

#define CHECK(condition)                                  \
    do {                                                  \
        if (__builtin_expect(!(condition), 0)) {          \
            check_failed(__FILE__, __LINE__, #condition); \
        }                                                 \
    } while (0)

#endif
