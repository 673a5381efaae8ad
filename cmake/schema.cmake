# Writes OUTPUT, a C file with schema.sql and the migrations of FOLDER as strings (schema.h).
# Called as a script: cmake -DFOLDER=... -DOUTPUT=... -P schema.cmake

function(text_of file out)
  file(READ ${file} text)
  string(REPLACE "\\" "\\\\" text "${text}")
  string(REPLACE "\"" "\\\"" text "${text}")
  string(REPLACE ";" "\\073" text "${text}") # a list separator here
  string(REGEX REPLACE "\n" "\\\\n\"\n    \"" text "${text}")
  set(${out} "    \"${text}\"" PARENT_SCOPE)
endfunction()

text_of(${FOLDER}/schema.sql schema)
file(GLOB migrations ${FOLDER}/migrations/*.sql)
list(SORT migrations)
set(list "")
set(count 0)
set(version 2)
foreach(file ${migrations})
  # 0002_what.sql makes version 2; none may be left out.
  get_filename_component(name ${file} NAME)
  if(NOT name MATCHES "^0*${version}_")
    message(FATAL_ERROR "${file}: the next migration makes version ${version}")
  endif()
  text_of(${file} text)
  string(APPEND list "${text},\n")
  math(EXPR count "${count} + 1")
  math(EXPR version "${version} + 1")
endforeach()
file(WRITE ${OUTPUT} "/* Made from the files .sql of daemon/journal/. */
#include \"journal/schema.h\"

static const char sql[] =
${schema};

static const char *const migrations[] = {
${list}    0};

const struct schema schema_current = {
    .sql = sql, .migrations = migrations, .migration_count = ${count}};
")
