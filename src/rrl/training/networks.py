"""Actor and critic as plain modules around a causal language model of transformers."""

import copy
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from rrl.records.pulse import beat
from rrl.training.anatomy import hidden_width, trunk_of
from rrl.training.packing import hidden_states
from rrl.training.reading import read


class Actor(nn.Module):
    """Log-probabilities of given tokens and, with a head on the shared trunk, values.

    ``temperature`` divides the logits; ``head_size`` is the value head's hidden width (None: no head);
    ``value_trunk_grad_scale`` scales the gradient that values send into the trunk; without ``pays_entropy`` entropies
    have no gradient.
    """

    def __init__(
        self,
        model: Any,
        temperature: float,
        *,
        head_size: int | None = None,
        value_trunk_grad_scale: float = 0.0,
        pays_entropy: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.head = None if head_size is None else value_head(hidden_width(model), head_size)
        self.detach_trunk = False
        self._temperature, self._value_trunk_grad_scale = temperature, value_trunk_grad_scale
        self._pays_entropy = pays_entropy

    def forward(self, tokens: Tensor, attention: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Log-probabilities, entropies and values (or None), [batch, time] each, from right-padded rows.

        Logits are computed only from the first column with an action on; results before it are zero.
        """
        first = int(mask.any(0).nonzero().min())
        seen = read(self.model, tokens, attention, first, self._temperature, pays_entropy=self._pays_entropy)
        beat()
        before = tokens.new_zeros(len(tokens), first, dtype=torch.float32)
        logprobs, entropies = (torch.cat([before, column], dim=1) for column in seen[:2])
        values = None if self.head is None else torch.cat([before, self._values(seen.hidden)], dim=1)
        return logprobs, entropies, values

    def _values(self, hidden: Tensor) -> Tensor:
        scale = 0.0 if self.detach_trunk else self._value_trunk_grad_scale
        hidden = scale * hidden + (1 - scale) * hidden.detach()
        return cast(Tensor, cast(nn.Module, self.head)(hidden)).squeeze(-1).float()


class Critic(nn.Module):
    """A separate value network: a copy of the model's trunk and a head that begins at zero."""

    def __init__(self, model: Any, head_size: int) -> None:
        super().__init__()
        self.trunk = copy.deepcopy(trunk_of(model))
        self.head = value_head(hidden_width(model), head_size)

    def forward(self, tokens: Tensor, attention: Tensor) -> Tensor:
        """Values [batch, time] of the states in which each token was chosen; zero for the first token."""
        _, hidden = hidden_states(self.trunk, tokens, attention)
        after = self.head(hidden).squeeze(-1).float()  # the value after token t-1 stands at t, where token t is chosen
        return torch.cat([torch.zeros_like(after[:, :1]), after[:, :-1]], dim=1)


def value_head(width: int, hidden: int) -> nn.Module:
    """Hidden state to one number: linear, or with a tanh layer in between; its output begins at zero."""
    last = nn.Linear(hidden or width, 1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    if not hidden:
        return last
    first = nn.Linear(width, hidden)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first.reset_parameters()
    return nn.Sequential(first, nn.Tanh(), last)


def dropout_off(model: nn.Module) -> None:
    """Switch dropout off: with it, the probabilities of the same tokens would differ from pass to pass.

    Besides dropout modules this covers attributes such as ``attention_dropout`` and ``layerdrop``.
    """
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if "drop" in name and isinstance(value, float):
                setattr(module, name, 0.0)


def skeleton(model: nn.Module, device: torch.device) -> nn.Module:
    """A copy of the model without weights (they are on the meta device), for use with weights by ``lend``."""
    bare = copy.deepcopy(model).eval()
    lend(bare, {name: p.to("meta") for name, p in bare.named_parameters(remove_duplicate=False)})
    for module in bare.modules():
        module._buffers |= {name: buffer.to(device) for name, buffer in module._buffers.items() if buffer is not None}
    return bare


def on_meta(model: nn.Module) -> Any:
    """A copy of the model for counting parameters: its weights are on the meta device, and none is copied."""
    shapes = {id(p): nn.Parameter(p.data.to("meta"), requires_grad=p.requires_grad) for p in model.parameters()}
    return copy.deepcopy(model, dict[int, Any](shapes))


def lend(bare: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Make the copy use these weights, by name; nothing is copied."""
    for name, weight in weights.items():
        path, _, leaf = name.rpartition(".")
        bare.get_submodule(path)._parameters[leaf] = nn.Parameter(weight.data, requires_grad=False)


def in_precision(module: nn.Module, dtype: str) -> nn.Module:
    """The module with its weights in ``dtype``; buffers stay: rotary frequencies are too imprecise in bfloat16."""
    for parameter in module.parameters():
        parameter.data = parameter.data.to(getattr(torch, dtype))
    return module
