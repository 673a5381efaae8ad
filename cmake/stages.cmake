# A stage is a folder, a library, and the list of what it may call.

# For quoted includes only: our limits.h must never stand in for the system's <limits.h>.
set(personad_include_roots
  "SHELL:-iquote ${PROJECT_SOURCE_DIR}" "SHELL:-iquote ${PROJECT_SOURCE_DIR}/daemon"
  "SHELL:-iquote ${PROJECT_SOURCE_DIR}/tests")

# A library of the given sources, or an empty one while there are none.
function(part name)
  cmake_parse_arguments(PARSE_ARGV 1 part "" "" "SOURCES;LINKS")
  if(part_SOURCES)
    add_library(${name} STATIC ${part_SOURCES})
    set(scope PUBLIC)
  else()
    add_library(${name} INTERFACE)
    set(scope INTERFACE)
  endif()
  target_compile_options(${name} ${scope} ${personad_include_roots})
  target_link_libraries(${name} ${scope} ${part_LINKS})
endfunction()

function(stage name)
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/daemon/${name}/*.c)
  list(APPEND sources ${generated_${name}})
  part(${name} SOURCES ${sources} LINKS ${ARGN})
endfunction()

# The journal's tables and migrations become part of the program.
set(journal_folder ${PROJECT_SOURCE_DIR}/daemon/journal)
set(generated_journal ${PROJECT_BINARY_DIR}/generated/schema.c)
file(GLOB journal_sql CONFIGURE_DEPENDS
  ${journal_folder}/schema.sql ${journal_folder}/migrations/*.sql)
add_custom_command(
  OUTPUT ${generated_journal}
  COMMAND ${CMAKE_COMMAND} -DFOLDER=${journal_folder} -DOUTPUT=${generated_journal}
    -P ${PROJECT_SOURCE_DIR}/cmake/schema.cmake
  DEPENDS ${journal_sql} ${PROJECT_SOURCE_DIR}/cmake/schema.cmake
  VERBATIM)
