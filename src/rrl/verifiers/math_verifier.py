r"""Judges mathematical answers: equal text at once, everything else in worker processes, each batch with a canary.

Verdicts by cause: an answer that is missing, too long, unreadable, or that ends a worker or exceeds its limits is
*unparseable*, because otherwise a policy could escape its score by answers like ``9^{9^{9^9}}``. A reference that ends
a worker, a starved, killed or missing worker, and a canary judged wrongly are the verifier's own *errors*. docs/math.md
has the table.
"""

import logging
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import ClassVar

from rrl.ranges import at_least_one, check_ranges
from rrl.types import Feedback, Verdict
from rrl.verifiers.final_answers import form, same_text
from rrl.verifiers.workers import Reply, WorkerLimits, Workers

log = logging.getLogger(__name__)

Pair = tuple[str | None, str]
"""The answer that a response states, None without one, and the reference's."""

CANARIES = (("0.5", r"\frac{1}{2}", "equal"), ("0.6", r"\frac{1}{2}", "different"))
REMEMBERED = 50_000
"""The most pairs whose reply is kept for equal ones and for ``judge`` after ``begin``."""
UNFIT = ("raised", "memory", "time_out", "crashed")
"""Ends of a worker that its item has caused."""


@dataclass(kw_only=True, eq=False)
class MathVerifier:
    """``workers`` processes (null: as many as the sandbox), started with the first answer that needs one.

    An answer may take ``seconds`` of processor time, ``patience`` seconds by the clock and ``memory_mb`` of memory, and
    have ``max_characters``.
    """

    workers: int | None
    seconds: float
    patience: float
    memory_mb: int
    max_characters: int
    module: ClassVar[str] = "rrl.verifiers.math_equality"
    _known: "OrderedDict[Pair, Future[Reply]]" = field(init=False, default_factory=OrderedDict, repr=False)

    def __post_init__(self) -> None:
        check_ranges(self, at_least_one("workers", "max_characters"))
        limits = WorkerLimits(seconds=self.seconds, patience=self.patience, memory_mb=self.memory_mb)
        self._pool = Workers(self.module, self.workers, limits)

    def begin(self, pairs: Sequence[Pair]) -> None:
        """Start the workers on these; does not wait."""
        for pair in pairs:
            if self._at_once(pair) is None:
                self._asked(pair)

    def judge(self, pairs: Sequence[Pair]) -> list[Feedback]:
        """Feedback in order. The whole batch is an error when its canaries are judged wrongly twice.

        Keeping only the answers that need no worker would keep mostly right ones and bias the batch.
        """
        if not pairs:
            return []
        for _ in range(2):
            canaries = [self._pool.submit((answer, expected)) for answer, expected, _ in CANARIES]
            self.begin(pairs)
            feedback = [self._at_once(pair) or self._collected(pair) for pair in pairs]
            fault = _canary_fault([canary.result() for canary in canaries])
            if not fault:
                return feedback
            log.warning("math verifier: %s; its workers are replaced", fault)
            self._known.clear()
            self._pool.restart()
        return [_feedback(pair, Verdict.ERROR, "canary", fault) for pair in pairs]

    def ask(self, answer: str, expected: str) -> "Future[Reply]":
        """A worker's own reply, without any shortcut or canary."""
        return self._pool.submit((answer, expected))

    def close(self) -> None:
        self._known.clear()
        self._pool.close()

    def _at_once(self, pair: Pair) -> Feedback | None:
        """The feedback of a pair that needs no worker, else None."""
        answer, expected = pair
        if answer is None:
            return _feedback(pair, Verdict.UNPARSEABLE, "no_answer")
        if len(answer) > self.max_characters:
            cut = answer[: self.max_characters]
            return _feedback((cut, expected), Verdict.UNPARSEABLE, "too_long", f"{len(answer)} characters")
        return _feedback(pair, Verdict.RIGHT, "same_text") if same_text(answer, expected) else None

    def _asked(self, pair: Pair) -> "Future[Reply]":
        """The future reply to a pair, submitted now or before."""
        if pair not in self._known:
            self._known[pair] = self._pool.submit(pair)
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return self._known[pair]

    def _collected(self, pair: Pair) -> Feedback:
        feedback = _judged(pair, self._asked(pair).result())
        if feedback.verdict is Verdict.ERROR:
            self._known.pop(pair, None)  # another attempt may succeed
        return feedback


def _judged(pair: Pair, reply: Reply) -> Feedback:
    """The feedback by a worker's reply."""
    if reply.end == "done":
        verdict = {"equal": Verdict.RIGHT, "unreadable": Verdict.UNPARSEABLE}.get(reply.value, Verdict.WRONG)
        return _feedback(pair, verdict, str(reply.value))
    mine = reply.end in UNFIT and reply.phase == "answer"
    return _feedback(pair, Verdict.UNPARSEABLE if mine else Verdict.ERROR, reply.end, reply.message)


def _feedback(pair: Pair, verdict: Verdict, outcome: str, error: str = "") -> Feedback:
    answer, expected = pair
    evidence = {"parsed": answer, "expected": expected, "outcome": outcome}
    if answer is not None and (plain := form(answer)) != answer:
        evidence["form"] = plain
    return Feedback(float(verdict is Verdict.RIGHT), verdict, evidence | ({"error": error} if error else {}))


def _canary_fault(replies: Sequence[Reply]) -> str:
    """The first canary that was judged wrongly; empty without one."""
    for (answer, expected, truth), reply in zip(CANARIES, replies, strict=True):
        if (reply.end, reply.value) != ("done", truth):
            found = reply.value if reply.end == "done" else f"{reply.end} {reply.message}".strip()
            return f"canary: {answer!r} against {expected!r} is {truth}, but was found {found}"
    return ""
