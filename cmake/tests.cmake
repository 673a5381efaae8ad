# Tests are found by their names: one executable a file, named <stage>_<file>.
# Each runs in the root of the source, so that a fixture opens as "tests/fixtures/...".

if(NOT cmocka_FOUND)
  message(FATAL_ERROR "PERSONAD_TESTS needs cmocka (Debian: libcmocka-dev)")
endif()

set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
set(test_seconds_max 300)

file(GLOB support_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/support/*.c)
list(FILTER support_sources EXCLUDE REGEX "_main\\.c$")
part(test_support SOURCES ${support_sources} LINKS base PkgConfig::cmocka)

function(unit_test name source)
  add_executable(${name} ${source})
  # Support comes first: its parts may need the stage under test, never the other way round.
  target_link_libraries(${name} PRIVATE test_support ${ARGN} PkgConfig::cmocka m)
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${test_seconds_max})
endfunction()

foreach(stage wire session schedule model sample text journal base daemon)
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/unit/${stage}/test_*.c)
  foreach(source ${sources})
    get_filename_component(file ${source} NAME_WE)
    unit_test(${stage}_${file} ${source} ${stage})
  endforeach()
endforeach()

file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/kernels/test_*.c)
foreach(source ${sources})
  get_filename_component(file ${source} NAME_WE)
  unit_test(kernels_${file} ${source} kernels_cpu model)
endforeach()

# Whole models against an independent implementation. Sanitizers would take minutes to find nothing
# that the tiny models do not show them.
if(NOT PERSONAD_SANITIZE)
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/numerics/test_*.c)
  foreach(source ${sources})
    get_filename_component(file ${source} NAME_WE)
    unit_test(numerics_${file} ${source} model)
    set_tests_properties(numerics_${file} PROPERTIES SKIP_RETURN_CODE 77)
  endforeach()
endif()

# Writes tiny random models: tiny_model FOLDER.
if(EXISTS ${PROJECT_SOURCE_DIR}/tests/support/tiny_model_main.c)
  add_executable(tiny_model tests/support/tiny_model_main.c)
  target_include_directories(tiny_model PRIVATE ${PROJECT_SOURCE_DIR}/tests)
  target_link_libraries(tiny_model PRIVATE test_support kernels_cpu)
endif()

if(TARGET personad_client)
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/unit/client/test_*.c)
  foreach(source ${sources})
    get_filename_component(file ${source} NAME_WE)
    unit_test(client_${file} ${source} personad_client)
  endforeach()
endif()

# Prints one line a kernel with a hash of its bits; builds of two compilers are compared.
if(EXISTS ${PROJECT_SOURCE_DIR}/tests/kernels/bits_dump.c)
  add_executable(kernel_bits tests/kernels/bits_dump.c)
  target_link_libraries(kernel_bits PRIVATE test_support kernels_cpu)
endif()

# A fuzz target is a libFuzzer program in the fuzz build and, in every other build, a test that
# runs its corpus through the same function.
set(fuzz_stage_frame wire)
set(fuzz_stage_request wire)
set(fuzz_stage_card session)
set(fuzz_stage_gguf model)
set(fuzz_stage_tokenizer text)
set(fuzz_stage_cue text)
set(fuzz_stage_sampler sample)

file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/fuzz/fuzz_*.c)
foreach(source ${sources})
  get_filename_component(name ${source} NAME_WE)
  string(REGEX REPLACE "^fuzz_" "" parser ${name})
  if(NOT DEFINED fuzz_stage_${parser})
    set(fuzz_stage_${parser} wire)
  endif()
  add_executable(${name} ${source})
  target_link_libraries(${name} PRIVATE test_support ${fuzz_stage_${parser}})
  if(PERSONAD_FUZZ)
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  else()
    target_sources(${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests/fuzz/replay_main.c)
    add_test(NAME ${name}_corpus
      COMMAND ${name} tests/fuzz/corpus/${parser}
      WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
    set_tests_properties(${name}_corpus PROPERTIES TIMEOUT ${test_seconds_max})
  endif()
endforeach()
