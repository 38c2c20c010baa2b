"""``python -m stvsr`` is the same as ``stvsr``."""

from .cli import main

main()
