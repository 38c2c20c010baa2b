"""The models of a bundle on an inference server: their names, their tensors, and what a server may join to a batch.

Every graph is a model. A pair network also has an ensemble for each decoder: it takes frames and a time, and the server
hands the features of the encoder on, because they are larger than the frames that they come from.
"""

import re
from dataclasses import dataclass

from ...contract.errors import BundleError
from ...contract.manifest import Graph, Manifest, Role, TensorSpec
from .protocol import DATATYPES, Tensor

VERSION = "1"  # of every model: another bundle is another repository
FINGERPRINT, PRECISION = "stvsr_fingerprint", "stvsr_precision"  # parameters in the configuration of a model
_NAME = re.compile(r"[A-Za-z0-9_][\w.\-]*", re.ASCII)


@dataclass(frozen=True)
class ServedModel:
    """A model of a server: one graph, or an ensemble of graphs that run one after another."""

    name: str
    graphs: tuple[Graph, ...]

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs that no earlier graph of the model takes or computes."""
        inputs: dict[str, TensorSpec] = {}
        computed: set[str] = set()
        for graph in self.graphs:
            inputs |= {spec.name: spec for spec in graph.inputs if spec.name not in computed}
            computed |= {spec.name for spec in graph.outputs}
        return tuple(inputs.values())

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The outputs of the last graph."""
        return self.graphs[-1].outputs

    @property
    def joins(self) -> bool:
        """Return whether the server may join requests: those of a graph whose tensors all begin with the batch."""
        return len(self.graphs) == 1 and batch_axis(self.graphs[0]) is not None

    def sent_shape(self, spec: TensorSpec, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape in which a tensor of `shape` is sent.

        A tensor of the batch alone, such as a time, gains an axis of 1 if its graph joins requests.
        """
        graphs = [graph for graph in self.graphs if spec in (*graph.inputs, *graph.outputs)]
        return (*shape, 1) if len(spec.axes) == 1 and any(map(batch_axis, graphs)) else shape

    def described(self, spec: TensorSpec) -> Tensor:
        """Return a tensor as a server describes it, with -1 for each free axis.

        Raises BundleError for a type that stvsr does not send.
        """
        if spec.dtype not in DATATYPES:
            raise BundleError(f"The tensor '{spec.name}' is of type {spec.dtype}: use one of {', '.join(DATATYPES)}.")
        shape = tuple(axis if isinstance(axis, int) else -1 for axis in spec.axes)
        return Tensor(DATATYPES[spec.dtype], self.sent_shape(spec, shape))


def batch_axis(graph: Graph) -> str | None:
    """Return the free axis that comes first in every tensor of a graph; None if they do not share one."""
    first = {spec.axes[0] if spec.axes else None for spec in (*graph.inputs, *graph.outputs)}
    axis = first.pop() if len(first) == 1 else None
    return axis if isinstance(axis, str) and axis.isidentifier() else None


def graph_model(manifest: Manifest, role: Role) -> ServedModel:
    """Return the model of one graph. Raises BundleError if the bundle's name cannot be that of a model."""
    graph = next(graph for graph in manifest.graphs if graph.role == role)
    return ServedModel(_name(manifest) if role == "network" else f"{_name(manifest)}-{role}", (graph,))


def ensemble_model(manifest: Manifest, role: Role) -> ServedModel:
    """Return the ensemble that ends with a decoder: the encoder, the refiner if the bundle has one, and the decoder."""
    suffix = "-integer" if role == "integer_decoder" else ""
    steps = ("encoder", "refiner", role)
    graphs = sorted((g for g in manifest.graphs if g.role in steps), key=lambda graph: steps.index(graph.role))
    return ServedModel(f"{_name(manifest)}{suffix}", tuple(graphs))


def served_models(manifest: Manifest) -> tuple[ServedModel, ...]:
    """Return every model of a bundle: those of its graphs, then the ensembles."""
    roles = [graph.role for graph in manifest.graphs]
    graphs = [graph_model(manifest, role) for role in roles]
    return (*graphs, *(ensemble_model(manifest, role) for role in roles if role.endswith("decoder")))


def _name(manifest: Manifest) -> str:
    if not _NAME.fullmatch(manifest.name):
        raise BundleError(
            f"A model on a server cannot be named '{manifest.name}' like its bundle: use letters, digits, '.', '_' and"
            " '-' in the name that the bundle's manifest holds."
        )
    return manifest.name
