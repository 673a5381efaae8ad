/* What the shared library shows to the daemon: kernels/backend_library.h. */
#include "kernels/backend_library.h"

#include <stdio.h>

#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/device.h"

#ifndef PERSONAD_CUDA_ARCHITECTURES
#define PERSONAD_CUDA_ARCHITECTURES "emulated" /* no machine code at all */
#endif

static enum status describe(uint32_t ordinal, struct error *error, struct backend_device *out)
{
    struct device_facts facts;
    struct backend_device device = {};

    TRY(device_describe(ordinal, error, &facts));
    snprintf(device.name, sizeof(device.name), "%s", facts.name);
    device.capability = facts.architecture;
    device.multiprocessor_count = facts.multiprocessor_count;
    device.memory_bytes = facts.memory_bytes;
    device.memory_free_bytes = facts.memory_free_bytes;
    *out = device;
    return STATUS_OK;
}

static const struct backend_face face = {
    BACKEND_LIBRARY_ABI, BACKEND_SEAM, PERSONAD_CUDA_ARCHITECTURES,
    &backend_cuda_ops,   device_count, describe,
    &cuda_trial_ops,
};

extern "C" __attribute__((visibility("default"))) const struct backend_face *
personad_backend_library(void);

const struct backend_face *personad_backend_library(void)
{
    return &face;
}
