"""Kernels of stvsr as plugins inside TensorRT engines."""
