# What can be tested of the CUDA library without a card, wherever nvcc is found.

# Libraries that are no backend of this build, each wrong in one way.
set(planted_folder ${PROJECT_BINARY_DIR}/planted)
function(planted_library name)
  add_library(planted_${name} MODULE ${PROJECT_SOURCE_DIR}/tests/planted/backend_library.c)
  target_compile_options(planted_${name} PRIVATE ${personad_include_roots})
  target_compile_definitions(planted_${name} PRIVATE ${ARGN})
  set_target_properties(planted_${name} PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${planted_folder})
  add_dependencies(kernels_test_backend_library planted_${name})
endfunction()
planted_library(good PLANTED_ABI=0 PLANTED_SEAM=0)
planted_library(abi PLANTED_ABI=1 PLANTED_SEAM=0)
planted_library(seam PLANTED_ABI=0 PLANTED_SEAM=1)
planted_library(stranger)
target_compile_definitions(kernels_test_backend_library PRIVATE
  PLANTED_FOLDER="${planted_folder}")

if(NOT TARGET personad_cuda)
  add_test(NAME cuda_library COMMAND ${CMAKE_COMMAND} -E echo
    "skipped: the CUDA backend is not in this build (no nvcc, or sanitizers)")
  set_tests_properties(cuda_library PROPERTIES SKIP_REGULAR_EXPRESSION "skipped:")
  return()
endif()

add_executable(cuda_library ${PROJECT_SOURCE_DIR}/tests/cuda/test_library.c)
target_link_libraries(cuda_library PRIVATE test_support kernels_cpu PkgConfig::cmocka)
target_compile_definitions(cuda_library PRIVATE CUDA_ARCHITECTURES="sm_${architectures}")
add_dependencies(cuda_library personad_cuda)
add_test(NAME cuda_library COMMAND cuda_library $<TARGET_FILE:personad_cuda>
  WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})

# What is said of cuBLASLt, against its own header. Debian and PyPI have it apart from the compiler.
find_path(cublaslt_include cublasLt.h NO_CACHE HINTS ${cuda_root} PATH_SUFFIXES include
  targets/${CMAKE_SYSTEM_PROCESSOR}-linux/include)
if(cublaslt_include)
  add_test(NAME cuda_cublaslt_api COMMAND ${CMAKE_C_COMPILER} -std=c11 -D_GNU_SOURCE -fsyntax-only
    -Wall -Wextra -Werror -isystem ${cublaslt_include} -iquote . -iquote daemon
    tests/cuda/cublaslt_api.c
    WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
else()
  add_test(NAME cuda_cublaslt_api COMMAND ${CMAKE_COMMAND} -E echo
    "skipped: there is no cublasLt.h beside ${PERSONAD_NVCC}")
  set_tests_properties(cuda_cublaslt_api PROPERTIES SKIP_REGULAR_EXPRESSION "skipped:")
endif()

# A spill is an error: the build above went through, and a kernel that spills would not.
list(GET PERSONAD_CUDA_ARCHITECTURES 0 architecture)
foreach(name clean spill)
  add_test(NAME cuda_flags_${name} COMMAND ${PERSONAD_NVCC} ${nvcc_flags}
    -gencode arch=compute_${architecture},code=sm_${architecture}
    -c ${PROJECT_SOURCE_DIR}/tests/cuda/${name}.cu -o ${PROJECT_BINARY_DIR}/cuda/${name}.o
    WORKING_DIRECTORY ${PROJECT_BINARY_DIR})
endforeach()
set_tests_properties(cuda_flags_spill PROPERTIES PASS_REGULAR_EXPRESSION "[Ss]pill")
