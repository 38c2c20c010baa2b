"""Train networks in PyTorch, and judge them."""
