"""Paths of the files that the tests read."""

from pathlib import Path

TESTS = Path(__file__).parents[1]
SAMPLE = TESTS / "data" / "sample_bee_240.mp4"  # 240x136, 60 frames, AAC
ORACLES = TESTS / "oracles"
SHARED = TESTS.parents[1] / "shared"  # larger oracles and more clips, beside checkouts that have them
