# Tests are found by their names: one executable a file, named <stage>_<file>.
# Each runs in the root of the source, so that a fixture opens as "tests/fixtures/...".

if(NOT cmocka_FOUND)
  message(FATAL_ERROR "PERSONAD_TESTS needs cmocka (Debian: libcmocka-dev)")
endif()

set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
set(test_seconds_max 300)

file(GLOB support_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/support/*.c)
list(FILTER support_sources EXCLUDE REGEX "_main\\.c$")
part(test_support SOURCES ${support_sources} LINKS base PkgConfig::cmocka PkgConfig::jansson)

function(unit_test name source)
  add_executable(${name} ${source})
  # Support comes first: its parts may need the stage under test, never the other way round.
  target_link_libraries(${name} PRIVATE test_support ${ARGN} PkgConfig::cmocka m)
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${test_seconds_max})
endfunction()

# What stands beside a stage's tests and is no test: rigs, and doubles of the stage below it. They
# are linked before the stage, so that a double is taken instead of the real thing.
foreach(stage wire session schedule bench model sample text journal base daemon)
  file(GLOB beside CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/unit/${stage}/*.c)
  list(FILTER beside EXCLUDE REGEX "/test_[^/]*$")
  part(${stage}_beside SOURCES ${beside} LINKS test_support)
  if(beside)
    target_include_directories(${stage}_beside PRIVATE ${PROJECT_SOURCE_DIR}/tests)
  endif()
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/unit/${stage}/test_*.c)
  foreach(source ${sources})
    get_filename_component(file ${source} NAME_WE)
    unit_test(${stage}_${file} ${source} ${stage}_beside ${stage})
  endforeach()
endforeach()

# Seeded simulations: no arguments is the set that every test run plays. That of trees has the whole
# daemon but its sockets, and faults that the linker puts into these functions.
set(planted_functions tree_node_create context_create seed_of_node kv_pages_release kv_tree_page
  engine_event_take journal_batch_add filling_damaged change_give cast_frame_find cast_prompt
  author_note_in_force inserting_add_ids byte_rule_fill sampler_create_distinct expansion_path
  portable_renumber)
list(TRANSFORM planted_functions PREPEND "LINKER:--wrap=" OUTPUT_VARIABLE planted_options)
file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/sim/tree_*.c)
unit_test(sim_test_schedule ${PROJECT_SOURCE_DIR}/tests/sim/test_schedule.c schedule)
foreach(file test_tree test_damage)
  unit_test(sim_${file} ${PROJECT_SOURCE_DIR}/tests/sim/${file}.c journal_beside session)
  target_sources(sim_${file} PRIVATE ${sources})
  target_include_directories(sim_${file} PRIVATE ${PROJECT_SOURCE_DIR}/tests)
  target_link_options(sim_${file} PRIVATE ${planted_options})
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
    set_tests_properties(numerics_${file} PROPERTIES SKIP_RETURN_CODE 77 COST 100)
  endforeach()
endif()

# Writes tiny random models: tiny_model FOLDER.
if(EXISTS ${PROJECT_SOURCE_DIR}/tests/support/tiny_model_main.c)
  add_executable(tiny_model tests/support/tiny_model_main.c)
  target_include_directories(tiny_model PRIVATE ${PROJECT_SOURCE_DIR}/tests)
  target_link_libraries(tiny_model PRIVATE test_support model kernels_cpu)
endif()

# The laboratory: one program an operation. Built with the tests so that it stays true.
file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/bench/bench_*.c)
foreach(source ${sources})
  get_filename_component(name ${source} NAME_WE)
  add_executable(${name} ${source})
  target_link_libraries(${name} PRIVATE test_support kernels_cpu m)
endforeach()

if(TARGET cli)
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/unit/client/test_*.c)
  foreach(source ${sources})
    get_filename_component(file ${source} NAME_WE)
    unit_test(client_${file} ${source} cli)
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
set(fuzz_stage_portable session)
set(fuzz_stage_gguf model)
set(fuzz_stage_hf model)
set(fuzz_stage_tokenizer text)
set(fuzz_stage_cue text)
set(fuzz_stage_sampler sample)
set(fuzz_stage_providers kernels_cpu)

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

# The seam of the kernels and the client's header are read by C and by C++ compilers, and strictly.
file(GLOB headers CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR}
  ${PROJECT_SOURCE_DIR}/kernels/*.h
  ${PROJECT_SOURCE_DIR}/kernels/steps/*.h
  ${PROJECT_SOURCE_DIR}/clients/c/include/*.h)
foreach(header ${headers})
  string(MAKE_C_IDENTIFIER ${header} name)
  foreach(language c11 c++17)
    string(REGEX REPLACE "[0-9]+" "" frontend ${language})
    add_test(NAME headers_${name}_${language}
      COMMAND ${CMAKE_C_COMPILER} -std=${language} -fsyntax-only -Wall -Wextra -Wpedantic -Werror
        -iquote . -iquote daemon -include ${header} -x ${frontend} /dev/null
      WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  endforeach()
endforeach()

include(cmake/emulator.cmake)
include(cmake/cuda_tests.cmake)
include(cmake/card.cmake)
