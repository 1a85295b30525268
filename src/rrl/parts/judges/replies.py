"""Replies of a chat-completions endpoint: read from its JSON, kept on disk by the request's content, and counted."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rrl.records.files import read_object, write_whole
from rrl.records.fingerprints import fingerprint


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, and the tokens that the endpoint counted for it (0 where it reports none)."""

    text: str
    prompt_tokens: int
    completion_tokens: int


def read_reply(content: bytes) -> Reply:
    """The first choice's message. Raises ValueError for anything but a chat completion."""
    answer = json.loads(content)
    try:
        text = answer["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError("JSON without choices[0].message.content") from error
    if not isinstance(text, str | None):
        raise ValueError("choices[0].message.content is no text")
    usage = answer.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    return Reply(text or "", _count(counts.get("prompt_tokens")), _count(counts.get("completion_tokens")))


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def reply_file(folder: Path, base_url: str, body: Mapping[str, Any]) -> Path:
    """The file of the reply to a request, named by the hash of everything in it."""
    name = fingerprint([base_url, body])
    return folder / name[:2] / f"{name}.json"


def kept_reply(file: Path) -> Reply | None:
    """The reply in a file; None where there is none that can be read."""
    content, _ = read_object(file)
    return Reply(**content) if content.keys() == Reply.__dataclass_fields__.keys() else None


def keep_reply(file: Path, reply: Reply) -> None:
    """Write the reply, whole even if two processes write it at once."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, json.dumps(asdict(reply)).encode(), durable=False)


@dataclass
class Ledger:
    """Counts replies: those paid for now, those kept from before, and failures by reason.

    Prices are of a million tokens in one currency; None where they are not known.
    """

    price_prompt: float | None
    price_completion: float | None
    paid: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)

    def count(self, reply: Reply, *, kept: bool) -> None:
        """Add a reply."""
        side = self.kept if kept else self.paid
        side.update(replies=1, prompt=reply.prompt_tokens, completion=reply.completion_tokens)

    def summary(self) -> dict[str, Any]:
        """Plain data; ``cost`` is in the currency of the prices."""
        sides = {"paid_now": self._side(self.paid), "kept_from_before": self._side(self.kept)}
        return {**sides, "failures": dict(self.failures)}

    def _side(self, tokens: Counter[str]) -> dict[str, Any]:
        prompt, completion, cost = tokens["prompt"], tokens["completion"], None
        if self.price_prompt is not None and self.price_completion is not None:
            cost = (prompt * self.price_prompt + completion * self.price_completion) / 1e6
        return {"replies": tokens["replies"], "prompt_tokens": prompt, "completion_tokens": completion, "cost": cost}
