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
foreach(file ${migrations})
  text_of(${file} text)
  string(APPEND list "${text},\n")
  math(EXPR count "${count} + 1")
endforeach()
file(WRITE ${OUTPUT} "/* Made from the files .sql of daemon/journal/. */
#include \"journal/schema.h\"

const char schema_sql[] =
${schema};

const char *const schema_migrations[] = {
${list}    0};
const uint32_t schema_migration_count = ${count};
")
