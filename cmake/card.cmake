# Programs for a machine with a card (scripts/gpu.sh): gpu_check, and tests of the emulator that
# speak to the backend through its seam, linked with the library that the daemon loads instead of
# the emulated kernels. Without a card each ends with 77.

add_executable(gpu_check ${PROJECT_SOURCE_DIR}/tests/card/gpu_check.c
  ${PROJECT_SOURCE_DIR}/tests/card/gpu_providers.c)
target_include_directories(gpu_check PRIVATE ${PROJECT_SOURCE_DIR}/tests)
target_link_libraries(gpu_check PRIVATE test_support bench model kernels_cpu m)

unit_test(card_gpu_providers ${PROJECT_SOURCE_DIR}/tests/card/test_gpu_providers.c bench model
  kernels_cpu)
target_sources(card_gpu_providers PRIVATE ${PROJECT_SOURCE_DIR}/tests/card/gpu_providers.c)
target_include_directories(card_gpu_providers PRIVATE ${PROJECT_SOURCE_DIR}/tests)

if(NOT host_cxx OR NOT TARGET cuda_emulated)
  return()
endif()

set(card_sources ${emulator_sources})
list(FILTER card_sources EXCLUDE REGEX "_rig\\.cpp$")
part(card_support SOURCES ${card_sources} LINKS test_support kernels_cpu base)
target_compile_options(card_support PUBLIC -Wno-unknown-pragmas)
foreach(name forward sample backend_cuda)
  add_executable(card_${name} ${PROJECT_SOURCE_DIR}/tests/emulator/test_${name}.cpp
    ${PROJECT_SOURCE_DIR}/tests/card/card_shim.cpp)
  target_link_libraries(card_${name} PRIVATE card_support test_support model kernels_cpu base
    PkgConfig::cmocka m)
  if(NOT PERSONAD_SANITIZE) # they travel to machines whose C++ library is another
    target_link_options(card_${name} PRIVATE -static-libstdc++ -static-libgcc)
  endif()
endforeach()

# The emulated library stands in for the card's: the programs themselves are tried in every run.
if(TARGET personad_cuda_emulated AND NOT PERSONAD_SANITIZE)
  add_dependencies(card_sample personad_cuda_emulated)
  add_test(NAME card_sample COMMAND card_sample WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(card_sample PROPERTIES
    ENVIRONMENT "PERSONAD_CUDA_LIBRARY=$<TARGET_FILE:personad_cuda_emulated>")
endif()

# The card's own rates.
if(NOT TARGET personad_cuda)
  return()
endif()
set(rates ${PROJECT_BINARY_DIR}/tests/gpu_rates)
add_custom_command(
  OUTPUT ${rates}
  COMMAND ${PERSONAD_NVCC} -std=c++17 -O3 -Werror all-warnings -ccbin ${cuda_host_cxx}
    ${nvcc_targets} ${PROJECT_SOURCE_DIR}/tests/card/gpu_rates.cu -o ${rates}
    ${cudart} -ldl -lrt -lpthread --cudart none -Xcompiler=-static-libstdc++,-static-libgcc
  DEPENDS ${PROJECT_SOURCE_DIR}/tests/card/gpu_rates.cu
  COMMENT "nvcc gpu_rates.cu"
  VERBATIM)
add_custom_target(gpu_rates ALL DEPENDS ${rates})

# The emulator's tests of single kernels, compiled for a card and linked with the library's objects:
# one program, since each would carry all device code. A file's main() goes by the suite's name.
set(card_suites prim device_graph kv_copy kv_types attn_in attention attention_chain blocks sample
  matmul matmul_fold wgmma)
set(card_files card product_rig attention_rig)
list(TRANSFORM card_suites PREPEND "test_" OUTPUT_VARIABLE card_tests)
list(APPEND card_files ${card_tests})
set(card_objects ${cuda_objects})
list(FILTER card_objects EXCLUDE REGEX "/library\\.cu\\.o$")
foreach(file ${card_files})
  set(object ${cuda_object_folder}/card_${file}.o)
  set(source ${PROJECT_SOURCE_DIR}/tests/emulator/${file}.cpp)
  string(REGEX REPLACE "^test_" "" suite ${file})
  set(depends DEPENDS ${source})
  if(CMAKE_GENERATOR MATCHES "Ninja|Makefiles")
    list(APPEND depends DEPFILE ${object}.d)
  endif()
  add_custom_command(
    OUTPUT ${object}
    COMMAND ${CMAKE_C_COMPILER_LAUNCHER} ${PERSONAD_NVCC} ${nvcc_flags} ${nvcc_targets}
      -Xcompiler=-iquote,${to_source}/tests -Dmain=card_suite_${suite} -x cu
      -MD -MF cuda/card_${file}.o.d -c ${to_source}/tests/emulator/${file}.cpp
      -o cuda/card_${file}.o
    WORKING_DIRECTORY ${PROJECT_BINARY_DIR}
    ${depends}
    COMMENT "nvcc ${file}.cpp"
    VERBATIM)
  list(APPEND card_objects ${object})
endforeach()
list(JOIN card_suites ") X(" card_suite_words)
add_executable(card_kernels ${PROJECT_SOURCE_DIR}/tests/card/card_kernels.cpp
  ${card_objects})
set_source_files_properties(${card_objects} PROPERTIES EXTERNAL_OBJECT TRUE GENERATED TRUE)
target_compile_definitions(card_kernels PRIVATE "CARD_SUITES=X(${card_suite_words})")
# The emulator stands behind the card's objects: its settings and its model of a tensor core serve
# the tests, its double of the card is never taken.
target_link_libraries(card_kernels PRIVATE card_support test_support kernels_cpu base ${cudart}
  PkgConfig::cmocka Threads::Threads ${CMAKE_DL_LIBS} rt m)
target_link_options(card_kernels PRIVATE -static-libstdc++ -static-libgcc)
add_test(NAME card_kernels COMMAND card_kernels WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
set_tests_properties(card_kernels PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 300)
