"""The methods of adaptation, and those that serve a network."""

from ..networks.adavsr import SpatialModule
from ..networks.base import Network
from ..networks.cascade import AdaVSR
from ..networks.dtsr import DeepTemporalSR
from .distillation import Distillation
from .internal import InternalLearning
from .restore import enlarges
from .selfsupervised import SelfSupervised
from .zeroshot import ZeroShot

METHODS = (SelfSupervised.name, Distillation.name, InternalLearning.name, ZeroShot.name)


def methods_for(network: Network) -> tuple[str, ...]:
    """Return the names of the methods that serve a network; the first one is its default."""
    if isinstance(network, DeepTemporalSR):
        return (ZeroShot.name,)
    if isinstance(network, AdaVSR) or not enlarges(network):
        return (InternalLearning.name,)
    if isinstance(network, SpatialModule):  # meta-trained for it
        return InternalLearning.name, SelfSupervised.name, Distillation.name
    return SelfSupervised.name, Distillation.name, InternalLearning.name
