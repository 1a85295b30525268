"""A policy's weights on their way into another program's model: by name, adapters merged; and whether they arrived."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rrl.errors import ConfigError
from rrl.functional import token_logprobs
from rrl.training.anatomy import accepted, unwrapped
from rrl.training.tokens import embedded

PROBE = (4, 12)
"""Rows and tokens whose log-probabilities are compared after a hand-over."""


class HandOver(NamedTuple):
    """A hand-over: the norm of the weights sent and of the policy's, and the difference of log-probabilities after it.

    The difference is the mean over fixed tokens, in nats.
    """

    sent: float
    whole: float
    difference: float

    def fault(self, tolerance: float, engine: str = "engine", finer: str = "engine.dtype=float32") -> str | None:
        """What is wrong with it, if anything; a number that is none is. ``finer`` makes ``engine`` more exact."""
        if self.difference <= tolerance and math.isclose(self.sent, self.whole, rel_tol=1e-5):
            return None
        return (
            f"{engine}: after weights were handed over, its log-probabilities of fixed tokens differ from the policy's "
            f"by {self.difference:.3g} nats, and the weights sent have the norm {self.sent:.7g}, the policy's "
            f"{self.whole:.7g}; expected at most {tolerance:g} nats (engine.tolerance) and equal norms; try "
            f"{finer}: if they differ then too, vLLM left a weight out; use engine=auto; if not, raise engine.tolerance"
        )


def weights_of(model: Any) -> Iterator[tuple[str, Tensor]]:
    """The weights by transformers' names, with adapters merged into them; the model stays as it is."""
    bare = unwrapped(model)
    whole = dict(bare.named_parameters(remove_duplicate=False))
    places = Counter(weight.data_ptr() for weight in whole.values() if weight.numel())
    if tied := [name for name, weight in whole.items() if ".base_layer." in name and places[weight.data_ptr()] > 1]:
        raise ConfigError(
            f"lora.target_modules: {tied[0].partition('.base_layer')[0]} shares its weights with another layer, so "
            "that its adapter cannot be merged into them; leave it out, or use engine=auto"
        )
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


def probed(model: Any) -> tuple[Tensor, Tensor]:
    """Fixed tokens, ``PROBE``, and the model's log-probabilities of all of each row but the first."""
    tokens, logits = probe_logits(model)
    return tokens, token_logprobs(logits[:, :-1], tokens[:, 1:])


def probe_logits(model: Any) -> tuple[Tensor, Tensor]:
    """Fixed tokens, ``PROBE``, and the model's logits [rows, tokens, vocabulary] behind each of them."""
    tokens = torch.randint(embedded(model), PROBE, generator=torch.Generator().manual_seed(0))
    read = tokens.to(model.device)
    inputs = {"input_ids": read, "attention_mask": torch.ones_like(read), "use_cache": False}
    return tokens, model(**accepted(model, inputs)).logits.float().cpu()


def scored(engine: Any, rows: Sequence[Sequence[int]], how: Any) -> list[list[float]]:
    """vLLM's log-probability of every token of the rows but their first, asked for by its settings ``how``."""
    outputs = engine.generate([{"prompt_token_ids": row} for row in rows], how, use_tqdm=False)
    return [
        [found[token].logprob for token, found in zip(row[1:], output.prompt_logprobs[1:], strict=True)]
        for row, output in zip(rows, outputs, strict=True)
    ]
