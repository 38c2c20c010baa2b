"""TensorRT: engines built from graphs, cached, run and refitted."""
