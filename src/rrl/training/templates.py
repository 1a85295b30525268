"""Chat templates rendered reproducibly: the text depends only on the conversation and a given moment."""

import random
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

FORMAT = "%Y-%m-%dT%H:%M:%S%z"
"""The format of a moment."""


def this_moment() -> datetime:
    """Now, with its time zone, to the second."""
    return datetime.now().astimezone().replace(microsecond=0)


def rendered(tokenizer: Any, turns: Sequence[Mapping[str, str]], moment: datetime, **how: Any) -> str:
    """The conversation in the tokenizer's chat template, whose clock is set to ``moment``.

    Templates write dates by ``strftime_now`` and may draw at random, here seeded by the turns. The other arguments are
    those of ``apply_chat_template``.
    """
    wall = moment.replace(tzinfo=None)  # as in transformers, whose clock has no zone

    def strftime_now(form: str) -> str:
        return wall.strftime(form.replace("%s", str(int(moment.timestamp()))))

    state = random.getstate()
    random.seed(repr(turns))
    try:
        return str(tokenizer.apply_chat_template(list(turns), tokenize=False, strftime_now=strftime_now, **how))
    finally:
        random.setstate(state)
