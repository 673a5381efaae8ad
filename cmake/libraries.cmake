# Libraries from the system. Nothing is ever downloaded here.

set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)
pkg_check_modules(libuv REQUIRED IMPORTED_TARGET libuv>=1.44)
pkg_check_modules(protobuf_c REQUIRED IMPORTED_TARGET libprotobuf-c>=1.4)
pkg_check_modules(jansson REQUIRED IMPORTED_TARGET jansson>=2.14)
pkg_check_modules(pcre2 REQUIRED IMPORTED_TARGET libpcre2-8>=10.40)
pkg_check_modules(utf8proc REQUIRED IMPORTED_TARGET libutf8proc)
pkg_check_modules(nettle REQUIRED IMPORTED_TARGET nettle>=3.8)
pkg_check_modules(sqlite REQUIRED IMPORTED_TARGET sqlite3>=3.37)
pkg_check_modules(inih REQUIRED IMPORTED_TARGET inih)
pkg_check_modules(libedit REQUIRED IMPORTED_TARGET libedit)

# The messages, generated from proto/personad.proto. Include as "personad.pb-c.h".
set(proto_source ${PROJECT_SOURCE_DIR}/proto/personad.proto)
set(proto_folder ${PROJECT_BINARY_DIR}/generated)
if(EXISTS ${proto_source})
  find_program(PROTOC_C NAMES protoc-c REQUIRED)
  file(MAKE_DIRECTORY ${proto_folder})
  add_custom_command(
    OUTPUT ${proto_folder}/personad.pb-c.c ${proto_folder}/personad.pb-c.h
    COMMAND ${PROTOC_C} --c_out=${proto_folder} -I ${PROJECT_SOURCE_DIR}/proto ${proto_source}
    DEPENDS ${proto_source}
    VERBATIM)
  add_library(proto STATIC ${proto_folder}/personad.pb-c.c)
  target_include_directories(proto SYSTEM PUBLIC ${proto_folder})
  target_link_libraries(proto PUBLIC PkgConfig::protobuf_c)
  # Generated code answers to its generator's taste, not to our warnings.
  target_compile_options(proto PRIVATE -w)
else()
  add_library(proto INTERFACE)
  target_link_libraries(proto INTERFACE PkgConfig::protobuf_c)
endif()
