# Find the CUDA runtime and one inference library, and define the target stvsr::sdk for both.
#   STVSR_LIBRARY        tensorrt or tensorrt-rtx
#   TENSORRT_ROOT        folder of the SDK, with include/NvInferRuntime.h and lib/
#   CUDAToolkit_ROOT     folder of the CUDA toolkit
# The build and the installed package both include this file.
set(STVSR_LIBRARY "tensorrt-rtx" CACHE STRING "Inference library: tensorrt or tensorrt-rtx")
set(TENSORRT_ROOT "" CACHE PATH "Folder of the TensorRT or TensorRT-RTX SDK")
set(CUDAToolkit_ROOT "" CACHE PATH "Folder of the CUDA toolkit")
set_property(CACHE STVSR_LIBRARY PROPERTY STRINGS tensorrt tensorrt-rtx)

if(STVSR_LIBRARY STREQUAL "tensorrt")
  set(stvsr_library_name nvinfer)
elseif(STVSR_LIBRARY STREQUAL "tensorrt-rtx")
  set(stvsr_library_name tensorrt_rtx)
else()
  message(FATAL_ERROR "STVSR_LIBRARY is '${STVSR_LIBRARY}': set it to tensorrt or tensorrt-rtx.")
endif()

set(stvsr_sdk_hints ${TENSORRT_ROOT} $ENV{TENSORRT_ROOT})
set(stvsr_cuda_hints ${CUDAToolkit_ROOT} $ENV{CUDA_HOME} $ENV{CUDA_PATH} /usr/local/cuda)
set(stvsr_suffixes lib lib64 targets/x86_64-linux/lib targets/aarch64-linux/lib targets/sbsa-linux/lib)
find_path(STVSR_SDK_INCLUDE NvInferRuntime.h HINTS ${stvsr_sdk_hints} PATH_SUFFIXES include)
find_library(STVSR_SDK_LIBRARY ${stvsr_library_name} HINTS ${stvsr_sdk_hints} PATH_SUFFIXES ${stvsr_suffixes})
find_path(STVSR_CUDA_INCLUDE cuda_runtime_api.h HINTS ${stvsr_cuda_hints} PATH_SUFFIXES include)
find_library(STVSR_CUDA_LIBRARY cudart HINTS ${stvsr_cuda_hints} PATH_SUFFIXES ${stvsr_suffixes})

if(NOT STVSR_SDK_INCLUDE OR NOT STVSR_SDK_LIBRARY)
  message(FATAL_ERROR "The ${STVSR_LIBRARY} SDK (NvInferRuntime.h and ${stvsr_library_name}) was not found: unpack it"
    " and pass its folder with -DTENSORRT_ROOT=..., or choose the other library with -DSTVSR_LIBRARY=...")
endif()
if(NOT STVSR_CUDA_INCLUDE OR NOT STVSR_CUDA_LIBRARY)
  message(FATAL_ERROR "The CUDA toolkit (cuda_runtime_api.h and cudart) was not found: install it, or pass its folder"
    " with -DCUDAToolkit_ROOT=...")
endif()

if(NOT TARGET stvsr::sdk)
  add_library(stvsr::sdk INTERFACE IMPORTED)
  # System headers, so that their warnings are not reported.
  target_include_directories(stvsr::sdk SYSTEM INTERFACE ${STVSR_SDK_INCLUDE} ${STVSR_CUDA_INCLUDE})
  target_link_libraries(stvsr::sdk INTERFACE ${STVSR_SDK_LIBRARY} ${STVSR_CUDA_LIBRARY})
endif()
