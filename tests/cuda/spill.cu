/* A kernel that needs more registers than it is given: it must not compile with the flags of the
 * backend, for a spill is an error there. Checked by cmake/cuda_tests.cmake. */
__global__ __launch_bounds__(1024, 2) void spill(float *x, int rounds)
{
    float values[64];

#pragma unroll
    for (int i = 0; i < 64; i++) {
        values[i] = x[i * 1024 + threadIdx.x];
    }
    for (int round = 0; round < rounds; round++) {
#pragma unroll
        for (int i = 0; i < 64; i++) {
            values[i] = values[i] * values[(i + 37) % 64] + values[(i + 11) % 64];
        }
    }
#pragma unroll
    for (int i = 0; i < 64; i++) {
        x[i * 1024 + threadIdx.x] = values[i];
    }
}
