"""Distillation at test time: frames restored by a large network are the training targets of a small one.

Yoo and Kim, "Self-Supervised Adaptation for Video Super-Resolution", 2021, algorithm 2. The large network restores the
clip once; all training steps are steps of the small network, and cost as much as in its own adaptation.
"""

from dataclasses import dataclass
from typing import ClassVar

from .restore import Restore
from .selfsupervised import SelfSupervised


@dataclass(frozen=True, kw_only=True)
class Distillation(SelfSupervised):
    """Algorithm 2: `SelfSupervised` with targets that a teacher restored.

    `restore` is `restorer(teacher)`, or a runtime's faster way to compute the same frames.
    """

    restore: Restore

    name: ClassVar[str] = "distillation"
