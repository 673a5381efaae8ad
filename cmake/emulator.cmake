# The CUDA kernels, compiled for the host and run by the emulator: no card and no CUDA headers.
# Not under ThreadSanitizer, which does not know the emulator's fibers.

if(PERSONAD_SANITIZE STREQUAL "thread" OR PERSONAD_FUZZ)
  return()
endif()

# The C++ compiler of the same family, since both bring a sanitizer's runtime.
if(NOT CMAKE_CXX_COMPILER)
  if(CMAKE_C_COMPILER_ID MATCHES "Clang")
    set(CMAKE_CXX_COMPILER clang++)
  else()
    set(CMAKE_CXX_COMPILER g++)
  endif()
endif()
find_program(host_cxx NAMES ${CMAKE_CXX_COMPILER})
if(NOT host_cxx)
  message(STATUS "No C++ compiler: the emulator's tests are not built (Debian: g++)")
  return()
endif()
enable_language(CXX)
set(CMAKE_CXX_STANDARD 17)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
# Kernels over an emulator are slow: optimised also where the rest is not.
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -g")
set(CMAKE_CXX_FLAGS_DEBUG "-O1 -g -fno-omit-frame-pointer")

file(GLOB cuda_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/cuda/*.cu)
list(REMOVE_ITEM cuda_sources ${PROJECT_SOURCE_DIR}/kernels/cuda/device.cu)
set_source_files_properties(${cuda_sources} PROPERTIES
  LANGUAGE CXX COMPILE_OPTIONS "-xc++")
file(GLOB emulator_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/emulator/*.cpp)
set(emulator_tests ${emulator_sources})
list(FILTER emulator_tests INCLUDE REGEX "/test_[^/]*$")
list(FILTER emulator_sources EXCLUDE REGEX "/test_[^/]*$")

part(cuda_emulated SOURCES ${cuda_sources} ${emulator_sources} LINKS test_support kernels_cpu base)
target_compile_options(cuda_emulated PUBLIC -Wno-unknown-pragmas)
if(PERSONAD_SANITIZE AND CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  # Its heap of dead frames is one a fiber, mapped and unmapped each time one begins: four fifths of
  # the time. Frames of kernels end with the thread; what outlives it is not on a stack.
  target_compile_options(cuda_emulated PUBLIC -fsanitize-address-use-after-return=never)
endif()

# What the tests name as cuBLASLt.
add_library(fake_cublaslt MODULE ${PROJECT_SOURCE_DIR}/tests/emulator/fake_cublaslt.c)
target_compile_options(fake_cublaslt PRIVATE ${personad_include_roots})
set_target_properties(fake_cublaslt PROPERTIES
  LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/emulated)

foreach(source ${emulator_tests})
  get_filename_component(file ${source} NAME_WE)
  unit_test(emulator_${file} ${source} cuda_emulated schedule model)
  set_tests_properties(emulator_${file} PROPERTIES TIMEOUT 900) # ./dev test --long takes its time
endforeach()
foreach(name cublaslt trial)
  add_dependencies(emulator_test_${name} fake_cublaslt)
  target_compile_definitions(emulator_test_${name} PRIVATE
    FAKE_CUBLASLT="$<TARGET_FILE:fake_cublaslt>")
endforeach()

# The same as a library that the daemon loads: --backend cuda without a card, for the flows. Not
# with sanitizers: their C++ runtime is not in a daemon of C, and the tests above run under them.
if(PERSONAD_SANITIZE)
  return()
endif()
add_library(personad_cuda_emulated MODULE ${PROJECT_SOURCE_DIR}/kernels/cuda/library.cu)
target_link_libraries(personad_cuda_emulated PRIVATE cuda_emulated)
target_link_options(personad_cuda_emulated PRIVATE -static-libstdc++ -static-libgcc
  -Wl,--version-script=${PROJECT_SOURCE_DIR}/cmake/backend_library.map)
set_target_properties(personad_cuda_emulated PROPERTIES
  LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/emulated
  LINK_DEPENDS ${PROJECT_SOURCE_DIR}/cmake/backend_library.map)
