"""The server: videos come over HTTP, and are upscaled as jobs that outlive the process."""
