"""Training losses."""

import torch
from torch import Tensor

CHARBONNIER_EPSILON = 1e-3  # of the [0, 1] range: a quarter of an 8-bit step


def charbonnier(actual: Tensor, expected: Tensor, epsilon: float = CHARBONNIER_EPSILON) -> Tensor:
    """Mean of sqrt(difference^2 + epsilon^2), a smooth L1 (Charbonnier et al. 1994). Tensors of one shape -> ()"""
    return torch.sqrt((actual - expected).square() + epsilon**2).mean()
