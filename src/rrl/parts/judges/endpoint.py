"""Requests to a chat-completions endpoint: rate limit, time-out, retries, and errors for permanent failures."""

import json
import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from rrl.errors import ServiceError
from rrl.parts.judges.pace import Pace, Stopped
from rrl.parts.judges.replies import Reply, read_reply
from rrl.records.texts import as_json

JSON = {"Content-Type": "application/json"}
RETRIED = (408, 409, 425, 429)
"""Refusals that are temporary; so is every status from 500 on."""
REMEDIES = {
    401: "set the environment variable {key_name} to a key that it knows",
    403: "use a key ({key_name}) that may use this model, or another judge.model",
    404: "check judge.base_url, which ends in /v1 as a rule, and judge.model",
}
"""The remedies of refusals that are permanent."""


class Unanswered(Exception):
    """The reason why a question has no answer."""


class _Passing(Exception):
    """A temporary failure; ``wait`` is the number of seconds that the endpoint requested."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True, kw_only=True)
class Address:
    """The endpoint's address and key; ``key_name`` is the environment variable that has the key."""

    base_url: str
    key: str | None
    key_name: str

    def hidden(self, text: str) -> str:
        """The text without the key."""
        return text.replace(self.key, f"<{self.key_name}>") if self.key else text


@dataclass(frozen=True, kw_only=True)
class Patience:
    """Limits of trying: ``timeout`` seconds a request, ``retries`` further tries, waits from ``backoff`` seconds on.

    The n-th wait is ``backoff`` * 2^n, at most ``longest_wait``, of which the upper half is drawn at random. A wait
    that the endpoint requests by Retry-After takes precedence; beyond ``longest_wait`` the question is given up.
    """

    timeout: float
    retries: int
    backoff: float
    longest_wait: float

    def wait(self, attempt: int, rng: random.Random) -> float:
        """Seconds before the try after ``attempt``, counted from 0."""
        return min(self.longest_wait, self.backoff * 2.0**attempt) * (1 + rng.random()) / 2


class Endpoint:
    """Asks from any thread, each request in its turn by ``pace``; ``clock`` counts seconds."""

    def __init__(
        self, address: Address, patience: Patience, pace: Pace, rng: random.Random, clock: Callable[[], float]
    ) -> None:
        import httpx

        self._address, self._patience, self._pace, self._rng, self._clock = address, patience, pace, rng, clock
        self._reached, self._final = threading.Event(), threading.Event()
        headers = {"Authorization": f"Bearer {address.key}"} if address.key else {}
        limits = httpx.Limits(max_connections=None)  # the judge's threads are the limit
        self._client = httpx.Client(timeout=patience.timeout, headers=headers, limits=limits)

    def ask(self, body: Mapping[str, Any]) -> Reply:
        """The reply. Raises Unanswered, ServiceError when no question can be answered, Stopped, also after that."""
        for attempt in range(self._patience.retries + 1):
            self._pace.turn()
            if self._final.is_set():  # another thread has the error, and reports it
                raise Stopped
            try:
                return self._once(body)
            except _Passing as failure:
                reason = str(failure)
                if attempt == self._patience.retries or (failure.wait or 0) > self._patience.longest_wait:
                    break
                if failure.wait is None:
                    self._pace.rest(self._patience.wait(attempt, self._rng))
                else:
                    self._pace.hold(failure.wait)
        if not self._reached.is_set():
            self._final.set()
            raise self._silent(f"has not answered once in {self._patience.retries + 1} tries ({reason})")
        raise Unanswered(reason)

    def greet(self) -> None:
        """Send one empty request: any status is an answer. Raises ServiceError where there is none."""
        import httpx

        try:
            self._client.get(self._address.base_url)
        except httpx.HTTPError as error:
            raise self._silent(f"does not answer ({type(error).__name__})") from error

    def close(self) -> None:
        self._client.close()

    def _once(self, body: Mapping[str, Any]) -> Reply:
        status, headers, content = self._post(body)
        if status in REMEDIES:
            self._final.set()
            raise ServiceError(self._refused(status, content))
        if status in RETRIED or status >= 500:
            raise _Passing(f"status {status}", seconds_asked(headers.get("retry-after"), time.time()))
        if status != 200:
            raise Unanswered(f"status {status}: {self._excerpt(content)}")
        try:
            reply = read_reply(content)
        except ValueError as error:
            raise _Passing(f"malformed answer ({type(error).__name__})") from error
        return Reply(self._address.hidden(reply.text), reply.prompt_tokens, reply.completion_tokens)

    def _post(self, body: Mapping[str, Any]) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and content, all of it within the time-out: httpx's own begins anew with every byte."""
        import httpx

        end, content = self._clock() + self._patience.timeout, b""
        address = f"{self._address.base_url}/chat/completions"
        try:
            with self._client.stream("POST", address, content=as_json(body), headers=JSON) as response:
                self._reached.set()
                for chunk in response.iter_bytes():
                    content += chunk
                    if self._clock() > end:
                        raise _Passing("time-out")
                return response.status_code, response.headers, content
        except httpx.TimeoutException as error:
            raise _Passing("time-out") from error
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise _Passing(f"connection error ({type(error).__name__})") from error

    def _refused(self, status: int, content: bytes) -> str:
        remedy = REMEDIES[status].format(key_name=self._address.key_name)
        given = "" if self._address.key else f" ({self._address.key_name} is not set)"
        found = f"got status {status}{given}: {self._excerpt(content)}"
        return f"judge.base_url: {self._address.base_url!r}: {found}; expected an answer; {remedy}"

    def _silent(self, fault: str) -> ServiceError:
        return ServiceError(
            f"judge.base_url: {self._address.base_url!r} {fault}; expected a chat-completions endpoint; start it, or "
            "give another judge.base_url"
        )

    def _excerpt(self, content: bytes) -> str:
        """The endpoint's own message, in short and without the key."""
        text = content.decode("utf-8", errors="replace")
        with suppress(ValueError, KeyError, TypeError):
            text = str(json.loads(text)["error"]["message"])
        return " ".join(self._address.hidden(text).split())[:200] or "no message"


def seconds_asked(header: str | None, now: float) -> float | None:
    """The wait in Retry-After, given in seconds or as a date (RFC 9110, 10.2.3); None without a valid one."""
    if header is None:
        return None
    if re.fullmatch(r"\d+(\.\d+)?", header.strip()):
        return float(header)
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - now)
    except ValueError:
        return None
