# PERSONAD_KERNELS_ONLY: the CPU's kernels and their tests, without the daemon and its libraries.
# For cross builds, where those libraries are not at hand.

set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)
include(cmake/stages.cmake)

file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/daemon/base/*.c)
list(FILTER sources EXCLUDE REGEX "/sha256\\.c$")
part(base SOURCES ${sources} LINKS Threads::Threads)
include(cmake/kernels.cmake)

enable_testing()
set(support_folder ${PROJECT_SOURCE_DIR}/tests/support)
part(test_support LINKS kernels_cpu m SOURCES
  ${support_folder}/attention_setup.c ${support_folder}/layer.c ${support_folder}/random_weight.c
  ${support_folder}/sample_batch.c ${support_folder}/sample_setup.c)
target_include_directories(test_support PUBLIC ${PROJECT_SOURCE_DIR}/tests/cross)

# All but what opens the CUDA backend's library.
file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/kernels/test_*.c)
list(FILTER sources EXCLUDE REGEX "/test_(backend_library|bucket)\\.c$")
foreach(source ${sources})
  get_filename_component(file ${source} NAME_WE)
  add_executable(kernels_${file} ${source})
  target_link_libraries(kernels_${file} PRIVATE test_support)
  # gcc 12's vectoriser ends in an internal error on a loop of test_blocks.c for ARM.
  target_compile_options(kernels_${file} PRIVATE -fno-tree-vectorize)
  add_test(NAME kernels_${file} COMMAND kernels_${file} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
endforeach()

add_executable(kernel_bits tests/kernels/bits_dump.c)
target_link_libraries(kernel_bits PRIVATE test_support)
