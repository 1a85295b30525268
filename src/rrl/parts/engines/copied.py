"""The reference engine on a copy of the weights in a precision of its own."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from rrl.interfaces import WeightSource
from rrl.parts.engines.static import AutoHF
from rrl.training.networks import in_precision


@dataclass(kw_only=True)
class CopiedHF(AutoHF):
    """Writes with a copy of the model in precision ``dtype``, refreshed whenever the policy's version has moved."""

    dtype: Literal["float32", "bfloat16"]
    _copy: Any = field(init=False, default=None)
    _copied_version: int = field(init=False, default=-1)

    is_exact = False

    def start(self, source: WeightSource, tokenizer: Any, seed: int) -> None:
        super().start(source, tokenizer, seed)
        self._copy, self._copied_version = None, -1

    @contextmanager
    def _model(self) -> Iterator[Any]:
        with super()._model() as live:
            if self._copied_version != self._source.version:
                self._copy = in_precision(copy.deepcopy(live), self.dtype).eval()
                self._copied_version = self._source.version
            yield self._copy
