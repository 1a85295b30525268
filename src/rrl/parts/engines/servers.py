"""A server of vLLM: requests and their failures, the hand-over of weights by files, and what it writes with now."""

import http.client
import json
import logging
import os
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor

from rrl.errors import DivergenceError, ServiceError
from rrl.parts.engines.handing_over import HandOver
from rrl.records.texts import as_json

log = logging.getLogger(__name__)
EVERY = 1.0
"""Seconds between tries to reach a server that does not answer."""
START = "start it as docs/ppo.md says: VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --tokens-only ..."
REMEDIES = {401: "set VLLM_API_KEY to the server's key", 403: START, 404: START}
PREFIX = "rrl-weights-"
"""What the names of all versions of the weights begin with."""
GENERATE = "/inference/v1/generate"
"""The path that takes and returns token ids."""


class Unanswered(Exception):
    """A failure that may pass: no connection, no answer in time, an error of the server, other weights."""


class _Broken(Unanswered):
    """An error of the server itself."""


@dataclass(frozen=True)
class WeightFiles:
    """A version of the weights, in files of ``folder``, and the policy's answers to the probe.

    ``tokens`` [rows, length] and their log-probabilities ``logprobs`` [rows, length - 1]; ``next`` [rows, vocabulary]
    are those of the token behind them, at ``temperature``. ``sent`` and ``whole`` are norms as in HandOver.
    """

    folder: Path
    sent: float
    whole: float
    tokens: Tensor
    logprobs: Tensor
    next: Tensor
    temperature: float
    tolerance: float

    @property
    def name(self) -> str:
        """What a server calls this version."""
        return self.folder.name


