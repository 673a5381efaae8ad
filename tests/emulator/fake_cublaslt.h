/* The numbers of fake_cublaslt.c that a test needs. */
#ifndef PERSONAD_TESTS_EMULATOR_FAKE_CUBLASLT_H
#define PERSONAD_TESTS_EMULATOR_FAKE_CUBLASLT_H

enum fake_kind { FAKE_CHAIN, FAKE_SPLIT, FAKE_MOODY, FAKE_SMALL, FAKE_KIND_COUNT };

enum {
    FAKE_MAGIC = 0xfa4e,
    FAKE_VERSION = 130101,
    FAKE_WORKSPACE = 4096,
    FAKE_SMALL_ROWS = 16,
};

#endif
