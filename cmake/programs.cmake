# The daemon, the C client library and the command line client.

set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)

# Everything of the daemon but main(), so that tests can link it.
file(GLOB daemon_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/daemon/*.c)
list(REMOVE_ITEM daemon_sources ${PROJECT_SOURCE_DIR}/daemon/main.c)
part(daemon SOURCES ${daemon_sources} LINKS wire PkgConfig::libuv PkgConfig::inih)
if(daemon_sources)
  target_compile_definitions(daemon PUBLIC
    PERSONAD_VERSION="${PROJECT_VERSION}"
    PERSONAD_LIBRARY_FOLDER="${CMAKE_INSTALL_FULL_LIBDIR}/personad"
    PERSONAD_PERSONAS_FOLDER="${CMAKE_INSTALL_FULL_DATADIR}/personad/personas")
endif()

if(EXISTS ${PROJECT_SOURCE_DIR}/daemon/main.c)
  add_executable(personad daemon/main.c)
  target_link_libraries(personad PRIVATE daemon)
endif()

file(GLOB client_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/clients/c/src/*.c)
set(client_headers ${PROJECT_SOURCE_DIR}/clients/c/include)
if(client_sources)
  add_library(personad_client_objects OBJECT ${client_sources})
  target_include_directories(personad_client_objects PUBLIC ${client_headers})
  target_link_libraries(personad_client_objects PUBLIC proto)

  # With the messages inside, so that a program needs this archive and libprotobuf-c only.
  add_library(personad_client STATIC $<TARGET_OBJECTS:proto>)
  target_link_libraries(personad_client PUBLIC personad_client_objects)

  # The generated messages and our own helpers stay inside: only personad_* is the interface.
  add_library(personad_client_shared SHARED)
  target_link_libraries(personad_client_shared PRIVATE personad_client_objects)
  target_include_directories(personad_client_shared INTERFACE ${client_headers})
  target_link_options(personad_client_shared PRIVATE
    -Wl,--version-script=${PROJECT_SOURCE_DIR}/cmake/personad_client.map)
  set_target_properties(personad_client_shared PROPERTIES
    OUTPUT_NAME personad_client
    VERSION ${PROJECT_VERSION}
    SOVERSION 0
    LINK_DEPENDS ${PROJECT_SOURCE_DIR}/cmake/personad_client.map)
endif()

if(client_sources AND EXISTS ${PROJECT_SOURCE_DIR}/clients/cli/main.c)
  # Everything of the client but main(), so that tests can link it.
  file(GLOB cli_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/clients/cli/*.c)
  list(REMOVE_ITEM cli_sources ${PROJECT_SOURCE_DIR}/clients/cli/main.c)
  add_library(cli STATIC ${cli_sources})
  target_include_directories(cli PUBLIC ${PROJECT_SOURCE_DIR}/clients/cli)
  target_link_libraries(cli PUBLIC personad_client PkgConfig::libedit PkgConfig::jansson m)

  add_executable(persona clients/cli/main.c)
  target_compile_definitions(persona PRIVATE PERSONAD_VERSION="${PROJECT_VERSION}")
  target_link_libraries(persona PRIVATE cli)
endif()

# Measures the backends of this machine (`persona bench --kernel`).
file(GLOB bench_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/daemon/bench/*.c)
list(REMOVE_ITEM bench_sources ${PROJECT_SOURCE_DIR}/daemon/bench/main.c)
part(bench SOURCES ${bench_sources} LINKS schedule model kernels_cpu)
add_executable(personad-bench daemon/bench/main.c)
target_compile_definitions(personad-bench PRIVATE
  PERSONAD_BACKEND_FOLDER="${CMAKE_INSTALL_FULL_LIBDIR}/personad")
target_link_libraries(personad-bench PRIVATE bench)
