"""The gains of adaptation on clips with known ground truth: `python -m benchmarks.adaptation`."""
