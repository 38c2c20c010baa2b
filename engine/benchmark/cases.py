"""The cases of a benchmark: every combination of what this machine can run, the most telling first."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar, get_args

from ..backends.choice import Candidate, find_candidates
from ..backends.options import Backend, parse_device
from ..contract.bundle import Bundle, find_bundles
from ..contract.errors import BackendError, RequestError
from ..contract.manifest import Precision
from ..pipeline.plan import default_factor, default_scale
from .results import BundleFacts, Case, Unavailable
from .run import Combination

ALL = "all"
_Value = TypeVar("_Value")
_SERVER = Candidate("remote", "server", None, "inference server", None)


@dataclass(frozen=True)
class Choice:
    """The combinations that are asked for."""

    sizes: Sequence[tuple[int, int]]  # of the input, (width, height)
    batches: Sequence[int] = (1,)
    concurrencies: Sequence[int] = (1,)
    backend: str = ALL  # or "ort", "tensorrt", "remote"
    device: str = ALL  # or "cpu", "cuda:N", or several of these with commas
    precisions: Sequence[str] = ()  # none: each that the device has
    scale: float | None = None  # None: x4, or the bundle's own
    factor: int | None = None  # None: x2, or the bundle's own
    threads: int | None = None
    url: str | None = None  # of the server


class Model(NamedTuple):
    """A bundle, or the two of a chain, and the text that names it."""

    name: str
    bundles: tuple[Bundle, ...]

    @classmethod
    def find(cls, name: str) -> "Model":
        """Read the bundles. Raises BundleError if there are none of the name."""
        return cls(name, find_bundles(name))

    def facts(self) -> BundleFacts:
        """Return what tells the weights from others."""
        return BundleFacts(
            fingerprint="+".join(bundle.fingerprint for bundle in self.bundles),
            graphs_sha256={b.manifest.name: {one.role: one.sha256 for one in b.manifest.graphs} for b in self.bundles},
        )


def find_combinations(models: Mapping[str, Model], choice: Choice) -> tuple[list[Combination], list[Unavailable]]:
    """Return the combinations of models, by their names on the page, and the backends that cannot compute here.

    Combinations with fewer differences from the first of each kind come first. Raises RequestError or BackendError for
    a choice that leaves nothing.
    """
    candidates = _candidates(choice)
    unavailable = [
        Unavailable(title=one.title, device=one.device, reason=one.unavailable)
        for one in candidates
        if one.unavailable is not None
    ]
    ranked: list[tuple[int, Combination]] = []
    refused: list[Unavailable] = []
    for rank, candidate in _ranked(one for one in candidates if one.unavailable is None):
        for name_rank, (name, one) in _ranked(models.items()):
            for precision_rank, precision in _ranked(_precisions(candidate, choice, one.bundles)):
                try:
                    backend = _backend(candidate, choice, precision)
                except BackendError as error:
                    reason = Unavailable(title=candidate.title, device=candidate.device, reason=str(error))
                    refused += [reason] if reason not in refused else []
                    continue
                so_far = rank + name_rank + precision_rank
                for more, case in _cases(name, one.bundles, candidate, precision, choice):
                    ranked.append((so_far + more, Combination(case, one.name, backend)))
    if not ranked:
        reasons = dict.fromkeys(one.reason for one in (*unavailable, *refused))
        raise BackendError(" ".join(reasons))
    return [one for _, one in sorted(ranked, key=lambda entry: entry[0])], [*unavailable, *refused]


def _ranked(values: Iterable[_Value]) -> list[tuple[int, _Value]]:
    """Return values with the number of differences that each adds: none for the first, one for the others."""
    return [(int(number > 0), value) for number, value in enumerate(values)]


def _candidates(choice: Choice) -> list[Candidate]:
    if choice.backend == "remote":
        return [_SERVER]
    candidates = [one for one in find_candidates() if choice.backend in (ALL, one.backend)]
    if choice.device == ALL:
        found = candidates
    else:
        first, *others = ([c for c in candidates if c.device == device] for device in _devices(choice.device))
        found = [_spread(one, others) for one in first if all(others)]
    if not found:
        of_backend = "" if choice.backend == ALL else f" for the backend '{choice.backend}'"
        raise RequestError(f"There is no device '{choice.device}'{of_backend} here: see 'stvsr info --devices'.")
    return found


def _devices(text: str) -> list[str]:
    """Return the devices of a choice by their names. Raises BackendError for text that names none."""
    parsed = [parse_device(device) for device in text.split(",")]
    return list(dict.fromkeys(f"cuda:{index}" if kind == "cuda" else kind for kind, index in parsed))


def _spread(first: Candidate, others: Sequence[Sequence[Candidate]]) -> Candidate:
    """Return a candidate of one device as that of several, which can compute if each of them can."""
    same = [first, *(c for found in others for c in found if (c.backend, c.library) == (first.backend, first.library))]
    reasons = [one.unavailable for one in same if one.unavailable is not None]
    return first._replace(device=",".join(one.device for one in same), unavailable=reasons[0] if reasons else None)


def _precisions(candidate: Candidate, choice: Choice, bundles: Sequence[Bundle]) -> list[str]:
    """Return the precisions to measure; on a GPU that of `--precision auto` is the first."""
    if choice.precisions:
        return list(choice.precisions)
    if candidate.backend == "remote":
        return ["auto"]
    if candidate.device == "cpu":
        return ["fp32"]
    usual = Backend().precision_on_gpu(bundles[0].manifest)
    return sorted(get_args(Precision), key=lambda precision: precision != usual)


def _backend(candidate: Candidate, choice: Choice, precision: str) -> Backend:
    """Return the record of a candidate. Raises BackendError for options that it does not have."""
    return Backend(
        kind=candidate.backend,
        device="auto" if candidate.backend == "remote" else candidate.device,
        precision=precision,  # type: ignore[arg-type]  # checked by Backend
        library=candidate.library,
        threads=choice.threads if candidate.backend != "tensorrt" else None,
        url=choice.url,
    )


def _cases(
    name: str, bundles: tuple[Bundle, ...], candidate: Candidate, precision: str, choice: Choice
) -> Iterable[tuple[int, Case]]:
    """Yield the cases of every size, batch and concurrency, with the number of their differences from the first."""
    scale = default_scale(bundles) if choice.scale is None else choice.scale
    base = Case(
        bundle=name,
        backend=candidate.backend,
        library=candidate.library,
        title=candidate.title,
        device=candidate.device,
        precision="its own" if precision == "auto" else precision,
        threads=choice.threads if candidate.backend == "ort" else None,
        size_in=choice.sizes[0],
        size_out=choice.sizes[0],
        factor=default_factor(bundles) if choice.factor is None else choice.factor,
    )
    # A batch is made of windows of different streams, so that it needs as many of them.
    streams = dict.fromkeys((batch, max(batch, many)) for many in choice.concurrencies for batch in choice.batches)
    for size_rank, (width, height) in _ranked(choice.sizes):
        size_out = round(width * scale), round(height * scale)
        for stream_rank, (batch, concurrency) in _ranked(streams):
            changes = {"size_in": (width, height), "size_out": size_out, "batch": batch, "concurrency": concurrency}
            yield size_rank + stream_rank, base.model_copy(update=changes)
