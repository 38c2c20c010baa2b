"""What computes: devices, ONNX Runtime and TensorRT."""
