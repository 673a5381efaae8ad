# What a builder can choose, and the flags that follow from it.

find_package(PkgConfig REQUIRED)
pkg_check_modules(cmocka QUIET IMPORTED_TARGET cmocka)

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Release, Debug or None" FORCE)
endif()

option(PERSONAD_TESTS "Build the tests (needs cmocka)" ${cmocka_FOUND})
option(PERSONAD_WERROR "Treat warnings as errors" ON)
option(PERSONAD_KERNELS_ONLY "Build the CPU's kernels and their tests alone" OFF)
option(PERSONAD_FUZZ "Build the fuzz targets with libFuzzer (needs clang)" OFF)
set(PERSONAD_SANITIZE "" CACHE STRING "address (with undefined), thread, or nothing")
set_property(CACHE PERSONAD_SANITIZE PROPERTY STRINGS "" address thread)

set(CMAKE_C_STANDARD 11)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_C_FLAGS_RELEASE "-O2 -g")
set(CMAKE_C_FLAGS_DEBUG "-O1 -g -fno-omit-frame-pointer")

add_compile_definitions(_GNU_SOURCE)
add_compile_options(-Wall -Wextra -Wvla)
# In C++ a struct and its accessor of the same name would count as shadowing.
foreach(warning shadow strict-prototypes missing-prototypes)
  add_compile_options($<$<COMPILE_LANGUAGE:C>:-W${warning}>)
endforeach()
if(PERSONAD_WERROR)
  add_compile_options(-Werror)
endif()

# Every bit that the daemon computes is defined by the C source: no fused multiply-add that the
# source does not spell out, and no errno from sqrtf, which would forbid vector code.
add_compile_options(-ffp-contract=off -fno-math-errno)

if(PERSONAD_FUZZ)
  if(NOT CMAKE_C_COMPILER_ID MATCHES "Clang")
    message(FATAL_ERROR "PERSONAD_FUZZ needs clang: configure with -DCMAKE_C_COMPILER=clang")
  endif()
  set(PERSONAD_SANITIZE address)
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()

if(PERSONAD_SANITIZE STREQUAL "address")
  set(sanitizers address,undefined)
elseif(PERSONAD_SANITIZE STREQUAL "thread")
  set(sanitizers thread)
elseif(PERSONAD_SANITIZE)
  message(FATAL_ERROR "PERSONAD_SANITIZE is '${PERSONAD_SANITIZE}': choose address or thread")
endif()
if(sanitizers)
  add_compile_options(-fsanitize=${sanitizers} -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${sanitizers})
endif()
