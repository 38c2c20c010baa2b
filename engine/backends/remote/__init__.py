"""Inference servers: the repository that Triton loads, and a backend whose graphs run on such a server."""
