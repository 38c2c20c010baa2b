"""Distillation at test time: a large network's results, made smaller, teach a small one what this clip looks like.

Yoo and Kim, "Self-Supervised Adaptation for Video Super-Resolution", 2021, algorithm 2. The large network only restores
the clip once; every step is the small one's, and costs as little as in its own adaptation.
"""

from dataclasses import dataclass
from typing import ClassVar

from .restore import Restore
from .selfsupervised import SelfSupervised


@dataclass(frozen=True, kw_only=True)
class Distillation(SelfSupervised):
    """Algorithm 2: `SelfSupervised` with targets of a teacher, which is what restores the clip.

    ``restore`` is `restoring(teacher)`, or a runtime's faster way to the same frames.
    """

    restore: Restore

    name: ClassVar[str] = "distillation"
