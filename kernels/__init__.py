"""CUDA kernels and their NumPy oracles."""
