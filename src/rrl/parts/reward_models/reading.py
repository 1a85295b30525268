"""The text of a prompt with a response for a reward model, and its tokens; its end is never cut off."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Literal

from torch import Tensor

from rrl.collate import pad_right
from rrl.errors import DataError
from rrl.processes.distributed import device
from rrl.ranges import at_least_one, check_ranges
from rrl.records.pulse import beat
from rrl.training.templates import rendered
from rrl.verifiers.dialogues import turns

log = logging.getLogger(__name__)
ANY_DAY = datetime(2024, 7, 26, tzinfo=timezone.utc)
"""The date in a chat template that writes one: a reward must not depend on the day. (It is Llama 3's own default.)"""
Rows = list[list[int]]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The text of a pair and its tokens.

    ``layout`` plain puts a blank between prompt and response; chat makes turns of the prompt and puts them, with the
    response as the last one, into the tokenizer's chat template. A text of more than ``max_length`` tokens, or than
    the model can take, loses its beginning: the response survives.
    """

    layout: Literal["plain", "chat"]
    max_length: int

    def __post_init__(self) -> None:
        check_ranges(self, at_least_one("max_length"))

    def tokens(self, pairs: Sequence[tuple[str, str]], tokenizer: Any, context: int, count: "Count") -> Rows:
        """The token ids of each pair, at most ``context``, cut on the left; adds to ``count``."""
        if not pairs:
            return []
        texts = [self._text(prompt, response, tokenizer) for prompt, response in pairs]
        limit = min(self.max_length, context)
        special = self.layout == "plain"  # a chat template writes its own
        tokenizer.truncation_side = "left"
        whole: Rows = tokenizer(texts, add_special_tokens=special, verbose=False).input_ids
        long = [i for i, row in enumerate(whole) if len(row) > limit]
        for i in long:
            whole[i] = tokenizer(texts[i], add_special_tokens=special, truncation=True, max_length=limit).input_ids
        count.add(len(whole), len(long), limit)
        return whole

    def _text(self, prompt: str, response: str, tokenizer: Any) -> str:
        if self.layout == "plain":
            return f"{prompt} {response}" if prompt else response
        if not tokenizer.chat_template:
            raise DataError("reading.layout: 'chat', but this tokenizer has no chat template; expected plain")
        conversation = [*turns(prompt), {"role": "assistant", "content": response}]
        return rendered(tokenizer, conversation, ANY_DAY)


def context_of(model: Any, tokenizer: Any) -> int:
    """How many tokens a model can take."""
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 10**9
    return int(min(longest, tokenizer.model_max_length))


def batches(rows: Sequence[Sequence[int]], size: int, pad: int) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Rows of like length together: their places in ``rows``, token ids and attention [batch, time], padded right."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    for begin in range(0, len(rows), size):
        places = order[begin : begin + size]
        yield (places, *on_device([rows[i] for i in places], pad))
        beat()


def on_device(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Token ids and attention [batch, time] on this process's device, padded on the right."""
    tokens, real = pad_right(rows, pad)
    return tokens.to(device()), real.long().to(device())


class Count:
    """The numbers of texts that were read and that were cut; logs a warning at the first cut."""

    def __init__(self) -> None:
        self.texts = self.cut = 0

    def add(self, texts: int, cut: int, limit: int) -> None:
        """So many more."""
        if cut and not self.cut:
            log.warning(
                "reward model: %d of %d texts are longer than %d tokens; their beginning is cut", cut, texts, limit
            )
        self.texts, self.cut = self.texts + texts, self.cut + cut
