"""Turns trained PyTorch weights into bundles."""