class Server:
    """The server at ``address``; a request has failed after ``timeout`` seconds without a byte. For any thread."""

    def __init__(self, address: str, timeout: float) -> None:
        self._address, self._timeout, self._url = address, timeout, urlsplit(address)
        self._lock, self._over = threading.Lock(), threading.Event()
        self._open: set[http.client.HTTPConnection] = set()

    def __str__(self) -> str:
        return f"engine.servers: {self._address}"

    def version(self) -> str:
        """The name of the weights that it writes with."""
        answer = self._ask("/weight_info")
        if not isinstance(answer, dict) or "weight_version" not in answer:
            raise self._other_service(as_json(answer))
        return str(answer["weight_version"])

    def give(self, weights: WeightFiles, deadline: float) -> HandOver | None:
        """Send it these weights, None where it has them; waits until the ``deadline`` for a server that is down."""
        waited: str | None = None
        with self._lock:
            while True:
                try:
                    found = None if self.version() == weights.name else self._take(weights)
                    if waited:
                        log.warning("%s: answers again", self)
                    return found
                except Unanswered as error:
                    if time.monotonic() >= deadline or self._over.wait(EVERY):
                        raise self.lost(error) from error
                    if waited != str(error):
                        log.warning("%s: %s; waiting for it (engine.patience)", self, error)
                    waited = str(error)

    def check(self, weights: WeightFiles) -> None:
        """Raise Unanswered, or ServiceError if another run took it, unless it has these weights now."""
        if (found := self.version()) != weights.name:
            raise self._other(found, weights)

    def tokens(
        self, request: Mapping[str, Any], weights: WeightFiles
    ) -> Generator[tuple[list[tuple[int, float]], bool], None, None]:
        """New tokens with their log-probabilities as they are drawn, and whether they were the last.

        Only the last names the weights that wrote it, and rows are left before: so it is asked for them first.
        """
        self.check(weights)
        with self._answer(GENERATE, {**request, "stream": True}) as response:
            for line in response:
                if line.startswith(b"data: {"):
                    choice = self._choice(line[6:])
                    for each in choice["weight_versions"] or ():
                        if each["version"] != weights.name:
                            raise self._other(each["version"], weights)
                    yield _drawn(choice), choice["finish_reason"] is not None
                    if choice["finish_reason"] is not None:
                        return
        raise Unanswered("it ended the connection within a row")

    def lost(self, reason: Unanswered) -> ServiceError:
        """The error that ends the run."""
        return ServiceError(
            f"{self}: {reason}; expected an answer from the weights that were handed over; start the server, or give "
            "it to this run alone, then go on with resume=RUN; engine.patience is how long a run waits for a server"
        )

    def leave(self) -> None:
        """Give up all requests and waits, in whatever thread."""
        self._over.set()
        for connection in list(self._open):
            with suppress(OSError, AttributeError):  # it ends at this moment, or has not begun
                connection.sock.shutdown(2)

    def _take(self, weights: WeightFiles) -> HandOver:
        """Give it these weights, and compare. Raises Unanswered, ServiceError, DivergenceError."""
        body = {"method": "reload_weights", "kwargs": {"weights_path": str(weights.folder)}}
        try:
            self._ask("/collective_rpc", body)
        except _Broken as error:
            raise ServiceError(
                f"{self}: {error} when it was to read the weights in {weights.folder}; expected a server of the "
                "policy's model that can read this folder; set engine.weights to a folder that the run and all "
                "servers have at the same path, or start the server with the model of the run"
            ) from error
        found = HandOver(weights.sent, weights.whole, self._difference(weights))
        if fault := found.fault(weights.tolerance, str(self), "a server with --dtype float32"):
            raise DivergenceError(fault)
        self._ask("/update_weight_version", {"new_version": weights.name})  # last: after a failure all is done again
        return found

    def _difference(self, weights: WeightFiles) -> float:
        """Mean absolute difference of log-probabilities: of fixed tokens, or of those that it draws behind them.

        The larger one counts: only the second depends on how the server draws.
        """
        read, drawn = [], []
        for row, tokens in enumerate(weights.tokens.tolist()):
            how = sampling_params(weights.temperature, seed=row, max_tokens=1, ends=()) | {"prompt_logprobs": 0}
            answer = self._ask(GENERATE, {"token_ids": tokens, "sampling_params": how, "cache_salt": weights.name})
            found = zip(tokens[1:], answer["prompt_logprobs"][1:], strict=True)
            read.append([each[str(token)]["logprob"] for token, each in found])
            [(token, logprob)] = _drawn(answer["choices"][0])
            drawn.append(abs(logprob - float(weights.next[row, token])))
        return max(float((torch.tensor(read) - weights.logprobs).abs().mean()), sum(drawn) / len(drawn))

    def _other(self, found: str, weights: WeightFiles) -> Exception:
        """The error of other weights: those of another run may have written rows that were left before their end."""
        error = other_weights(found, weights)
        return self.lost(error) if found.startswith(PREFIX) else error

    def _choice(self, line: bytes) -> Any:
        chunk = self._read(line)
        if "error" in chunk:
            raise _Broken(f"it reports {_excerpt(line)}")
        return chunk["choices"][0]

    def _ask(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Its answer to a request, which has a body where it changes anything."""
        with self._answer(path, body) as response:
            return self._read(response.read())

    @contextmanager
    def _answer(self, path: str, body: Mapping[str, Any] | None) -> Iterator[http.client.HTTPResponse]:
        kind = http.client.HTTPSConnection if self._url.scheme == "https" else http.client.HTTPConnection
        connection = kind(self._url.netloc, timeout=self._timeout)
        self._open.add(connection)
        try:
            if self._over.is_set():
                raise Unanswered("given up")
            connection.request(
                "GET" if body is None else "POST", path, None if body is None else as_json(body), _headers()
            )
            response = connection.getresponse()
            if response.status != 200:
                raise self._refused(path, response.status, response.read())
            yield response
        except TimeoutError as error:
            raise Unanswered(f"no answer to {path} in {self._timeout:g} s (engine.timeout)") from error
        except (OSError, http.client.HTTPException) as error:
            raise Unanswered(f"no connection ({error or type(error).__name__})") from error
        finally:
            self._open.discard(connection)
            connection.close()

    def _refused(self, path: str, status: int, content: bytes) -> Exception:
        seen = f"status {status} to {path}: {_excerpt(content)}"
        if status >= 500:
            return _Broken(seen)
        remedy = REMEDIES.get(status, "look at the server's log")
        return ServiceError(f"{self}: {seen}; expected vLLM's server of the policy's model; {remedy}")

    def _read(self, content: bytes) -> Any:
        try:
            return json.loads(content)
        except ValueError as error:
            raise self._other_service(content) from error

    def _other_service(self, content: bytes) -> ServiceError:
        return ServiceError(f"{self}: answered {_excerpt(content)!r}; expected JSON of vLLM's server; {START}")


def is_address(text: str) -> bool:
    """Whether it is http(s)://HOST:PORT, with nothing else."""
    try:
        url = urlsplit(text)
        named = bool(url.hostname) and url.port != 0  # raises for what is no port
    except ValueError:
        return False
    return named and "@" not in text and text in (f"http://{url.netloc}", f"https://{url.netloc}")


def sampling_params(temperature: float, *, seed: int, max_tokens: int, ends: Any) -> dict[str, Any]:
    """vLLM's settings for a row; stop texts, which may begin in the prefix, are looked for here instead."""
    return {
        "temperature": temperature,
        "seed": seed,
        "max_tokens": max_tokens,
        "stop_token_ids": list(ends),
        "ignore_eos": True,  # the model folder's; the policy's are among the ends
        "logprobs": 0 if temperature else None,
        "detokenize": False,
    }


def other_weights(found: str, weights: WeightFiles) -> Unanswered:
    """The error of a server with other weights."""
    return Unanswered(
        f"it writes with the weights {found!r}, not {weights.name!r}: it was started again, or another run uses it"
    )


def _drawn(choice: Mapping[str, Any]) -> list[tuple[int, float]]:
    """Tokens with log-probabilities; 0 where it was the likeliest, as in the reference; nan arrives as -9999."""
    logprobs = choice["logprobs"]
    if logprobs is None:
        return [(token, 0.0) for token in choice["token_ids"]]
    numbers = [each["logprob"] for each in logprobs["content"]]
    finite = [number if number > -9999 else float("nan") for number in numbers]
    return list(zip(choice["token_ids"], finite, strict=True))


def _headers() -> dict[str, str]:
    key = os.environ.get("VLLM_API_KEY")
    return {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})


def _excerpt(content: bytes) -> str:
    """The server's own message, in short."""
    text = content.decode("utf-8", errors="replace")
    with suppress(ValueError, KeyError, TypeError):
        text = str(json.loads(text)["error"]["message"])
    return " ".join(text.split())[:300] or "no message"
