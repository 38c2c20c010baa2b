"""What a bundle promises: manifest, graphs, axes, windows, resizing, pictures and errors."""
