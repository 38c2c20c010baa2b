"""What adaptation gains on clips whose truth is known: `python -m benchmarks.adaptation`."""
