"""Runs exported graphs on video, without PyTorch."""
