"""Warnings: sentences of a report about what differs from the request, or from the source."""

from collections.abc import Callable, Iterable, Iterator

from ..contract.bundle import Bundle
from .plan import Plan


def warn_before(warnings: Iterable[str], on_warning: Callable[[str], None] | None) -> None:
    """Call a function with each warning that is known before the first frame."""
    if on_warning is not None:
        for warning in warnings:
            on_warning(warning)


def alpha_warnings(is_lost: bool, plan: Plan) -> Iterator[str]:
    """Yield a sentence about transparency that an output does not hold."""
    if is_lost:
        yield (
            f"The transparency of the source is lost, and what was transparent is black: {plan.destination.suffix[1:]}"
            " with this encoder does not hold it, and .webm, .mov, .mkv, .gif, .apng and .png do."
        )


def untrained_warnings(bundles: Iterable[Bundle]) -> Iterator[str]:
    """Yield a sentence about each bundle with random weights."""
    for bundle in bundles:
        if bundle.manifest.training.get("untrained"):
            yield f"Bundle '{bundle.manifest.name}' holds random weights, which serve only to measure speed."
