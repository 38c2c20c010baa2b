"""Odd, broken and hostile inputs, bundles, checkpoints, options and faults, each put to the real command.

    python -m tests.torture OUT [--only REGEX] [--seed N] [--jobs 2] [--keep]

A case has a folder OUT/cases/NAME with its input, what was printed and what came out. The tests run a part of them.
"""
