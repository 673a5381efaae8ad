# The CUDA backend: a shared library that the daemon loads at run time, so that one daemon serves
# machines with and without a card. Made of machine code only: no driver compiles anything, and the
# bits do not depend on its version. nvcc is called here rather than by CMake's CUDA language, since
# the emulator compiles the same files as C++.
#
# Sets cuda_library_folder where the library is built. Nothing is ever downloaded here: `./dev build
# --cuda` brings a compiler, and names it by PERSONAD_NVCC.

set(PERSONAD_CUDA AUTO CACHE STRING "Build the CUDA backend: AUTO (where nvcc is found), ON, OFF")
set_property(CACHE PERSONAD_CUDA PROPERTY STRINGS AUTO ON OFF)
set(PERSONAD_CUDA_ARCHITECTURES "80;89;90a;100a" CACHE STRING
  "Cards that the CUDA backend has machine code for")

# Kernels are judged where nothing else stands between them and the card.
if(NOT PERSONAD_CUDA OR PERSONAD_SANITIZE OR PERSONAD_FUZZ)
  if(PERSONAD_CUDA STREQUAL "ON")
    message(STATUS "CUDA backend: not in builds with sanitizers")
  endif()
  return()
endif()

set(cuda_places /usr/local/cuda /opt/cuda)
if(DEFINED ENV{PERSONAD_CUDA_PLACES}) # of scripts/lib.sh
  string(REPLACE " " ";" cuda_places "$ENV{PERSONAD_CUDA_PLACES}")
endif()
find_program(PERSONAD_NVCC NAMES nvcc DOC "The CUDA compiler"
  PATHS ${cuda_places} PATH_SUFFIXES bin)
find_program(cuda_host_cxx NAMES g++ c++)
set(nvcc_version 0)
if(PERSONAD_NVCC)
  execute_process(COMMAND ${PERSONAD_NVCC} --version OUTPUT_VARIABLE nvcc_version)
  string(REGEX REPLACE ".*release ([0-9.]+).*" "\\1" nvcc_version "${nvcc_version}")
endif()
if(NOT PERSONAD_NVCC OR NOT cuda_host_cxx OR nvcc_version VERSION_LESS 12.8)
  if(PERSONAD_NVCC AND nvcc_version VERSION_LESS 12.8)
    set(missing "nvcc 12.8 or later, and ${PERSONAD_NVCC} is ${nvcc_version}")
  elseif(NOT PERSONAD_NVCC)
    set(missing "nvcc (./dev build --cuda brings one)")
  else()
    set(missing "a C++ compiler (Debian: g++)")
  endif()
  if(PERSONAD_CUDA STREQUAL "AUTO")
    message(STATUS "CUDA backend: not built, it needs ${missing}")
    return()
  endif()
  message(FATAL_ERROR "PERSONAD_CUDA is ON, and there is no ${missing}")
endif()

# nvcc's folder tells where the rest of its toolkit is; the layouts of NVIDIA's installer, of
# Debian and of the packages on PyPI differ.
get_filename_component(nvcc_real ${PERSONAD_NVCC} REALPATH)
get_filename_component(cuda_root ${nvcc_real} DIRECTORY)
get_filename_component(cuda_root ${cuda_root} DIRECTORY)
set(PERSONAD_CUDART "" CACHE FILEPATH "The CUDA runtime, static; empty: the one beside nvcc")
set(cudart ${PERSONAD_CUDART})
if(NOT cudart)
  # Not kept: another nvcc may be named later.
  find_library(cudart NAMES libcudart_static.a NO_CACHE
    HINTS ${cuda_root}
    PATH_SUFFIXES lib64 lib targets/${CMAKE_SYSTEM_PROCESSOR}-linux/lib
      lib/${CMAKE_LIBRARY_ARCHITECTURE})
endif()
if(NOT cudart)
  message(FATAL_ERROR "${PERSONAD_NVCC} has no libcudart_static.a beside it: name one with "
    "-DPERSONAD_CUDART=FILE, or switch the CUDA backend off with -DPERSONAD_CUDA=OFF")
