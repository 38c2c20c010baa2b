"""The sizes that engines are built for: (smallest, usual, largest) of every free axis of a bundle's graphs."""

from collections.abc import Mapping

from ...contract.axes import Shapes, free_axes
from ...contract.errors import RequestError
from ...contract.manifest import ContinuousSpace, Manifest

# Input pixels. By default frames of up to 640x360 go through a network whole, in portrait format too, and larger ones
# in tiles.
_USUAL_PX = {"height": 360, "width": 640}
_LARGEST_PX = 640
_SMALLEST_TARGET_PX = 2
_USUAL_SCALE = 4


def default_shapes(manifest: Manifest) -> dict[str, tuple[int, int, int]]:
    """Return the default sizes of every free axis: a batch of one, and frames that need no tiles."""
    shapes = {"batch": (1, 1, 1)}
    if manifest.window.kind == "doubled":
        frames = max(2, manifest.window.frames)
        shapes["frames"] = (2, frames, frames + 2 * manifest.window.overlap)
    padded = manifest.size.padded
    for name, usual in _USUAL_PX.items():
        smallest, largest = padded(1), padded(_LARGEST_PX)
        shapes[name] = (smallest, padded(usual), largest)
        if manifest.window.kind == "pair":
            space = manifest.space
            most = space.maximum if isinstance(space, ContinuousSpace) else max(space.factors)
            usual_target = int(min(_USUAL_SCALE, most) * padded(usual))
            shapes[f"target_{name}"] = (_SMALLEST_TARGET_PX, usual_target, int(most * largest))
            factor = (1, min(_USUAL_SCALE, int(most)), int(most))
            shapes[{"height": "factor_y", "width": "factor_x"}[name]] = factor
    return shapes


def complete_shapes(shapes: Shapes, manifest: Manifest) -> dict[str, tuple[int, int, int]]:
    """Return the default sizes with `shapes` in place of theirs.

    Raises RequestError for an axis that the bundle does not have, sizes that do not grow, or frames that the network
    does not take.
    """
    free = set[str]().union(*(free_axes(graph) for graph in manifest.graphs))
    for name, (smallest, usual, largest) in shapes.items():
        if name not in free:
            raise RequestError(f"The bundle has no free axis '{name}': it has {', '.join(sorted(free))}.")
        if not 1 <= smallest <= usual <= largest:
            raise RequestError(
                f"The sizes of axis '{name}' are {smallest}, {usual} and {largest}: give the smallest, the usual and"
                " the largest, in this order, from 1 on."
            )
        if name in _USUAL_PX and any(manifest.size.padded(size) != size for size in (smallest, usual, largest)):
            raise RequestError(
                f"The axis '{name}' cannot be {smallest}, {usual} and {largest}: use multiples of"
                f" {manifest.size.multiple_of} from {manifest.size.padded(1)} on."
            )
    return {**default_shapes(manifest), **shapes}


def extend_shapes(shapes: Shapes, sizes: Mapping[str, int]) -> dict[str, tuple[int, int, int]]:
    """Return shapes that include `sizes` too. A size outside its range becomes the usual one, which runs fastest."""
    extended = dict(shapes)
    for name, size in sizes.items():
        smallest, usual, largest = extended.get(name, (size, size, size))
        extended[name] = (min(smallest, size), usual if smallest <= size <= largest else size, max(largest, size))
    return extended


def covers(shapes: Shapes, needed: Shapes) -> bool:
    """Return whether shapes have the same axes as `needed` and include all of its sizes."""
    return shapes.keys() == needed.keys() and all(
        shapes[name][0] <= needed[name][0] and needed[name][2] <= shapes[name][2] for name in needed
    )
