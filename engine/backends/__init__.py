"""Backends: devices, ONNX Runtime and TensorRT."""
