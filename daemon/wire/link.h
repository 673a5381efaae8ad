/* A doubly linked list whose links lie in the members: the cursors of a node, of a request, of a
 * connection.
 *
 * Thread: one at a time. Nothing is owned. A list is a link that stands for both ends; a member
 * that is in no list points at itself, so that taking it out twice is harmless.
 */
#ifndef PERSONAD_WIRE_LINK_H
#define PERSONAD_WIRE_LINK_H

#include <stdbool.h>
#include <stddef.h>

struct link {
    struct link *next;
    struct link *previous;
};

/* The struct around a link. */
#define LINK_OWNER(link, type, member) ((type *)(void *)((char *)(link)-offsetof(type, member)))

static inline void link_init(struct link *link)
{
    link->next = link;
    link->previous = link;
}

static inline bool link_is_alone(const struct link *link)
{
    return link->next == link;
}

static inline void link_remove(struct link *link)
{
    link->previous->next = link->next;
    link->next->previous = link->previous;
    link_init(link);
}

/* `link` is in no list. */
static inline void link_push_back(struct link *list, struct link *link)
{
    link->next = list;
    link->previous = list->previous;
    list->previous->next = link;
    list->previous = link;
}

#endif
