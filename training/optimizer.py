"""The optimizer of training: Muon for weights that are matrices, Adam for biases and other vectors.

Muon (Jordan et al., 2024; `torch.optim.Muon`) orthogonalises the momentum of each weight matrix, so that all directions
of its update have the same length. A convolution's weights `(out, in, kh, kw)` are the matrix `(out, in * kh * kw)`.
"""

from typing import Any

import torch
from torch import nn

from ..engine.contract.errors import CheckpointError


class MuonAdam:
    """Updates a network's parameters from their gradients.

    Updates of matrices are scaled to the size of Adam's, so both take the same learning rate. Parameters without a
    gradient stay as they are, and so does their momentum.
    """

    def __init__(self, network: nn.Module, rate: float) -> None:
        self._network = network
        parameters = list(network.parameters())
        self._weights = [p for p in parameters if p.ndim > 1]
        self._matrices = [nn.Parameter(p.detach().flatten(1)) for p in self._weights]
        self._muon = torch.optim.Muon(self._matrices, rate, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
        self._adam = torch.optim.Adam([p for p in parameters if p.ndim < 2], rate, betas=(0.9, 0.99))

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self._network.zero_grad(set_to_none=True)

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Update the parameters at a learning rate."""
        for optimizer in (self._muon, self._adam):
            for group in optimizer.param_groups:
                group["lr"] = rate
        pairs = list(zip(self._weights, self._matrices, strict=True))
        for weight, matrix in pairs:  # a copy: channels-last weights have no view that is a matrix
            matrix.data = weight.detach().flatten(1).clone()
            matrix.grad = None if weight.grad is None else weight.grad.flatten(1)
        self._muon.step()
        self._adam.step()
        for weight, matrix in pairs:
            if matrix.grad is not None:
                weight.copy_(matrix.view_as(weight))

    def state_dict(self) -> dict[str, Any]:
        """Return the state to resume from."""
        return {"muon": self._muon.state_dict(), "adam": self._adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take a state that `state_dict` returned. Raises CheckpointError for the state of another optimizer."""
        if set(state) != {"muon", "adam"}:
            raise CheckpointError(
                "The run was trained by another optimizer and cannot be resumed: start a run in another folder, with"
                " its weights as --start."
            )
        self._muon.load_state_dict(state["muon"])
        self._adam.load_state_dict(state["adam"])
