"""Measurements of what a machine can run."""
