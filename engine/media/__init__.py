"""Video and image folders, read and written frame by frame."""
