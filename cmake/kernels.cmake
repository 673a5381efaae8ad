# The CPU backend. Every instruction set is compiled in and chosen at run time.

file(GLOB kernel_sources CONFIGURE_DEPENDS
  ${PROJECT_SOURCE_DIR}/kernels/*.c
  ${PROJECT_SOURCE_DIR}/kernels/cpu/*.c)
file(GLOB kernel_avx2_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/cpu/avx2/*.c)
file(GLOB kernel_avx512_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/cpu/avx512/*.c)
file(GLOB kernel_avx512bf16_sources CONFIGURE_DEPENDS
  ${PROJECT_SOURCE_DIR}/kernels/cpu/avx512bf16/*.c)

file(GLOB kernel_neon_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/cpu/neon/*.c)

if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  set_source_files_properties(${kernel_avx2_sources} PROPERTIES
    COMPILE_OPTIONS "-mavx2;-mfma;-mf16c")
  set_source_files_properties(${kernel_avx512_sources} PROPERTIES COMPILE_OPTIONS
    "-mavx512f;-mavx512bw;-mavx512vl;-mavx512dq;-mavx512vnni;-mavx2;-mfma;-mf16c")
  set_source_files_properties(${kernel_avx512bf16_sources} PROPERTIES COMPILE_OPTIONS
    "-mavx512f;-mavx512bw;-mavx512vl;-mavx512dq;-mavx512vnni;-mavx512bf16;-mavx2;-mfma;-mf16c")
  list(APPEND kernel_sources
    ${kernel_avx2_sources} ${kernel_avx512_sources} ${kernel_avx512bf16_sources})
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
  # Every processor of 64 bits has NEON; these two need more, and say so in their names.
  set(kernel_neon_folder ${PROJECT_SOURCE_DIR}/kernels/cpu/neon)
  set_source_files_properties(${kernel_neon_folder}/matmul_dotprod.c PROPERTIES
    COMPILE_OPTIONS "-march=armv8.2-a+dotprod")
  set_source_files_properties(${kernel_neon_folder}/matmul_i8mm.c PROPERTIES
    COMPILE_OPTIONS "-march=armv8.2-a+dotprod+i8mm")
  list(APPEND kernel_sources ${kernel_neon_sources})
endif()

# m: fmaf and sqrtf, which are exact everywhere; nothing else of it is on the way of a value.
part(kernels_cpu SOURCES ${kernel_sources} LINKS base m ${CMAKE_DL_LIBS})
if(kernel_sources)
  # Also in a debug build: a step under a sanitizer must still end.
  target_compile_options(kernels_cpu PRIVATE
    $<$<CONFIG:Release>:-O3> $<$<CONFIG:Debug>:-O2>)
endif()
