"""A program and one input as bytes, in parts that can be passed on unread."""

import json
import struct
from typing import Any

HEAD = struct.Struct("!II")
"""The length of the source, and of the call."""


def packed(source: str, function: str | None, given: Any) -> bytes:
    """A request to a server: the source, the call of a function or nothing, and the text of standard input."""
    call = b"" if function is None else json.dumps([function, given]).encode()
    text = source.encode("utf-8", "surrogatepass")
    read = given.encode("utf-8", "surrogatepass") if function is None else b""
    return b"".join((HEAD.pack(len(text), len(call)), text, call, read))


def split(request: bytes) -> tuple[memoryview, memoryview]:
    """The part with source and call, and the text of standard input."""
    size = HEAD.size + sum(HEAD.unpack_from(request))
    return memoryview(request)[:size], memoryview(request)[size:]


def program(given: bytes) -> tuple[str, Any]:
    """The source, and None or the call: a function and its arguments."""
    end = HEAD.size + HEAD.unpack_from(given)[0]
    source = given[HEAD.size : end].decode("utf-8", "surrogatepass")
    return source, json.loads(given[end:]) if given[end:] else None
