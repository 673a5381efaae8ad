/* A place in a session's tree, as requests and replies name it. Thread: any; a value. */
#ifndef PERSONAD_SESSION_POSITION_H
#define PERSONAD_SESSION_POSITION_H

#include <stdint.h>

enum { OFFSET_END = 0xffffffffu }; /* the end of a node's content, as far as it is released */

struct position {
    uint64_t node;   /* 0: the root */
    uint32_t offset; /* tokens of content, or OFFSET_END */
};

#endif
