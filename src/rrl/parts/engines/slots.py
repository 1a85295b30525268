"""Rows that a causal language model writes on together, in a key-value cache that is allocated once."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer

from rrl.collate import pad_left
from rrl.training import attention
from rrl.training.anatomy import accepted, unwrapped

PIECE, FASTER = 2048, 16
"""Tokens that a CPU reads at once, so that its caches hold them better, and how many times as many other devices do."""

attention.take_place()


class Columns(CacheLayerMixin):  # type: ignore[misc]
    """A layer's keys and values [rows, heads, capacity, width]; the columns from ``begin`` to ``end`` are in use.

    New columns are written in place; whoever reads gets a view.
    """

    def __init__(self, rows: int, capacity: int) -> None:
        super().__init__()
        self.rows, self.capacity, self.begin, self.end = rows, capacity, 0, 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate both; zeros, since 0 * NaN of unwritten memory would reach the masked sums."""
        self.keys, self.values = (
            states.new_zeros(self.rows, states.shape[1], self.capacity, states.shape[3])
            for states in (key_states, value_states)
        )
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write these columns behind the others; returns all that are used."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, self.end = self.end, self.end + key_states.shape[2]
        self.keys[:, :, start : self.end] = key_states
        self.values[:, :, start : self.end] = value_states
        return self.keys[:, :, self.begin : self.end], self.values[:, :, self.begin : self.end]

    def put(self, rows: Tensor, columns: slice, other: "Columns", theirs: Tensor) -> None:
        """Take over the other's rows ``theirs``, as these rows and columns."""
        if not self.is_initialized:
            self.lazy_initialization(other.keys, other.values)
        self.keys[rows, :, columns] = other.keys[theirs]
        self.values[rows, :, columns] = other.values[theirs]

    def move(self, old: slice, new: slice) -> None:
        """Copy columns to another place."""
        if self.is_initialized:
            self.keys[:, :, new] = self.keys[:, :, old].clone()
            self.values[:, :, new] = self.values[:, :, old].clone()

    def keep(self, rows: Tensor) -> None:
        """Keep these rows only."""
        if self.is_initialized:
            self.keys, self.values = self.keys[rows], self.values[rows]

    def get_seq_length(self) -> int:
        """The number of columns in use."""
        return self.end - self.begin

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """The number of columns that attention will see, and the first one's place."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """The number of columns in all."""
        return self.capacity


def unheld(model: Any) -> str | None:
    """Why the model's memory is not held in ``Columns``; None where it is."""
    model = unwrapped(model)
    kinds = {type(layer) for layer in DynamicCache(config=model.config.get_text_config(decoder=True)).layers}
    others = sorted(kind.__name__ for kind in kinds - {DynamicLayer, DynamicSlidingWindowLayer})
    if others or model._is_stateful:
        return f"{type(model).__name__} (its memory: {', '.join(others) or 'states of recurrences'})"
    if "past_key_values" not in accepted(model, {"past_key_values": None}):
        return f"{type(model).__name__} (it remembers nothing)"
    return None


