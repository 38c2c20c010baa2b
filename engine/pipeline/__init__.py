"""The way of a frame: request, plan, run, chain, upscaler, runners."""
