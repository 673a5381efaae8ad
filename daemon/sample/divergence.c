#include "sample/divergence.h"

#include <math.h>

#include "kernels/steps/masses.h"

static float largest(const float *z, uint32_t count)
{
    float max = -INFINITY;

    for (uint32_t i = 0; i < count; i++) {
        max = z[i] > max ? z[i] : max;
    }
    return max + 0.0f;
}

static uint64_t sum_masses(const float *z, uint32_t count, float max)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < count; i++) {
        sum += steps_mass(z[i], max);
    }
    return sum;
}

double divergence_of(const float *p, const float *q, uint32_t vocabulary_count)
{
    const float p_max = largest(p, vocabulary_count), q_max = largest(q, vocabulary_count);
    double divergence = 0;

    if (p_max == -INFINITY || q_max == -INFINITY) {
        return (double)NAN;
    }
    const uint64_t p_sum = sum_masses(p, vocabulary_count, p_max);
    const double p_log = steps_mass_log(p_sum);
    const double q_log = steps_mass_log(sum_masses(q, vocabulary_count, q_max));
    for (uint32_t i = 0; i < vocabulary_count; i++) {
        const uint64_t mass = steps_mass(p[i], p_max);

        if (mass > 0) {
            const double p_logprob = (double)p[i] - (double)p_max - p_log;
            const double q_logprob = (double)q[i] - (double)q_max - q_log;

            divergence += (double)mass / (double)p_sum * (p_logprob - q_logprob);
        }
    }
    return divergence;
}
