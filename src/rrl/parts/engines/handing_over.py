"""A policy's weights on their way into another program's model: by name, adapters merged; and whether they arrived."""

import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rrl.training.anatomy import unwrapped


class HandOver(NamedTuple):
    """A hand-over: the norm of the weights sent and of the policy's, and the difference of log-probabilities after it.

    The difference is the mean over fixed tokens, in nats.
    """

    sent: float
    whole: float
    difference: float

    def fault(self, tolerance: float) -> str | None:
        """What is wrong with it, if anything; a number that is none is."""
        if self.difference <= tolerance and math.isclose(self.sent, self.whole, rel_tol=1e-5):
            return None
        return (
            f"engine: after weights were handed over, its log-probabilities of fixed tokens differ from the policy's "
            f"by {self.difference:.3g} nats, and the weights sent have the norm {self.sent:.7g}, the policy's "
            f"{self.whole:.7g}; expected at most {tolerance:g} nats (engine.tolerance) and equal norms; raise "
            "engine.tolerance where engine.dtype explains the difference, else use engine=auto"
        )


def weights_of(model: Any) -> Iterator[tuple[str, Tensor]]:
    """The weights by transformers' names, with adapters merged into them; the model stays as it is."""
    bare = unwrapped(model)
    for name, weight in bare.named_parameters():
        path, _, leaf = name.rpartition(".")
        if ".lora_" in name:
            continue
        if not path.endswith(".base_layer"):
            yield name, weight.detach()
            continue
        path = path.removesuffix(".base_layer")
        layer = bare.get_submodule(path)
        delta = layer.get_delta_weight(layer.active_adapters[0]) if leaf == "weight" else 0
        yield f"{path}.{leaf}", weight.detach() + delta


def norm(weights: Iterable[tuple[str, Tensor]]) -> float:
    """The Euclidean norm of all weights together."""
    return math.hypot(*(float(torch.linalg.vector_norm(weight.float())) for _, weight in weights))
