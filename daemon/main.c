/* The daemon, in the order in which a request meets it.
 *
 *   wire/      bytes -> frame -> request                     ...and reply, stream -> frame -> bytes
 *   session/   request -> node in a tree -> context, seed, cues
 *   journal/   intent before a node's first token is visible, finish before its end is
 *   schedule/  branch -> KV pages shared along the tree -> rows of a step        (engine thread)
 *   model/     plan -> logits, through kernels/backend.h
 *   sample/    settings -> steps, which the backend runs: logits -> token
 *   text/      token -> bytes, and where to stop
 *   base/      what all of them stand on
 *
 * settings.c reads what a person set, compute.c opens the CPU or a card and loads the model,
 * daemon.c builds the parts and stops them in reverse.
 */
#include <stdio.h>

#include "compute.h"
#include "daemon.h"
#include "settings.h"

int main(int argument_count, char **arguments)
{
    struct error error = {STATUS_OK, "", NULL, 0};
    struct settings settings;
    enum status status = settings_parse(argument_count, arguments, &error, &settings);
    if (status == STATUS_OK) {
        status =
            settings.list_devices ? compute_list(&settings, &error) : daemon_run(&settings, &error);
        settings_finish(&settings);
    }
    if (status != STATUS_OK) {
        (void)fprintf(stderr, "personad: %s\n",
                      error.text[0] != '\0' ? error.text : status_text(status));
        return 1;
    }
    return 0;
}
