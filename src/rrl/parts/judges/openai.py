"""A language model behind an OpenAI-compatible endpoint as judge; its replies are kept, so that none is paid twice."""

import logging
import os
import random
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from rrl.contracts.judging import Judge
from rrl.errors import ConfigError, ServiceError
from rrl.parts.judges.endpoint import Address, Endpoint, Patience, Unanswered
from rrl.parts.judges.pace import Pace, Stopped
from rrl.parts.judges.replies import Ledger, Reply, keep_reply, kept_reply, reply_file
from rrl.parts.judges.wording import check_template, fill, read_verdict
from rrl.ranges import at_least_one, between, check_ranges, not_negative, refuse
from rrl.records.fingerprints import fingerprint
from rrl.records.run_directory import cache
from rrl.types import Comparison, Judgement, Preference, Show

log = logging.getLogger(__name__)
Body = dict[str, Any]
REPLIES = "judgements"
"""The kind of cache that replies are kept in."""


@dataclass(kw_only=True)
class OpenAIJudge(Judge):
    """Requests a verdict on each comparison from ``model`` at ``base_url``, by chat completions.

    The key is read from the environment variable ``api_key_env`` and from nowhere else; without it none is sent.
    ``template`` is the question, with ``{question}``, ``{first}``, ``{second}`` and the form of the verdict;
    ``temperature`` and ``max_tokens`` go into the request (null: left out), and so does all in ``extra``.

    ``parallel`` requests are under way at once, at most ``requests_per_minute`` begin in a minute (null: no limit).
    A request may last ``timeout`` seconds; a failure that may pass is tried ``retries`` times more, see ``Patience``
    for ``backoff`` and ``longest_wait`` (seconds); ``seed`` fixes the jitter. After that the comparison is an error;
    ``stop_after`` errors in a row end the judging (null: none do).

    Replies are kept in the cache folder by the content of the request. ``price_prompt`` and ``price_completion`` are
    of a million tokens (null: tokens are counted alone).
    """

    base_url: str
    model: str | None
    api_key_env: str
    template: str
    temperature: float | None
    max_tokens: int | None
    extra: dict[str, Any] | None
    parallel: int
    requests_per_minute: float | None
    timeout: float
    retries: int
    backoff: float
    longest_wait: float
    stop_after: int | None
    price_prompt: float | None
    price_completion: float | None
    seed: int
    _ledger: Ledger = field(init=False)

    def __post_init__(self) -> None:
        check_ranges(
            self,
            at_least_one("parallel", "max_tokens", "stop_after"),
            not_negative("temperature", "retries", "backoff", "longest_wait", "price_prompt", "price_completion"),
            between(1e-3, 1e6, "requests_per_minute", "timeout"),
        )
        # Faults of the address and the key are reported without their values, which may contain a secret.
        one_price = (self.price_prompt is None) != (self.price_completion is None)
        variable = re.fullmatch(r"[A-Z_][A-Z0-9_]*", self.api_key_env)
        address = re.fullmatch(r"https?://[^\s/?#@]+[^\s?#@]*", self.base_url)
        refuse(
            {
                "model: missing; give a name that the endpoint knows, as in judge.model=NAME": not self.model,
                "price_prompt, price_completion: expected both or none": one_price,
                "base_url: expected http(s)://host/path without user, password or query": not address,
                "api_key_env: expected an environment variable's name in capitals, never the key itself": not variable,
            }
        )
        try:
            urlsplit(self.base_url).port  # noqa: B018  # reads the address
        except ValueError as error:
            raise ValueError(f"base_url: expected http(s)://host/path, got {self.base_url!r} ({error})") from error
        check_template(self.template)
        self._ledger = Ledger(self.price_prompt, self.price_completion)

    def start(self) -> None:
        """Check that the key can be sent, replies can be kept and, if none are kept yet, the endpoint answers."""
        folder = cache(REPLIES)
        with self._workers() as (_, endpoint):
            try:
                endpoint.greet()
            except ServiceError as error:
                if not any(folder.glob("**/*.json")):
                    raise
                log.warning("%s; only replies that are kept in %s can do without", "; ".join(error.faults), folder)

    def judge(self, comparisons: Sequence[Comparison], show: Show) -> list[Judgement]:
        """One reply a comparison, from the cache or the endpoint; equal ones are asked once."""
        bodies = [self._body(comparison) for comparison in comparisons]
        names = [fingerprint([body]) for body in bodies]
        judged = self._ask_all(dict(zip(names, bodies, strict=True)), show)
        return [judged[name] for name in names]

    def account(self) -> dict[str, Any]:
        asked = {"base_url": self.base_url, "model": self.model, "temperature": self.temperature}
        return {"judge": "openai", **asked, **self._ledger.summary()}

    def _body(self, comparison: Comparison) -> Body:
        """The request; a reply depends on it and the endpoint alone."""
        asked = {"model": self.model, "messages": [{"role": "user", "content": fill(self.template, comparison)}]}
        limits = {"temperature": self.temperature, "max_tokens": self.max_tokens}
        return {**asked, **{name: value for name, value in limits.items() if value is not None}, **(self.extra or {})}

    def _ask_all(self, bodies: Mapping[str, Body], show: Show) -> dict[str, Judgement]:
        """A judgement for each request, by its name."""
        judged: dict[str, Judgement] = {}
        in_a_row = 0
        with self._workers() as (pool, endpoint):
            names = {pool.submit(self._reply, endpoint, body): name for name, body in bodies.items()}
            for done in as_completed(names):
                if isinstance(done.exception(), Stopped):  # because of a failure that its own thread reports
                    continue
                judgement = judged[names[done]] = self._judgement(done)
                in_a_row = in_a_row + 1 if judgement.preference is Preference.ERROR else 0
                if in_a_row == self.stop_after:
                    raise ServiceError(self._given_up(judgement.reason))
                show(len(judged) / len(bodies), {})
        return judged

    @contextmanager
    def _workers(self) -> Iterator[tuple[ThreadPoolExecutor, Endpoint]]:
        """Threads and their endpoint; at the end, whatever the reason, those that wait or have not begun give up.

        Requests under way are completed: their replies have to be paid, and are kept for the next time.
        """
        stop, pool = threading.Event(), ThreadPoolExecutor(self.parallel)
        interval = 0.0 if self.requests_per_minute is None else 60 / self.requests_per_minute
        patience = Patience(
            timeout=self.timeout, retries=self.retries, backoff=self.backoff, longest_wait=self.longest_wait
        )
        pace = Pace(interval, time.monotonic, stop.wait)
        endpoint = Endpoint(self._address(), patience, pace, random.Random(f"judge/{self.seed}"), time.monotonic)
        try:
            yield pool, endpoint
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
            endpoint.close()

    def _reply(self, endpoint: Endpoint, body: Body) -> tuple[Reply, bool]:
        """The reply, and whether it was kept from before. Raises what ``Endpoint.ask`` does."""
        file = reply_file(cache(REPLIES), self.base_url, body)
        kept = kept_reply(file)
        if kept is not None and kept.text.strip():  # an empty one may be an accident
            return kept, True
        reply = endpoint.ask(body)
        keep_reply(file, reply)
        return reply, False

    def _judgement(self, done: Future[tuple[Reply, bool]]) -> Judgement:
        """The verdict of a reply, which is counted; no reply is an error, and so is a reply without a verdict."""
        try:
            reply, kept = done.result()
        except Unanswered as failure:
            self._ledger.failures[str(failure)] += 1
            return Judgement(Preference.ERROR, str(failure))
        self._ledger.count(reply, kept=kept)
        preference = read_verdict(reply.text)
        self._ledger.failures.update(["no verdict"] if preference is Preference.ERROR else [])
        return Judgement(preference, reply.text)

    def _given_up(self, reason: str) -> str:
        return (
            f"judge.stop_after: {self.stop_after} comparisons in a row failed at {self.base_url!r}, the last one by: "
            f"{reason[-200:] or 'an empty reply'}; expected verdicts; see whether the endpoint works and whether "
            "judge.template suits the model; the same command goes on from what was answered"
        )

    def _address(self) -> Address:
        key = os.environ.get(self.api_key_env, "").strip()
        if not (key.isascii() and key.isprintable()):
            raise ConfigError(
                f"judge.api_key_env: the value of {self.api_key_env} cannot be sent; expected printable ASCII, as in a "
                "key; set it anew"
            )
        return Address(base_url=self.base_url.rstrip("/"), key=key or None, key_name=self.api_key_env)
