"""Rows that a causal language model writes on token by token, and what it remembers of them between tokens."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rrl.collate import pad_left
from rrl.training.anatomy import accepted, unwrapped

MEMORIES = ("past_key_values", "cache_params", "state")
"""What transformers' models call their memory of the tokens that they have read, in arguments and in outputs."""


class Decoding:
    """A batch of rows in the hands of a model, padded on the left.

    The model makes its memory itself, whatever it is: keys and values, states of convolutions and recurrences. One that
    has none reads its rows anew for every token.
    """

    def __init__(self, model: Any, rows: Sequence[Sequence[int]], pad: int) -> None:
        self._model = unwrapped(model)
        tokens, real = pad_left(rows, pad)
        self._tokens, self._attention = tokens.to(model.device), real.long().to(model.device)
        self._memory: dict[str, Any] = {}
        self._last = self._attention.shape[1] - 1

    def logits(self) -> Tensor:
        """Of the next token, [rows, vocabulary], in float32."""
        begun = bool(self._memory)
        inputs = self._model.prepare_inputs_for_generation(
            self._tokens,
            next_sequence_length=1 if begun else None,
            attention_mask=self._attention,
            position_ids=(self._attention.cumsum(-1) - 1).clamp(min=0, max=self._last),
            use_cache=True,
            is_first_iteration=not begun,
            logits_to_keep=1,
            **self._memory,
        )
        out = self._model(**accepted(self._model, inputs))
        self._memory = {name: out[name] for name in MEMORIES if out.get(name) is not None}
        logits: Tensor = out.logits[:, -1].float()
        return logits

    def append(self, tokens: Tensor, places: Sequence[int]) -> None:
        """Let every row go on with its token of these [rows]; the rows at ``places`` count.

        No other row has a position behind theirs, which would leave the model's context.
        """
        self._tokens = torch.cat([self._tokens, tokens.unsqueeze(-1)], dim=1)
        self._attention = torch.cat([self._attention, torch.ones_like(self._attention[:, :1])], dim=1)
        self._last = max(self._attention[list(places)].sum(-1).tolist(), default=0) - 1

    def keep(self, places: Sequence[int]) -> None:
        """Go on with the rows at these places only."""
        rows, index = len(self._tokens), torch.tensor(places, dtype=torch.long, device=self._tokens.device)
        self._tokens, self._attention = self._tokens[index], self._attention[index]
        self._memory = _selected(self._memory, index, rows)


def _selected(held: Any, index: Tensor, rows: int) -> Any:
    """What is held of ``rows`` rows, of those in ``index`` alone: each tensor whose first dimension counts them."""
    if isinstance(held, Tensor):
        return held[index] if held.dim() and len(held) == rows else held
    if isinstance(held, dict):
        return {name: _selected(part, index, rows) for name, part in held.items()}
    if isinstance(held, list | tuple):
        return type(held)(_selected(part, index, rows) for part in held)
    if hasattr(held, "__dict__") and not callable(held):  # a cache or a layer of one; not a class, function or module
        for name, part in vars(held).items():
            setattr(held, name, _selected(part, index, rows))
    return held
