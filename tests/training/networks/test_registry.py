"""The registry: unique names, unknown networks and changes to a configuration."""

import pytest
from stvsr.engine.contract.errors import RequestError
from stvsr.training.networks.registry import NETWORKS, configured, find_network


def test_names_are_unique() -> None:
    assert len({entry.name for entry in NETWORKS}) == len(NETWORKS)


def test_unknown_network_is_refused_with_the_known_names() -> None:
    with pytest.raises(RequestError, match="videoinr-s"):
        find_network("videoinr-xl")


def test_configuration_fields_are_replaced_by_text() -> None:
    entry = configured(find_network("toflow"), {"frames": "5", "official_sampling": "False"})
    assert (entry.config.frames, entry.config.official_sampling, entry.config.width) == (5, False, 64)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": "many"}, "'many' is not a value for the field 'frames' of toflow: write a whole number"),
        ({"depth": "3"}, "toflow has no field 'depth': choose among frames"),
    ],
)
def test_unsuitable_changes_of_a_configuration_are_refused(changes: dict[str, str], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        configured(find_network("toflow"), changes)
