import pytest
import torch
import torch.nn.functional as F
from stvsr.training.networks.losses import MotionConsistency, Perceptual, both_resolutions, charbonnier, motion_reversal
from stvsr.training.networks.spynet import IMAGENET_STD, SpyNet
from torch import Tensor, nn

# Convolutions of torchvision's vgg19().features.
VGG19 = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)


def vgg19(width: int = 4) -> dict[str, Tensor]:
    """Weights of a VGG-19 that is but a few channels wide."""
    torch.manual_seed(0)
    weights = {}
    for number in VGG19:
        weights[f"features.{number}.weight"] = torch.randn(width, 3 if number == 0 else width, 3, 3) / 4
        weights[f"features.{number}.bias"] = torch.randn(width) / 4
    return weights


def test_charbonnier_is_a_smooth_distance() -> None:
    assert charbonnier(torch.tensor([0.3, 0.0]), torch.tensor([0.0, 0.0]), 0.4) == pytest.approx((0.5 + 0.4) / 2)


def test_both_resolutions_are_of_final_and_of_early_frames() -> None:
    high, low = torch.zeros(1, 3, 3, 8, 8), torch.zeros(1, 3, 3, 2, 2)
    assert both_resolutions(high + 1, high + 2, low + 3, high, low) == (1, 4 + 9)
    assert both_resolutions(high + 1, high + 2, low + 3, high, low, F.l1_loss) == (1, 2 + 3)


def test_perceptual_compares_normalized_features() -> None:
    weights = {"features.0.weight": torch.zeros(1, 3, 3, 3), "features.0.bias": torch.zeros(1)}
    weights["features.0.weight"][0, 1, 1, 1] = 1  # the green of the pixel itself
    frames = torch.full((2, 2, 3, 4, 4), 0.5)
    assert Perceptual(weights, "conv1_1")(frames + 0.1, frames) == pytest.approx((0.1 / IMAGENET_STD[1]) ** 2, rel=1e-4)
    assert Perceptual(weights, "relu1_1")(frames - 0.3, frames - 0.2) == 0  # both darker than the mean


@pytest.mark.parametrize(("layer", "count"), [("conv1_2", 2), ("conv3_4", 8), ("conv5_4", 16)])
def test_perceptual_takes_the_layers_of_vgg19(layer: str, count: int) -> None:
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
    assert loss(actual, expected) == pytest.approx(F.mse_loss(*features).item(), rel=1e-4)


def test_perceptual_trains_the_prediction_alone() -> None:
    loss = Perceptual(vgg19())
    actual, expected = torch.rand(2, 1, 3, 32, 32).requires_grad_().unbind(0)
    grads = torch.autograd.grad(loss(actual, expected), (actual, expected), allow_unused=True)
    assert grads[0].abs().sum() > 0
    assert grads[1] is None
    assert not any(p.requires_grad for p in loss.parameters())


def test_perceptual_says_what_is_missing() -> None:
    weights = vgg19()
    del weights["features.16.weight"]  # VGG-16 has none either
    Perceptual(weights, "relu3_3")
    with pytest.raises(ValueError, match=r"missing: features\.16\.weight\.$"):
        Perceptual(weights, "relu3_4")
    with pytest.raises(ValueError, match="no layer 'conv3_5'; it has conv1_1"):
        Perceptual(weights, "conv3_5")


class Difference(nn.Module):
    """The "flow" is how much more red and green the moving frame has."""

    def forward(self, fixed: Tensor, moving: Tensor) -> Tensor:
        return ((moving - fixed) * torch.tensor(IMAGENET_STD).view(3, 1, 1))[:, :2]


def colours(*red_green: tuple[float, float]) -> Tensor:
    """Frames of one colour each. -> (1, T, 3, 8, 8)"""
    return torch.tensor([(*c, 0.5) for c in red_green]).view(1, -1, 3, 1, 1).expand(1, -1, 3, 8, 8)


def test_motion_consistency_of_three_frames() -> None:
    expected = colours((0, 0), (0.1, 0.1), (0.2, 0.2))
    actual = colours((0, 0), (0.3, 0.1), (0.1, 0.2))
    # Red flows 0 -> 1, 0 -> 2 and 1 -> 2 are 0.2, -0.1 and -0.3 off, as they are backwards; green ones are right.
    absolute = 2 * (0.04 + 0.01 + 0.09) / (6 * 2)
    relative = (0.3 - 0.1) / 2
    loss = MotionConsistency(Difference())
    assert loss(actual, expected) == pytest.approx(absolute + relative, rel=1e-4)
    assert loss(expected, expected) == pytest.approx(0, abs=1e-6)


def test_motion_consistency_takes_its_triples_in_order() -> None:
    still = colours((0, 0), (0, 0), (0.3, 0), (0.2, 0))
    # Only the last triple goes back: 0.3 to the next frame, 0.2 to the one after it.
    assert MotionConsistency(Difference())(still, still) == pytest.approx(0.1 / (2 * 2), rel=1e-4)


@pytest.mark.parametrize(
    ("near", "far", "loss"), [(3, 1, 2), (1, 3, 0), (-3, -1, 2), (-1, -3, 0), (1, -2, 3), (0, 5, 0)]
)
def test_motion_may_not_turn_back(near: float, far: float, loss: float) -> None:
    assert motion_reversal(torch.tensor([near, 0.0]), torch.tensor([far, 0.0])) == loss / 2


def test_motion_consistency_reaches_the_predicted_frames() -> None:
    torch.manual_seed(0)
    flow = SpyNet(width=4, levels=3).double()
    for module in flow.basic_module:
        nn.init.normal_(module.basic_module[-1].weight, std=5.0)
    loss = MotionConsistency(flow).train()
    assert not any(module.training for module in loss.modules())
    assert flow.training
    assert all(p.requires_grad for p in flow.parameters())
    assert not any(p.requires_grad for p in loss.parameters())

    smooth = F.interpolate(torch.rand(8, 3, 4, 4).double(), size=(16, 16), mode="bilinear").unflatten(0, (2, 4))
    actual, expected = smooth[:1].clone().requires_grad_(), smooth[1:].clone().requires_grad_()
    gradient, none = torch.autograd.grad(loss(actual, expected), (actual, expected), allow_unused=True)
    assert none is None
    assert (gradient.abs().amax((0, 2, 3, 4)) > 0).all()
    with torch.no_grad():
        step = 1e-6 * torch.randn_like(actual)
        rise = (loss(actual + step, expected) - loss(actual - step, expected)) / 2
    assert rise.item() == pytest.approx((gradient * step).sum().item(), rel=1e-3)
