"""Axes of graph tensors: fixed sizes, free names such as "height", and scaled names such as "4*height" or "width/2".

Outputs may also have products of two free axes, "factor_y*height".
"""

import re
from collections.abc import Iterable, Mapping
from fractions import Fraction

from .errors import RequestError
from .manifest import Graph, TensorSpec

# Smallest, usual and largest size of each free axis, by its name in the manifest.
Shapes = Mapping[str, tuple[int, int, int]]

_AXIS = re.compile(r"(?:(\d+)\*)?([^\W\d]\w*)(?:/(\d+))?")  # groups: factor, name, divisor
_PRODUCT = re.compile(r"([^\W\d]\w*)\*([^\W\d]\w*)")  # groups: two names


def free_axes(graph: Graph) -> set[str]:
    """Return the names of the free axes of a graph's inputs, without factors and divisors."""
    matches = (_AXIS.fullmatch(axis) for spec in graph.inputs for axis in spec.axes if isinstance(axis, str))
    return {match[2] for match in matches if match}


def axis_range(axis: str | int, shapes: Shapes) -> tuple[int, int, int]:
    """Return the (smallest, usual, largest) size of an axis: a fixed size, a name, a scaled name or a product.

    Raises RequestError if `shapes` lacks the axis, or if the axis is divided and one of its sizes is not a multiple of
    the divisor.
    """
    if isinstance(axis, int):
        return axis, axis, axis
    if product := _PRODUCT.fullmatch(axis):
        (a, b, c), (d, e, f) = (axis_range(name, shapes) for name in product.groups())
        return a * d, b * e, c * f
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
    """Return the size of every free axis, from the shapes of a graph's inputs (by input name).

    Raises RequestError if a shape has another number of axes than its spec, differs in a fixed axis, does not divide
    into its scaled axes, or gives an axis another size than an earlier input did.
    """
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
            expected = ", ".join(map(str, spec.axes))
            raise RequestError(
                f"The input '{spec.name}' has the shape ({', '.join(map(str, shape))}): pass one of shape ({expected})."
            )
    return sizes


def shape_of(spec: TensorSpec, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """Return the shape of a tensor from the size of every free axis; raises RequestError as `axis_range` does."""
    return tuple(axis_range(axis, {name: (size,) * 3 for name, size in sizes.items()})[0] for axis in spec.axes)