class Slots:
    """Up to ``rows`` rows of at most ``capacity`` tokens, all of which end in the same column of one memory.

    Behind its last column, the columns in use move to the front: seldom where rows are shorter than ``capacity``.
    Rows that enter are read by forward passes of their own, equal ones once, and their keys and values are copied in
    front of that column. A row's tokens are contiguous, so that models with absolute positions or sliding windows see
    what they see in a batch padded on the left.
    """

    def __init__(self, model: Any, rows: int, capacity: int, pad: int) -> None:
        self._model, self._pad = unwrapped(model), pad
        self._cache = Cache(layer_class_to_replicate=partial(Columns, rows, capacity))
        self._real = torch.zeros(rows, capacity, dtype=torch.bool, device=self._model.device)
        self._lengths = torch.zeros(rows, dtype=torch.long, device=self._model.device)
        self._starts: dict[int, int] = {}
        self._end = 0

    def enter(self, places: Sequence[int], contexts: Sequence[Sequence[int]]) -> Tensor:
        """Read these contexts as the rows at these places; returns the logits of the next token, [rows, vocabulary]."""
        at: dict[tuple[int, ...], list[int]] = {}
        for number, context in enumerate(contexts):
            at.setdefault(tuple(context), []).append(number)
        waiting = sorted(at, key=len, reverse=True)  # after the longest no other moves the columns
        size = max(1, PIECE * (1 if self._model.device.type == "cpu" else FASTER) // len(waiting[0]))
        rows, logits = list[int](), list[Tensor]()
        for piece in (waiting[begin : begin + size] for begin in range(0, len(waiting), size)):
            repeated = [(context, number) for context in piece for number in at[context]]
            rows += [number for _, number in repeated]
            logits.append(self._read(piece, [(piece.index(context), places[number]) for context, number in repeated]))
        return torch.cat(logits)[torch.tensor(rows).argsort()]

    def _read(self, contexts: Sequence[Sequence[int]], places: Sequence[tuple[int, int]]) -> Tensor:
        """Read rows, and copy what is remembered of each to its places; returns the logits of each place."""
        tokens, real = (x.to(self._model.device) for x in pad_left(contexts, self._pad))
        same, index = torch.tensor(places, device=self._model.device).unbind(1)
        rows, width = tokens.shape
        read = Cache(layer_class_to_replicate=partial(Columns, rows, width))
        logits = self._logits(tokens, real, read, first=True)
        if width > self._end:
            self._move(width - self._end)
        columns = slice(self._end - width, self._end)
        for layer, newcomers in zip(self._layers(len(read.layers)), read.layers, strict=True):
            if newcomers.is_initialized:
                layer.put(index, columns, newcomers, same)
        self._real[index] = False
        self._real[index, columns] = real[same]
        self._lengths[index] = real.sum(-1)[same]
        self._starts |= {place: self._end - len(contexts[number]) for number, place in places}
        return logits[same]

    def leave(self, places: Sequence[int]) -> None:
        """Free the places of these rows."""
        for place in places:
            del self._starts[place]

    def step(self, tokens: Tensor) -> Tensor:
        """Let every row go on with its token of these [rows]; returns the logits of the next, [rows, vocabulary].

        Rows at free places get logits without a meaning.
        """
        begin = min(self._starts.values())
        if self._end == self._real.shape[1]:
            self._move(-begin)
            begin = 0
        self._real[:, self._end] = True
        self._use(begin)
        real = self._real[:, begin : self._end + 1]
        positions = self._lengths.clamp(max=self._end - begin)  # at free places they would leave the model's context
        logits = self._logits(tokens.unsqueeze(-1), real, self._cache, first=False, positions=positions.unsqueeze(-1))
        self._end += 1
        self._lengths += 1
        return logits

    def keep(self, places: Sequence[int]) -> None:
        """Go on with the rows at these places only, which are then the first ones."""
        index = torch.tensor(places, device=self._model.device)
        self._real, self._lengths = self._real[index], self._lengths[index]
        self._starts = {new: self._starts[old] for new, old in enumerate(places)}
        for layer in self._layers(0):
            layer.keep(index)

    def _use(self, begin: int) -> None:
        """Let the layers work with the columns from this one on."""
        for layer in self._layers(0):
            layer.begin, layer.end = begin, self._end

    def _logits(
        self, tokens: Tensor, real: Tensor, cache: Cache, *, first: bool, positions: Tensor | None = None
    ) -> Tensor:
        inputs = self._model.prepare_inputs_for_generation(
            tokens,
            next_sequence_length=tokens.shape[1],
            attention_mask=real.long(),
            position_ids=(real.cumsum(-1) - 1).clamp(min=0) if positions is None else positions,
            past_key_values=cache,
            use_cache=True,
            is_first_iteration=first,
            logits_to_keep=1,
        )
        logits: Tensor = self._model(**accepted(self._model, inputs)).logits[:, -1].float()
        return logits

    def _layers(self, least: int) -> Sequence[Columns]:
        """The layers of the memory, at least so many."""
        while len(self._cache.layers) < least:
            self._cache.layers.append(self._cache.layer_class_to_replicate())
        layers: Sequence[Columns] = self._cache.layers
        return layers

    def _move(self, columns: int) -> None:
        """Move everything that is in use by so many columns, to the right or, below zero, to the left."""
        old = slice(min(self._starts.values(), default=self._end), self._end)
        new = slice(old.start + columns, old.stop + columns)
        real = self._real[:, old].clone()
        self._real[:] = False
        self._real[:, new] = real
        for layer in self._layers(0):
            layer.move(old, new)
        self._starts = {place: start + columns for place, start in self._starts.items()}
        self._end += columns
