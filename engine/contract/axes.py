"""Axes of graphs: fixed sizes, names such as "height", and names with a factor, as "4*height" or "width/2"."""

import re
from collections.abc import Iterable, Mapping
from fractions import Fraction

from .errors import RequestError
from .manifest import Graph, TensorSpec

# Smallest, usual and largest size of each free axis, by its name in the manifest.
Shapes = Mapping[str, tuple[int, int, int]]

_AXIS = re.compile(r"(?:(\d+)\*)?([^\W\d]\w*)(?:/(\d+))?")


def free_axes(graph: Graph) -> set[str]:
    """Return the names of a graph's free axes, without their factors."""
    matches = (_AXIS.fullmatch(axis) for spec in graph.inputs for axis in spec.axes if isinstance(axis, str))
    return {match[2] for match in matches if match}


def axis_range(axis: str | int, shapes: Shapes) -> tuple[int, int, int]:
    """Return (smallest, usual, largest) size of an axis: a number, a name, or a name with a factor."""
    if isinstance(axis, int):
        return axis, axis, axis
    match = _AXIS.fullmatch(axis)
    if match is None or match[2] not in shapes:
        raise RequestError(f"The axis '{axis}' has no sizes: give its smallest, usual and largest.")
    factor, divisor = int(match[1] or 1), int(match[3] or 1)
    for size in shapes[match[2]]:
        if size % divisor:
            raise RequestError(f"The axis '{match[2]}' cannot be {size}: use a multiple of {divisor}.")
    low, usual, high = (size * factor // divisor for size in shapes[match[2]])
    return low, usual, high


def sizes_of(specs: Iterable[TensorSpec], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Return the size of every free axis, of the shapes of inputs; RequestError where they do not fit together."""
    sizes: dict[str, int] = {}
    for spec in specs:
        shape = shapes[spec.name]
        fits = len(shape) == len(spec.axes)
        for axis, size in zip(spec.axes, shape, strict=False):
            if isinstance(axis, int):
                fits &= axis == size
            elif match := _AXIS.fullmatch(axis):
                whole = Fraction(size * int(match[3] or 1), int(match[1] or 1))
                fits &= whole.denominator == 1 and sizes.setdefault(match[2], int(whole)) == whole
        if not fits:
            told = ", ".join(map(str, spec.axes))
            raise RequestError(f"The input '{spec.name}' is ({', '.join(map(str, shape))}): hand over ({told}).")
    return sizes


def shape_of(spec: TensorSpec, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """Return the shape of a tensor whose free axes have these sizes."""
    return tuple(axis_range(axis, {name: (size,) * 3 for name, size in sizes.items()})[0] for axis in spec.axes)
