/* The CPU backend with every matrix re-encoded as floats when it is loaded: a model's F16 or F32
 * twin without a second file.
 *
 * Thread: any, constant. Values are those that dequantisation gives, rounded to half for F16.
 */
#ifndef PERSONAD_TESTS_SUPPORT_WIDE_OPS_H
#define PERSONAD_TESTS_SUPPORT_WIDE_OPS_H

#include "kernels/backend.h"

struct backend_ops wide_ops_f16(void);
struct backend_ops wide_ops_f32(void);

#endif
