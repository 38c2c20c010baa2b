"""Test-time adaptation: a network learns from the clip that it is about to upscale."""
