"""The contract of a bundle: manifest, graphs, axes, windows, resizing, pictures and errors."""
