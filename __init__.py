"""stvsr: space-time video super-resolution with exported graphs."""

__version__ = "0.1.0"
