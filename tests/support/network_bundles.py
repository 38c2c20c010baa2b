"""Bundles without files, for plans, and for chains whose sessions are replaced: a manifest for each kind of window."""

from pathlib import Path
from typing import Any

from stvsr import Bundle
from stvsr.engine.contract.manifest import Architecture, FixedFactors, Graph, Manifest, SizeConstraint

SLIDING = {"kind": "sliding", "frames": 3, "padding": "reflection"}
DOUBLED = {"kind": "doubled", "frames": 3, "overlap": 1}
RUN = {"kind": "run", "frames": 3}
ANY_TIME = {"kind": "continuous"}


def network_bundle(window: dict[str, Any], space: int, time: Any, **changes: Any) -> Bundle:
    """Return a bundle named after its window and scale, such as "run-x4".

    `space` is its scale, and `time` its time factor or ANY_TIME; `changes` are further fields of the manifest.
    """
    name = f"{window['kind']}-x{space}"
    fields: dict[str, Any] = {
        "format": 1,
        "name": name,
        "architecture": Architecture(name=name, config={}),
        "graphs": (Graph(role="network", file="network.onnx", sha256="0" * 64, inputs=(), outputs=()),),
        "window": window,
        "space": FixedFactors(factors=(space,)),
        "time": FixedFactors(factors=(time,)) if isinstance(time, int) else time,
        "value_range": (0.0, 1.0),
        "channel_order": "RGB",
        "size": SizeConstraint(minimum=4, multiple_of=4),
        "halo_px": 2,
        "training": {},
        "scores": {},
        "licence": "none",
    }
    return Bundle(Path(name), Manifest.model_validate({**fields, **changes}), name)


RUN_X1 = network_bundle(RUN, 1, 2)
RUN_X4 = network_bundle(RUN, 4, 2)
RUN_X2_ANY_TIME = network_bundle(RUN, 2, ANY_TIME)
SLIDING_X4 = network_bundle(SLIDING, 4, 1)
DOUBLED_X1 = network_bundle(DOUBLED, 1, 2)
