"""Charbonnier, reconstruction, perceptual and motion consistency losses."""

import pytest
import torch
import torch.nn.functional as F
from stvsr.engine.contract.errors import CheckpointError
from stvsr.training.networks.losses import (
    MotionConsistency,
    Perceptual,
    charbonnier,
    motion_reversal,
    reconstruction_losses,
)
from stvsr.training.networks.spynet import IMAGENET_STD, SpyNet
from torch import Tensor, nn

from tests.support.networks import flow_layers

# Indices of the convolutions in torchvision's vgg19().features.
VGG19 = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)


def vgg19(width: int = 4) -> dict[str, Tensor]:
    """Return random weights of a VGG-19 with a few channels."""
    torch.manual_seed(0)
    weights = {}
    for number in VGG19:
        weights[f"features.{number}.weight"] = torch.randn(width, 3 if number == 0 else width, 3, 3) / 4
        weights[f"features.{number}.bias"] = torch.randn(width) / 4
    return weights


def test_charbonnier_is_the_mean_smooth_absolute_error() -> None:
    assert charbonnier(torch.tensor([0.3, 0.0]), torch.tensor([0.0, 0.0]), 0.4) == pytest.approx((0.5 + 0.4) / 2)


def test_reconstruction_losses_compare_final_frames_and_early_frames_at_reconstruction_losses() -> None:
    high, low = torch.zeros(1, 3, 3, 8, 8), torch.zeros(1, 3, 3, 2, 2)
    assert reconstruction_losses(high + 1, high + 2, low + 3, high, low) == (1, 4 + 9)
    assert reconstruction_losses(high + 1, high + 2, low + 3, high, low, F.l1_loss) == (1, 2 + 3)


def test_perceptual_loss_compares_features_of_normalized_frames() -> None:
    weights = {"features.0.weight": torch.zeros(1, 3, 3, 3), "features.0.bias": torch.zeros(1)}
    weights["features.0.weight"][0, 1, 1, 1] = 1  # selects the pixel's own green
    frames = torch.full((2, 2, 3, 4, 4), 0.5)
    assert Perceptual(weights, "conv1_1")(frames + 0.1, frames) == pytest.approx((0.1 / IMAGENET_STD[1]) ** 2, rel=1e-4)
    assert Perceptual(weights, "relu1_1")(frames - 0.3, frames - 0.2) == 0  # both darker than the mean


@pytest.mark.parametrize(("layer", "count"), [("conv1_2", 2), ("conv3_4", 8), ("conv5_4", 16)])
def test_perceptual_loss_computes_the_layers_of_vgg19(layer: str, count: int) -> None:
    weights = vgg19()
    loss = Perceptual(weights, layer)
    actual, expected = torch.rand(2, 2, 3, 32, 48).unbind(0)
    features = []
    for frames in (actual, expected):
        x = (frames - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor(IMAGENET_STD)[:, None, None]
        for i, number in enumerate(VGG19[:count]):
            if i:
                x = F.relu(x)
                x = F.max_pool2d(x, 2) if i in (2, 4, 8, 12) else x
            x = F.conv2d(x, weights[f"features.{number}.weight"], weights[f"features.{number}.bias"], padding=1)
        features.append(x)
    assert loss(actual, expected) == pytest.approx(F.mse_loss(features[0], features[1]).item(), rel=1e-4)


def test_perceptual_loss_has_gradients_only_for_the_prediction() -> None:
    loss = Perceptual(vgg19())
    actual, expected = torch.rand(2, 1, 3, 32, 32).requires_grad_().unbind(0)
    grads = torch.autograd.grad(loss(actual, expected), (actual, expected), allow_unused=True)
    assert grads[0].abs().sum() > 0
    assert grads[1] is None
    assert not any(p.requires_grad for p in loss.parameters())


def test_perceptual_loss_refuses_missing_weights_and_unknown_layers() -> None:
    weights = vgg19()
    del weights["features.16.weight"]  # VGG-16 lacks it as well
    Perceptual(weights, "relu3_3")
    with pytest.raises(CheckpointError, match=r"missing: features\.16\.weight\.$"):
        Perceptual(weights, "relu3_4")
    with pytest.raises(ValueError, match="no layer 'conv3_5'; it has conv1_1"):
        Perceptual(weights, "conv3_5")


class Difference(nn.Module):
    """A stand-in flow network: the flow is the difference in red and green between the two frames."""

    def forward(self, fixed: Tensor, moving: Tensor) -> Tensor:
        return ((moving - fixed) * torch.tensor(IMAGENET_STD).view(3, 1, 1))[:, :2]


def colours(*red_green: tuple[float, float]) -> Tensor:
    """Return frames of one colour each, `(1, T, 3, 8, 8)`."""
    return torch.tensor([(*c, 0.5) for c in red_green]).view(1, -1, 3, 1, 1).expand(1, -1, 3, 8, 8)


def test_motion_consistency_of_three_frames() -> None:
    expected = colours((0, 0), (0.1, 0.1), (0.2, 0.2))
    actual = colours((0, 0), (0.3, 0.1), (0.1, 0.2))
    # The red flows 0 -> 1, 0 -> 2 and 1 -> 2 have errors of 0.2, -0.1 and -0.3, in both directions; green has none.
    absolute = 2 * (0.04 + 0.01 + 0.09) / (6 * 2)
    relative = (0.3 - 0.1) / 2
    loss = MotionConsistency(Difference())
    assert loss(actual, expected) == pytest.approx(absolute + relative, rel=1e-4)
    assert loss(expected, expected) == pytest.approx(0, abs=1e-6)


def test_motion_consistency_considers_consecutive_triples() -> None:
    still = colours((0, 0), (0, 0), (0.3, 0), (0.2, 0))
    # Only the last triple reverses: 0.3 to the next frame, 0.2 to the one after it.
    assert MotionConsistency(Difference())(still, still) == pytest.approx(0.1 / (2 * 2), rel=1e-4)


@pytest.mark.parametrize(
    ("near", "far", "loss"), [(3, 1, 2), (1, 3, 0), (-3, -1, 2), (-1, -3, 0), (1, -2, 3), (0, 5, 0)]
)
def test_motion_reversal_is_the_part_of_a_motion_that_is_reversed(near: float, far: float, loss: float) -> None:
    assert motion_reversal(torch.tensor([near, 0.0]), torch.tensor([far, 0.0])) == loss / 2


def test_motion_consistency_has_gradients_for_the_predicted_frames() -> None:
    torch.manual_seed(0)
    flow = SpyNet(width=4, levels=3).double()
    for layer in flow_layers(flow):
        nn.init.normal_(layer.weight, std=5.0)
    loss = MotionConsistency(flow).train()
    assert not any(module.training for module in loss.modules())
    assert flow.training
    assert all(p.requires_grad for p in flow.parameters())
    assert not any(p.requires_grad for p in loss.parameters())

    smooth = F.interpolate(torch.rand(8, 3, 4, 4).double(), size=(16, 16), mode="bilinear").unflatten(0, (2, 4))
    actual, expected = smooth[:1].clone().requires_grad_(), smooth[1:].clone().requires_grad_()
    gradient, expected_gradient = torch.autograd.grad(loss(actual, expected), (actual, expected), allow_unused=True)
    assert expected_gradient is None
    assert (gradient.abs().amax((0, 2, 3, 4)) > 0).all()
    with torch.no_grad():
        step = 1e-6 * torch.randn_like(actual)
        rise = (loss(actual + step, expected) - loss(actual - step, expected)) / 2
    assert rise.item() == pytest.approx((gradient * step).sum().item(), rel=1e-3)
