/* The check of a model's tensors against its configuration, the same for every format.
 *
 * Thread: any, one at a time.
 */
#ifndef PERSONAD_MODEL_CONFIG_H
#define PERSONAD_MODEL_CONFIG_H

#include "base/error.h"
#include "base/status.h"
#include "model/architecture.h"
#include "model/model.h"
#include "model/model_file.h"

enum { CONFIG_SIZE_MAX = 1 << 24 }; /* of a width, a number of heads */

/* Every tensor that the family needs is there with its shape and a type that can be read, and none
 * that it does not know. Fills in the numbers that follow from the tensors. BAD_INPUT, UNSUPPORTED,
 * LIMIT; the error names the tensor. */
MUST_USE enum status config_check_tensors(const struct model_file *file,
                                          const struct architecture *architecture,
                                          struct error *error, struct model_config *config);

#endif
