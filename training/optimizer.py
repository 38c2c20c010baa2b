"""The optimizer of training: Muon for weights that are matrices, Adam for biases and other vectors.

Muon (Jordan et al., 2024; `torch.optim.Muon`) orthogonalises the momentum of each weight matrix, so that all directions
of its update have the same length. A convolution's weights `(out, in, kh, kw)` are the matrix `(out, in * kh * kw)`.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ..engine.contract.errors import CheckpointError


class MuonAdam:
    """Updates a network's parameters from their gradients.

    Updates of matrices are scaled to the size of Adam's, so both take the same learning rate. Parameters without a
    gradient stay as they are, and so does their momentum.

    Both optimizers compute updates at the rate 1, of proxies that start at zero; the rate scales them afterwards. So it
    can be a tensor, and `step` can be captured in a CUDA graph.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._parameters = list(network.parameters())
        # A matrix for each weight: channels-last weights have no view that is one.
        self._proxies = [nn.Parameter(torch.zeros_like(_proxy_form(p))) for p in self._parameters]
        matrices = [p for p in self._proxies if p.ndim > 1]
        vectors = [p for p in self._proxies if p.ndim < 2]
        self._muon = torch.optim.Muon(matrices, 1.0, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
        self._adam = torch.optim.Adam(vectors, 1.0, betas=(0.9, 0.99))
        self._prepare()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self._network.zero_grad(set_to_none=True)

    @torch.no_grad()
    def step(self, rate: float | Tensor) -> None:
        """Update the parameters at a learning rate, a number or `()` on their device."""
        for parameter, proxy in zip(self._parameters, self._proxies, strict=True):
            proxy.zero_()
            proxy.grad = None if parameter.grad is None else _proxy_form(parameter.grad)
        self._muon.step()
        self._adam.step()
        for parameter, proxy in zip(self._parameters, self._proxies, strict=True):
            if proxy.grad is not None:
                parameter.add_(proxy.view_as(parameter) * rate)

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
        self._prepare()

    def _prepare(self) -> None:
        """Set what a state from another device or an older run may have set otherwise."""
        on_gpu = any(p.is_cuda for p in self._proxies)
        for optimizer in (self._muon, self._adam):
            for group in optimizer.param_groups:
                group["lr"], group["capturable"] = 1.0, on_gpu
        for proxy, state in self._adam.state.items():
            state["step"] = state["step"].to(proxy.device if on_gpu else "cpu")


def _proxy_form(parameter: Tensor) -> Tensor:
    """Return a weight, or its gradient, as the matrix that Muon takes, and other parameters as they are."""
    parameter = parameter.detach()
    return parameter.flatten(1) if parameter.ndim > 1 else parameter
