r"""Dialogues as HH-RLHF writes them: turns that begin with ``\n\nHuman:`` or ``\n\nAssistant:``."""

import re
from collections.abc import Mapping

HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
_ROLES = {HUMAN: "user", ASSISTANT: "assistant"}
_MARKS = re.compile(f"{HUMAN}|{ASSISTANT}")


def split_answer(dialogue: str) -> tuple[str, str] | None:
    """The prompt, up to and with the last ``\\n\\nAssistant:``, and the text behind it; None without one."""
    prompt, mark, answer = dialogue.rpartition(ASSISTANT)
    return (prompt + mark, answer) if mark else None


def turns(prompt: str) -> tuple[Mapping[str, str], ...]:
    """The turns of a prompt as chat messages ``{"role": "user", "content": ...}``, without a last one that is empty.

    Text before the first mark, or without any, is the user's. Turns of one side that follow each other are joined by a
    blank line, since chat templates expect the sides to alternate.
    """
    marks = list(_MARKS.finditer(prompt))
    ends = [mark.start() for mark in marks] + [len(prompt)]
    parts = [("user", prompt[: ends[0]].strip())]
    for mark, end in zip(marks, ends[1:], strict=True):
        parts.append((_ROLES[mark[0]], prompt[mark.end() : end].strip()))
    messages: list[dict[str, str]] = []
    for role, content in (part for part in parts if part[1]):
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += f"\n\n{content}"
        else:
            messages.append({"role": role, "content": content})
    return tuple(messages)


def first_answer(response: str) -> str:
    """A response up to its next turn, without blanks around it."""
    return _MARKS.split(response, maxsplit=1)[0].strip()
