"""Turn trained PyTorch weights into bundles, and adapt bundles to a clip."""
