"""A local server that speaks the chat-completions protocol and misbehaves on demand, and a judge that asks it."""

import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from rrl.judges.openai import OpenAIJudge
from rrl.overrides import conf_dir
from rrl.types import Comparison

KEY = "sk-fake-4b2d9c7e51"
TEMPLATE = "Q:{question}\nFIRST:{first}\nSECOND:{second}\nEnd with Verdict: A, Verdict: B or Verdict: tie"
Fault = Callable[["Handler"], None]


class ChatServer(ThreadingHTTPServer):
    """Prefers the answer that names the larger number; ``faults`` are what it does instead, one a request, in order.

    ``seen`` are the bodies of all requests in the order in which they came, ``keys`` their Authorization headers.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults: list[Fault | None] = []
        self.verdict: Callable[[str, str], str] = larger
        self.seen: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.released = threading.Event()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """The base of its addresses."""
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: whoever asked has gone, as was meant."""


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: ChatServer

    def do_POST(self) -> None:
        """Answer, or do what the next fault says."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            self.server.seen.append({"path": self.path, **body})
            self.server.keys.append(self.headers.get("authorization"))
            fault = self.server.faults.pop(0) if self.server.faults else None
        if fault is not None:
            fault(self)
            return
        first, second = answers_in(body["messages"][-1]["content"])
        self.chat(f"Thinking of it.\nVerdict: {self.server.verdict(first, second)}\n")

    def chat(self, text: str) -> None:
        """A chat completion, for which 100 and 10 tokens are counted."""
        usage = {"prompt_tokens": 100, "completion_tokens": 10}
        self.send(200, {"choices": [{"message": {"role": "assistant", "content": text}}], "usage": usage})

    def send(self, status: int, content: Any, headers: Mapping[str, str] | None = None) -> None:
        """JSON, or bytes as they are."""
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"content-length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def answers_in(prompt: str) -> tuple[str, str]:
    """Both answers, from a prompt by our template or by the shipped one."""
    ours, shipped = r"FIRST:(.*)\nSECOND:(.*)", r"\[Answer A \w+\]\n(.*)\n\[End of.*\[Answer B \w+\]\n(.*)\n\[End of"
    found = re.search(ours, prompt) or re.search(shipped, prompt, re.DOTALL)
    assert found is not None, prompt
    return found[1], found[2]


def larger(first: str, second: str) -> str:
    """The verdict of a judge who likes numbers."""
    a, b = (int(re.sub(r"\D", "", text) or 0) for text in (first, second))
    return "A" if a > b else "B" if b > a else "tie"


def status(code: int, content: Any = b"{}", **headers: str) -> Fault:
    """Refuse."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler: handler.send(code, content, named)


def says(text: str | None) -> Fault:
    """Answer this."""
    return lambda handler: handler.chat(text)  # type: ignore[arg-type]


def hang(handler: Handler) -> None:
    """Say nothing until the test is over."""
    handler.server.released.wait(20)


def drip(handler: Handler) -> None:
    """Begin to answer, and go on for ever, a byte at a time."""
    handler.send_response(200)
    handler.end_headers()
    while not handler.server.released.wait(0.02):
        handler.wfile.write(b" ")
        handler.wfile.flush()


def reset(handler: Handler) -> None:
    """Break the connection off."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


@contextmanager
def serving() -> Iterator[ChatServer]:
    """A server in a thread."""
    server = ChatServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    """A judge's endpoint; no proxy stands between."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with serving() as started:
        yield started


def judge_of(url: str, folder: Path, **changes: Any) -> OpenAIJudge:
    """The shipped settings, one request at a time and without waits; ``changes`` take their place."""
    shipped = yaml.safe_load((conf_dir() / "judge" / "openai.yaml").read_text(encoding="utf-8"))
    quick = {"parallel": 1, "requests_per_minute": None, "retries": 2, "backoff": 0.0, "timeout": 5.0}
    own = {"base_url": url, "model": "some-judge", "template": TEMPLATE, "cache_dir": str(folder), "seed": 0}
    return OpenAIJudge(**{name: value for name, value in shipped.items() if name != "_target_"} | quick | own | changes)


def comparisons(*pairs: tuple[int, int]) -> list[Comparison]:
    """Questions whose answers are these numbers."""
    return [Comparison(f"question {i}", f"It is {a}.", f"It is {b}.") for i, (a, b) in enumerate(pairs)]
