"""Keeps secrets out of files, logs and messages: the name of the environment variable is shown instead.

A secret is the value of an environment variable with a name that ends in KEY, TOKEN, SECRET, PASSWORD or the like, if
it has at least ``SHORTEST_SECRET`` characters. A written configuration refers to the variable instead.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

SECRET = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL)S?(_?\d+)?$", re.IGNORECASE)
SHORTEST_SECRET = 8
"""Characters; a shorter value, such as ``1``, would match ordinary text."""
TYPED = re.compile(
    r"(^|[_.-])((api|access|secret|private)[_-]?key|password|passwd|passphrase|secret|credentials?|authorization"
    r"|(auth|access|api|hf|hub|bearer)[_-]?token)$|(^|\.)token$",
    re.IGNORECASE,
)
"""Keys of a configuration with secret texts."""
IN_ADDRESS = re.compile(r"://[^/\s:@]*:(?P<password>[^/\s@]+)@|[?&](api_?key|token|secret|password)=(?P<value>[^&\s]+)")


def redacted(text: str) -> str:
    """The text with ``<NAME>`` in place of the values of secret environment variables."""
    return _replacer("<{}>".format)(text)


def hidden(node: Any) -> Any:
    """Plain data with every text in it redacted."""
    return _mapped(node, _replacer("<{}>".format))


def referenced(node: Any) -> Any:
    """A configuration with references to secret environment variables in place of their values."""
    return _mapped(node, _replacer("${{oc.env:{}}}".format))


def exposed_secrets(entries: Mapping[str, Any]) -> list[str]:
    """Faults for secrets written in a configuration (its values by dotted key) instead of the environment."""
    show = _replacer("<{}>".format)
    texts = {key: show(value) for key, value in entries.items() if isinstance(value, str)}
    return [
        f"{key}: a secret, which would get into files and process lists; expected it in an environment variable with a "
        f"name that ends in KEY, TOKEN, SECRET or PASSWORD; export NAME_KEY=... and give '{key}={remedy}'"
        for key, text in texts.items()
        for remedy in _remedies(key, text)
    ]


def _remedies(key: str, text: str) -> Iterator[str]:
    """What to write instead of the secret."""
    if TYPED.search(key) and text and not re.search(r"<\w+>", text):
        yield "${oc.env:NAME_KEY}"
    elif any(not re.fullmatch(r"<\w+>", found["password"] or found["value"]) for found in IN_ADDRESS.finditer(text)):
        yield "...${oc.env:NAME_KEY}..."


def _replacer(shown: Callable[[str], str]) -> Callable[[str], str]:
    """A function that replaces each secret of the environment, in all its spellings, by ``shown`` of its name.

    Longer secrets are replaced first.
    """
    named = {value: name for name, value in os.environ.items() if SECRET.search(name) and len(value) >= SHORTEST_SECRET}
    forms = {form: name for value, name in named.items() for form in (quote(value, safe=""), repr(value)[1:-1], value)}
    found = "|".join(map(re.escape, sorted(forms, key=len, reverse=True)))
    return lambda text: re.sub(found, lambda match: shown(forms[match[0]]), text) if found else text


def _mapped(node: Any, change: Callable[[str], str]) -> Any:
    if isinstance(node, str):
        return change(node)
    if isinstance(node, Mapping):
        return {_mapped(key, change): _mapped(item, change) for key, item in node.items()}
    if isinstance(node, list | tuple):
        return [_mapped(item, change) for item in node]
    return node
