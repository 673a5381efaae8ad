#include "session/resume.h"

#include "base/log.h"
#include "session/generate.h"

bool resume_node(struct store *store, struct node *node)
{
    struct error error = {0};

    if (node->sampled == NULL || node->is_finish_visible) {
        return false;
    }
    if (!node->sampled->is_foreign) {
        if (generate_resume(store, node, &error) == STATUS_OK) {
            return true;
        }
        log_line(LOG_WARN, "session", "node %llu cannot go on: %s", (unsigned long long)node->id,
                 error.text);
    }
    generate_interrupt(store, node);
    return false;
}
