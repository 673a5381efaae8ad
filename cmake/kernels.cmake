# The CPU backend. Every instruction set is compiled in and chosen at run time.

file(GLOB kernel_sources CONFIGURE_DEPENDS
  ${PROJECT_SOURCE_DIR}/kernels/*.c
  ${PROJECT_SOURCE_DIR}/kernels/cpu/*.c)
file(GLOB kernel_avx2_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/cpu/avx2/*.c)
file(GLOB kernel_avx512_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/cpu/avx512/*.c)

if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  set_source_files_properties(${kernel_avx2_sources} PROPERTIES
    COMPILE_OPTIONS "-mavx2;-mfma;-mf16c")
  set_source_files_properties(${kernel_avx512_sources} PROPERTIES COMPILE_OPTIONS
    "-mavx512f;-mavx512bw;-mavx512vl;-mavx512dq;-mavx512vnni;-mavx2;-mfma;-mf16c")
  list(APPEND kernel_sources ${kernel_avx2_sources} ${kernel_avx512_sources})
endif()

# m: fmaf and sqrtf, which are exact everywhere; nothing else of it is on the way of a value.
part(kernels_cpu SOURCES ${kernel_sources} LINKS base m ${CMAKE_DL_LIBS})
if(kernel_sources)
  # Also in a debug build: a step under a sanitizer must still end.
  target_compile_options(kernels_cpu PRIVATE
    $<$<CONFIG:Release>:-O3> $<$<CONFIG:Debug>:-O2>)
endif()
