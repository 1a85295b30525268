"""The sizes of guided self-improvement, and the forecast of a run."""

import math
from dataclasses import dataclass
from typing import Literal

from rrl.contracts.guiding import Guidance
from rrl.ranges import at_least_one, between, check_ranges, not_negative
from rrl.training.course import Between, Course, some
from rrl.training.loop import Aggregate, LoopSettings


@dataclass(frozen=True, kw_only=True)
class GSISizes(LoopSettings):
    """The sizes of guided self-improvement (Ding et al., arXiv 2411.00750).

    Each of ``iterations`` writes ``n`` responses at ``temperature`` to each of ``problems_per_iteration`` problems
    that the sampler draws (null: to every problem), ``train_batch_size`` problems a step. Problems with fewer than
    ``min_correct`` right ones get up to ``max_guided_attempts`` more, one at a time, each helped by ``guidance`` (null:
    none).
    Right responses are kept: of each problem the first ``keep_per_problem`` (null: all), each once if ``distinct``,
    and none that the length limit cut off unless ``train_on_truncated``. Then the model that the run began with is
    fine-tuned afresh on them, ``epochs`` times in mini-batches of ``mini_batch_size``, with ``loss_agg_mode`` as a
    token's weight, and writes in the next iteration. ``first_iteration: references`` makes the first iteration a
    fine-tuning on references instead. When ``total_tokens`` have been generated (null: no limit), what was kept is
    learnt, and training ends.
    """

    iterations: int
    problems_per_iteration: int | None
    train_batch_size: int
    n: int
    temperature: float
    min_correct: int
    max_guided_attempts: int
    guidance: Guidance | None
    keep_per_problem: int | None
    distinct: bool
    train_on_truncated: bool
    first_iteration: Literal["sample", "references"]
    epochs: int
    mini_batch_size: int
    loss_agg_mode: Aggregate
    total_tokens: int | None

    annotates = False
    knows_length = True  # of each fine-tuning

    def __post_init__(self) -> None:
        check_ranges(
            self,
            at_least_one("iterations", "problems_per_iteration", "train_batch_size", "n", "keep_per_problem"),
            at_least_one("epochs", "mini_batch_size", "total_tokens"),
            not_negative("min_correct", "max_guided_attempts"),
            between(1e-9, 100, "temperature"),
        )

    @property
    def needs(self) -> frozenset[str]:
        """References, where they are used, and the needs of the guidance."""
        own = frozenset({"references"} if self.first_iteration == "references" else ())
        return own if self.guidance is None else own | self.guidance.needs

    @property
    def helps(self) -> int:
        """Guided attempts that a problem can get."""
        return 0 if self.guidance is None else self.max_guided_attempts

    @property
    def mini_batch(self) -> int:
        return self.mini_batch_size

    @property
    def tuned_at_once(self) -> int:
        """Mini-batches that a step of fine-tuning learns."""
        return max(1, self.sequences // self.mini_batch_size)

    def course(self, problems: int, longest: int, likely: float | None, expense: int = 0) -> Course:
        """All iterations, or as many as a limit in tokens allows, which is passed in one step.

        A problem gives at most ``n`` right answers, or ``min_correct`` of them where help is needed.
        """
        drawn, a_step = min(self.problems_per_iteration or problems, problems), self.sequences * longest
        right = max(self.n, min(self.min_correct, self.n + self.helps))
        few, many = self._tuning(1), self._tuning(drawn * min(right, self.keep_per_problem or right))
        given = self._tuning(drawn) if self.first_iteration == "references" else (0, 0)
        times = self.iterations - (self.first_iteration == "references")
        sampling, helping = math.ceil(drawn / self.train_batch_size), self.helps * math.ceil(drawn / self.sequences)
        least, most = given[0] + times * (sampling + few[0]), given[0] + times * (sampling + helping + many[0])
        fewest, tokens = given[1] + times * few[1], self.iterations * drawn * (self.n + self.helps) * longest
        if self.total_tokens:
            least, fewest = min(least, math.ceil(self.total_tokens / a_step) + 1), self.epochs
            tokens = min(tokens, self.total_tokens - 1 + a_step)
        optimised = Between(fewest, None, given[1] + times * many[1])
        return Course(Between(least, None, most), optimised, tokens, self.iterations, self._in_words(drawn))

    def _tuning(self, answers: int) -> tuple[int, int]:
        """Steps and optimiser steps of a fine-tuning on so many answers."""
        optimised = self.epochs * math.ceil(answers / self.mini_batch_size)
        return math.ceil(optimised / self.tuned_at_once), optimised

    def _in_words(self, drawn: int) -> list[str]:
        return [
            f"{some(self.iterations, 'iteration')} of {drawn:,} problems x {some(self.n, 'response')}, "
            f"{self.train_batch_size:,} problems a step",
            f"with help: up to {self.helps} more to each problem with fewer than {self.min_correct} right ones, "
            f"{self.sequences:,} a step",
            f"then from the starting model {some(self.epochs, 'epoch')} over the right ones in mini-batches of "
            f"{self.mini_batch_size:,}, {self.tuned_at_once:,} a step",
        ]
