"""Read and write videos and image folders frame by frame."""
