/* The two rates that everything is measured against: a copy within the card's memory (bytes read
 * and written), and a bf16 product of 8192 x 8192 x 8192 by cuBLAS where the machine has it. Random
 * contents: a product of zeros runs faster than any other. Medians of ten.
 *
 * Prints "copy_gbs N" and "bf16_tflops N"; a line that begins with "#" says what is missing.
 * Without a card it ends with 77.
 */
#include <algorithm>
#include <cuda_runtime.h>
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>

enum { NO_CARD = 77, RUNS = 10, SIDE = 8192 };

static bool good(cudaError_t status, const char *what)
{
    if (status != cudaSuccess) {
        printf("# %s: %s\n", what, cudaGetErrorString(status));
    }
    return status == cudaSuccess;
}

/* Pairs of bf16 between 0.5 and 2, either sign. */
__global__ void fill(uint32_t *to, uint64_t count)
{
    for (uint64_t i = blockIdx.x * (uint64_t)blockDim.x + threadIdx.x; i < count;
         i += gridDim.x * (uint64_t)blockDim.x) {
        uint64_t z = (i + 1) * 0x9e3779b97f4a7c15u;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z ^= z >> 27;
        to[i] = ((uint32_t)z & 0x80ff80ffu) | 0x3f003f00u;
    }
}

template <typename Body> static double median_ms(Body body)
{
    cudaEvent_t begin, end;
    float values[RUNS];

    if (!good(cudaEventCreate(&begin), "event") || !good(cudaEventCreate(&end), "event")) {
        return 0;
    }
    for (int i = -3; i < RUNS; i++) {
        cudaEventRecord(begin);
        if (!body()) {
            return 0;
        }
        cudaEventRecord(end);
        if (!good(cudaEventSynchronize(end), "a run")) {
            return 0;
        }
        cudaEventElapsedTime(&values[i < 0 ? 0 : i], begin, end);
    }
    std::sort(values, values + RUNS);
    return values[RUNS / 2];
}

static void measure_copy(void)
{
    size_t free_bytes = 0, all_bytes = 0;
    char *memory = nullptr;

    if (!good(cudaMemGetInfo(&free_bytes, &all_bytes), "memory")) {
        return;
    }
    const uint64_t half = std::min<uint64_t>(free_bytes / 4, UINT64_C(4) << 30);
    if (!good(cudaMalloc(&memory, 2 * half), "memory for a copy")) {
        return;
    }
    fill<<<1024, 256>>>((uint32_t *)memory, 2 * half / 4);
    const double ms = median_ms([&] {
        return good(cudaMemcpyAsync(memory + half, memory, half, cudaMemcpyDeviceToDevice), "copy");
    });
    if (ms > 0) {
        printf("copy_gbs %.1f\n", 2.0 * (double)half / (ms * 1e-3) / 1e9);
    }
    cudaFree(memory);
}

/* As cublas_api.h declares them; the library is opened at run time, for not every machine has it.
 */
using create_function = int (*)(void **);
using product_function = int (*)(void *, int, int, int, int, int, const void *, const void *, int,
                                 int, const void *, int, int, const void *, void *, int, int, int,
                                 int);

static void measure_product(void)
{
    const char *const names[] = {"libcublas.so.13", "libcublas.so.12", "libcublas.so"};
    const uint64_t bytes = UINT64_C(2) * SIDE * SIDE;
    const int bf16 = 14, fp32_compute = 68, any_algorithm = -1;
    const float one = 1, zero = 0;
    void *library = nullptr, *handle = nullptr;
    char *memory = nullptr;

    for (int i = 0; i < 3 && library == nullptr; i++) {
        library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    }
    if (library == nullptr) {
        printf("# no cuBLAS on this machine: the rate of a bf16 product is not known\n");
        return;
    }
    create_function create = (create_function)dlsym(library, "cublasCreate_v2");
    product_function product = (product_function)dlsym(library, "cublasGemmEx");
    if (create == nullptr || product == nullptr || create(&handle) != 0) {
        printf("# cuBLAS is there and does not start\n");
        return;
    }
    if (!good(cudaMalloc(&memory, 3 * bytes), "memory for a product")) {
        return;
    }
    fill<<<1024, 256>>>((uint32_t *)memory, 3 * bytes / 4);
    const double ms = median_ms([&] {
        const int status =
            product(handle, 1, 0, SIDE, SIDE, SIDE, &one, memory, bf16, SIDE, memory + bytes, bf16,
                    SIDE, &zero, memory + 2 * bytes, bf16, SIDE, fp32_compute, any_algorithm);
        if (status != 0) {
            printf("# cuBLAS: status %d\n", status);
        }
        return status == 0;
    });
    if (ms > 0) {
        printf("bf16_tflops %.1f\n", 2.0 * SIDE * SIDE * (double)SIDE / (ms * 1e-3) / 1e12);
    }
}

int main()
{
    cudaDeviceProp facts;
    int count = 0;
    const cudaError_t status = cudaGetDeviceCount(&count);

    if (status != cudaSuccess || count == 0) {
        printf("# no card: %s\n",
               status != cudaSuccess ? cudaGetErrorString(status) : "the driver sees none");
        return NO_CARD;
    }
    if (!good(cudaGetDeviceProperties(&facts, 0), "properties")) {
        return 1;
    }
    printf("card %s\ncapability %d%d\nmultiprocessors %d\n", facts.name, facts.major, facts.minor,
           facts.multiProcessorCount);
    fflush(stdout); // seen also when what follows takes too long
    measure_copy();
    measure_product();
    return 0;
}
