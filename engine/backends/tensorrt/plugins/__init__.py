"""Kernels of this package as plugins inside TensorRT engines."""
