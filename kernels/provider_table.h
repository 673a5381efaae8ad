/* Which implementation multiplies by which matrices of a card: what `--gpu-providers FILE` says.
 *
 * A table is only true for the card on which it was measured: `./dev gpu` writes one (docs/gpu). It
 * is part of the arithmetic, so its digest is part of the numerics id. What no rule names is the
 * work of mma, which every card has.
 *
 * Format: text, one line a rule, words between spaces; lines that are empty or begin with # say
 * nothing. The first two lines that say something are
 *
 *   personad gpu providers 1
 *   card sm_90
 *
 * and each further one is a rule:
 *
 *   TYPE OUTPUTS COLUMNS wgmma ROWS
 *   TYPE OUTPUTS COLUMNS unpacked ROWS
 *   TYPE OUTPUTS COLUMNS cublaslt ROWS VERSION ALGORITHM
 *
 *   TYPE     how the card holds the matrices: BF16, F16, Q4_0, Q4_1, Q8_0, Q4_K, Q5_K, Q6_K, FP8
 *   OUTPUTS  of all matrices that are multiplied at once: q, k and v; gate and up; or one alone
 *   COLUMNS  of each of them
 *   ROWS     the smallest launch that it serves, in rows; below, mma does: 1 to 65536. More than 1
 *            is right only where both have the same bits
 *   VERSION  of cuBLASLt, as it says itself: 130101. Another version is refused
 *   ALGORITHM  of that library, 128 hexadecimal digits: one for all numbers of rows
 *
 * cublaslt multiplies BF16 and F16, of which the card then holds a second copy. unpacked is wgmma
 * too, after every other type was unpacked to bf16, launch by launch, in one place that holds the
 * largest such matrix.
 *
 * Matrices of several types in one launch are always the work of mma.
 *
 * Thread: any; pure but provider_table_read. Reads as C11 and as C++17.
 */
#ifndef PERSONAD_KERNELS_PROVIDER_TABLE_H
#define PERSONAD_KERNELS_PROVIDER_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    PROVIDER_RULE_COUNT_MAX = 64,
    PROVIDER_ROWS_MAX = 65536,
    PROVIDER_TEXT_BYTES_MAX = 64 * 1024, /* of a file */
    PROVIDER_LINE_BYTES_MAX = 256,       /* of a rule that is written */
    PROVIDER_ALGORITHM_WORDS = 8,
    PROVIDER_WGMMA_ARCHITECTURE = 90,
};

/* In the order of enum cuda_format. */
#define PROVIDER_TYPE_MAP(X) \
    X(BF16)                  \
    X(Q4_0)                  \
    X(Q4_1)                  \
    X(Q8_0)                  \
    X(Q4_K)                  \
    X(Q5_K)                  \
    X(Q6_K)                  \
    X(FP8)                   \
    X(F16)

enum provider {
    PROVIDER_MMA,      /* kernels/cuda/matmul.cu */
    PROVIDER_WGMMA,    /* kernels/cuda/wgmma.cu: sm_90 */
    PROVIDER_CUBLASLT, /* kernels/cuda/matmul_library.cu: where the machine has the library */
    PROVIDER_UNPACKED, /* kernels/cuda/matmul_unpack.cu: sm_90 */
    PROVIDER_COUNT,
};

/* cuBLASLt's own words for how it computes. */
struct provider_algorithm {
    uint64_t words[PROVIDER_ALGORITHM_WORDS];
};

struct provider_rule {
    uint32_t type; /* a place in PROVIDER_TYPE_MAP */
    uint32_t outputs;
    uint32_t cols;
    uint32_t rows_min;
    enum provider provider;
    uint32_t version;                    /* of cuBLASLt; 0 for others */
    struct provider_algorithm algorithm; /* of cuBLASLt */
};

struct provider_table {
    uint32_t architecture; /* 90: sm_90 */
    uint32_t rule_count;
    struct provider_rule rules[PROVIDER_RULE_COUNT_MAX]; /* by type, outputs, columns */
    uint64_t digest; /* of the card and the rules, not of comments or their order */
};

/* BAD_INPUT: "line 3: why". LIMIT: more than PROVIDER_RULE_COUNT_MAX rules. */
MUST_USE enum status provider_table_parse(const char *text, size_t size_bytes, struct error *error,
                                          struct provider_table *out);

/* Reads and parses a file; sentences begin with its path. NOT_FOUND, IO, LIMIT: it is too long. */
MUST_USE enum status provider_table_read(const char *path, struct error *error,
                                         struct provider_table *out);

/* The rule for a launch of row_count rows, or NULL: mma. A NULL table has no rules. */
const struct provider_rule *provider_table_find(const struct provider_table *table, uint32_t type,
                                                uint32_t outputs, uint32_t cols,
                                                uint32_t row_count);

/* Writes the rule as a line of a file, with its end. Its size without the 0. */
size_t provider_rule_format(const struct provider_rule *rule, char *line, size_t size_bytes);

const char *provider_name(enum provider provider);
const char *provider_type_name(uint32_t type); /* NULL: none of that number */

/* The place of a name in PROVIDER_TYPE_MAP; NOT_FOUND. */
MUST_USE enum status provider_type_parse(const char *name, uint32_t *out);

#ifdef __cplusplus
}
#endif

#endif
