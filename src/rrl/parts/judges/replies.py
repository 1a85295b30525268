"""Replies of a chat-completions endpoint: read from its JSON, kept on disk by the content of what was asked."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
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


class ReplyCache:
    """One file a reply, named by the hash of everything that was asked; written aside and renamed, so it is whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, base_url: str, body: Mapping[str, Any]) -> Reply | None:
        """The reply of an earlier time; None where there is none that can be read."""
        content, _ = read_object(self._file(base_url, body))
        return Reply(**content) if content.keys() == Reply.__dataclass_fields__.keys() else None

    def keep(self, base_url: str, body: Mapping[str, Any], reply: Reply) -> None:
        """Write it down."""
        file = self._file(base_url, body)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps(asdict(reply)).encode(), durable=False)  # two processes may get the same at once

    def _file(self, base_url: str, body: Mapping[str, Any]) -> Path:
        name = fingerprint([base_url, body])
        return self._folder / name[:2] / f"{name}.json"
