"""The methods that serve a network, and its default one."""

import pytest
from stvsr.training.adapt.methods import METHODS, methods_for
from stvsr.training.networks.adavsr import SpatialModule, TemporalModule
from stvsr.training.networks.cascade import AdaVSR
from stvsr.training.networks.registry import NETWORKS, find_network


def test_every_network_has_a_method() -> None:
    for entry in NETWORKS:
        if entry.name.endswith("-s"):
            serving = methods_for(entry.build(entry.config))
            assert serving
            assert set(serving) <= set(METHODS)


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("fourier-s", "self-supervised"),
        ("edvr-s", "self-supervised"),
        ("adavsr-spatial-s", "internal"),
        ("adavsr-temporal-s", "internal"),
        ("rife-s", "internal"),
        ("dtsr-s", "zero-shot"),
    ],
)
def test_default_method_follows_from_the_network(name: str, first: str) -> None:
    entry = find_network(name)
    assert methods_for(entry.build(entry.config))[0] == first


def test_both_modules_of_ada_vsr_learn_from_the_clip_alone() -> None:
    parts = [find_network(f"adavsr-{part}-s") for part in ("temporal", "spatial")]
    temporal, spatial = (entry.build(entry.config) for entry in parts)
    assert isinstance(temporal, TemporalModule)
    assert isinstance(spatial, SpatialModule)
    assert methods_for(AdaVSR(temporal, spatial)) == ("internal",)
