"""TensorRT: engines are built from graphs, cached, run and refitted."""
