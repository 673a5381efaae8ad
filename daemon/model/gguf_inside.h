/* Inside the GGUF reader: what gguf.c, gguf_walk.c and gguf_settle.c share.
 *
 * Thread: as gguf.h says. The header is loaded into one block, which grows and moves while it is
 * walked: until gguf_settle() entries and tensors know only offsets into it, then they get views.
 */
#ifndef PERSONAD_MODEL_GGUF_INSIDE_H
#define PERSONAD_MODEL_GGUF_INSIDE_H

#include "base/check.h"
#include "base/memory.h"
#include "kernels/dtype.h"
#include "limits.h"
#include "model/gguf.h"
#include "model/source.h"

/* As the format numbers the types of values. */
enum gguf_type {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_TEXT,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_TYPE_COUNT,
};

struct gguf_entry {
    struct bytes key;
    size_t key_at;
    uint32_t type;
    uint32_t element_type; /* of an array */
    uint64_t count;        /* of an array; bytes of a text */
    size_t value_at;       /* of the first element or byte */
    void *values;          /* owned: bytes[], int32_t[] or float[] of an array that converts */
};

struct gguf_record {
    struct model_tensor tensor;
    size_t name_at;
};

struct gguf {
    struct source source;
    uint8_t *block;       /* owned; the loaded header of a file */
    const uint8_t *bytes; /* the block, or the borrowed memory */
    size_t loaded_bytes;
    size_t at;                  /* of the walk */
    struct gguf_entry *entries; /* owned, sorted by key */
    uint64_t entry_count;
    struct gguf_record *tensors; /* owned, in file order */
    uint64_t tensor_count;
    const struct model_tensor **tensors_by_name; /* owned */
    uint8_t hash[32];
    bool hashed;
};

/* Bytes of a value or element of this type; 0 for texts and arrays. */
uint32_t gguf_type_bytes(uint32_t type);

/* Loads and checks the header from its first byte to the end of the tensor list. */
MUST_USE enum status gguf_walk(struct gguf *gguf, struct error *error);

/* Makes views, aligned arrays and sorted lists; finds doubles, overlaps, tensors outside the file.
 */
MUST_USE enum status gguf_settle(struct gguf *gguf, struct error *error);

/* An integer of any width as 64 bits of two's complement; *negative tells how to read them. */
uint64_t gguf_load_integer(uint32_t type, const uint8_t *from, bool *negative);
bool gguf_type_is_integer(uint32_t type);

/* As memcmp, the shorter first. */
int gguf_compare_names(struct bytes a, struct bytes b);

#endif
