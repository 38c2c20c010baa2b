"""Networks, losses, data, training and metrics in PyTorch."""