endif()
list(JOIN PERSONAD_CUDA_ARCHITECTURES " sm_" architectures)
message(STATUS "CUDA backend: ${PERSONAD_NVCC}, sm_${architectures}")

# Paths as seen from the build folder, where the command runs: so a compiler cache serves every copy
# of the source.
file(RELATIVE_PATH to_source ${PROJECT_BINARY_DIR} ${PROJECT_SOURCE_DIR})
string(REGEX REPLACE "/$" "" to_source "${to_source}")

# The flags are part of the arithmetic (docs/gpu/README.md): what the source does not spell out as
# fmaf stays two roundings, denormals stay, divisions and roots are rounded.
set(nvcc_flags -std=c++17 -O3 -lineinfo -fmad=false -ftz=false -prec-div=true -prec-sqrt=true
  -Werror all-warnings -Xptxas=--warn-on-spills -ccbin ${cuda_host_cxx}
  -Xcompiler=-fPIC,-fvisibility=hidden,-fno-exceptions,-fno-threadsafe-statics
  -Xcompiler=-ffp-contract=off,-Wall,-Wextra
  -Xcompiler=-iquote,${to_source},-iquote,${to_source}/daemon -D_GNU_SOURCE)
set(nvcc_targets)
foreach(architecture ${PERSONAD_CUDA_ARCHITECTURES})
  list(APPEND nvcc_targets -gencode arch=compute_${architecture},code=sm_${architecture})
endforeach()

# One edge a file, its object in `objects`.
set(cuda_objects)
set(cuda_object_folder ${PROJECT_BINARY_DIR}/cuda)
file(MAKE_DIRECTORY ${cuda_object_folder})
file(GLOB cuda_library_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/cuda/*.cu)
foreach(source ${cuda_library_sources})
  get_filename_component(name ${source} NAME)
  set(object ${cuda_object_folder}/${name}.o)
  set(depends DEPENDS ${source})
  if(CMAKE_GENERATOR MATCHES "Ninja|Makefiles")
    list(APPEND depends DEPFILE ${object}.d)
  endif()
  add_custom_command(
    OUTPUT ${object}
    COMMAND ${CMAKE_C_COMPILER_LAUNCHER} ${PERSONAD_NVCC} ${nvcc_flags} ${nvcc_targets}
      -DPERSONAD_CUDA_ARCHITECTURES="sm_${architectures}"
      -MD -MF cuda/${name}.o.d -c ${to_source}/kernels/cuda/${name} -o cuda/${name}.o
    WORKING_DIRECTORY ${PROJECT_BINARY_DIR}
    ${depends}
    COMMENT "nvcc ${name}"
    VERBATIM)
  list(APPEND cuda_objects ${object})
endforeach()

set(cuda_library_folder ${PROJECT_BINARY_DIR}/lib)
add_library(personad_cuda MODULE ${cuda_objects} ${PROJECT_SOURCE_DIR}/kernels/dtype.c
  ${PROJECT_SOURCE_DIR}/kernels/provider_table.c)
target_compile_options(personad_cuda PRIVATE ${personad_include_roots})
set_source_files_properties(${cuda_objects} PROPERTIES EXTERNAL_OBJECT TRUE GENERATED TRUE)
target_link_libraries(personad_cuda PRIVATE base ${cudart} Threads::Threads
  ${CMAKE_DL_LIBS} rt)
target_link_options(personad_cuda PRIVATE -Wl,--no-undefined
  -Wl,--version-script=${PROJECT_SOURCE_DIR}/cmake/backend_library.map)
set_target_properties(personad_cuda PROPERTIES
  LINKER_LANGUAGE C
  LIBRARY_OUTPUT_DIRECTORY ${cuda_library_folder}
  LINK_DEPENDS ${PROJECT_SOURCE_DIR}/cmake/backend_library.map)
