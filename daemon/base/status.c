#include "base/status.h"

const char *status_name(enum status status)
{
    switch (status) {
#define X(name, number, text) \
    case STATUS_##name:       \
        return #name;
        STATUS_MAP(X)
#undef X
    }
    return "unknown";
}

const char *status_text(enum status status)
{
    switch (status) {
#define X(name, number, text) \
    case STATUS_##name:       \
        return text;
        STATUS_MAP(X)
#undef X
    }
    return "unknown status";
}
