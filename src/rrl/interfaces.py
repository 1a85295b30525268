"""The contract of each kind of part: signatures only.

A part's constructor takes its hyper-parameters alone, keyword-only and without defaults; it checks their ranges and
loads nothing. Inputs at run time come through ``start``. A class attribute or property states what it needs of others.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from random import Random
from typing import Any, ClassVar, Protocol

from torch import Generator, Tensor

from rrl.types import (
    Batch,
    Example,
    Feedback,
    Judged,
    Metrics,
    Pair,
    PolicyOutput,
    Problem,
    Rollout,
    Sampling,
    State,
    StateEvent,
    TokenScores,
)

StateDict = dict[str, Any]
ScorePrefixes = Callable[[Sequence[State]], list[TokenScores]]
"""Scores the prefix of each state with the current policy and critic."""
Written = Callable[[Sequence[Rollout]], None]
"""Callback for rollouts, in any order, as soon as this process has written them."""
Decode = Callable[[Sequence[State]], list[Feedback]]
"""One greedy response from each state, judged; its tokens count as generated."""
Render = Callable[[Sequence[str]], list[tuple[int, ...]]]
"""The prompts of questions, as token ids."""
Found = dict[int, float]
"""What a selection rule has found out about a response: a number for some of its legal cuts."""


class Author(Protocol):
    """The policy of this moment, which a rule can have write while a step is observed; that counts as generated.

    All ranks ask for the same and get the whole. Equal seeds draw equally, and leave what the engine draws as it is.
    """

    tokenizer: Any

    def replies(self, questions: Sequence[str], longest: int, temperature: float, seed: int) -> list[Rollout | None]:
        """A reply of at most ``longest`` tokens to each question in the run's template; None where both do not fit."""

    def judged(self, states: Sequence[State], seed: int) -> list[Judged]:
        """One rollout from each state, in order, with the task's judgement."""


class Stateful(Protocol):
    """A part that is saved with a run: by default one without state."""

    def state_dict(self) -> StateDict:
        """Its whole state, random state included, the same on every rank, as plain data."""
        return {}

    def load_state_dict(self, state: StateDict) -> None:
        """Go back to a saved state."""


class DependsOnTask(Protocol):
    """A part that may need more of a task than a score."""

    @property
    def needs(self) -> frozenset[str]:
        """The names that must be in the task's ``gives``."""
        return frozenset()


class DependsOnTraining(Protocol):
    """A part that may need more of the training than rollouts and verdicts."""

    @property
    def needs_critic(self) -> bool:
        """Whether it reads the critic's values or, as an objective, trains the critic."""
        return False

    @property
    def needs_entropies(self) -> bool:
        """Whether it reads the entropies of rollouts, which only the actor's own pass gives."""
        return False

    @property
    def needs_siblings(self) -> bool:
        """Whether it compares several rollouts of one start state."""
        return False


class Task(Protocol):
    """Examples and a verifier. Works on text alone, without tokenizers and models.

    ``gives`` lists what it provides beyond a score: ``references``, readable final ``answers``, and as evidence
    ``programs`` (``programs.py``), ``preferences`` (``reward``) and ``first_errors`` (``error_free`` characters).
    """

    gives: ClassVar[frozenset[str]] = frozenset()

    def examples(self, split: str) -> list[Example]:
        """Every example of a split: ``train`` to learn from, ``test`` held out."""

    def demonstrations(self, count: int, seed: int) -> list[Example]:
        """``count`` examples with references for supervised training, drawn with ``seed``."""

    def vocabulary(self) -> tuple[str, ...] | None:
        """The words of a closed language, for the task's own tokenizer; by default None: free text."""

    def pairs(self, split: str) -> list[Pair]:
        """Pairs of responses of which one was preferred, to train a reward model on; by default none."""
        return []

    def faults(self) -> list[str]:
        """Reasons why this task cannot judge, for the report on a configuration; loads nothing."""
        return []

    def start(self) -> None:
        """Load what judging needs, before a run or an evaluation begins. Raises DataError where it does not fit."""

    def begin(self, rollouts: Sequence[Rollout]) -> None:
        """Start to judge these in the background, for a later ``verify``; does nothing where that gains nothing."""

    def verify(self, rollouts: Sequence[Rollout]) -> list[Feedback]:
        """One feedback per rollout, in order. Its own failures are verdicts, not exceptions."""


class Reward(DependsOnTask, Stateful, Protocol):
    """Turns a verdict into a reward per action. Only ``__call__`` is required."""

    def start(self, tokenizer: Any, decode: Decode) -> None:
        """Begin with this tokenizer and a way to have greedy responses judged."""

    def observe(self, judged: Sequence[Judged]) -> Metrics:
        """Read a whole judged batch before any of its rollouts is rewarded."""
        return {}

    def __call__(self, judged: Judged) -> list[float]:
        """One number per action token."""


class StateSampler(DependsOnTask, DependsOnTraining, Stateful, Protocol):
    """Decides where rollouts start, and learns from their results."""

    replays: str = "nothing"  # or "prompts" or "prefixes": what its starts with a ``replayed_from`` begin with

    @property
    def needs_annotation(self) -> bool:
        """True when it reads the policy's log-probabilities or values of its rollouts."""
        return False

    def start(self, problems: Sequence[Problem], seed: int, inspect: ScorePrefixes, tokenizer: Any) -> None:
        """Begin on these problems."""

    def lend(self, author: Author) -> None:
        """Take what may be asked to write in ``observe``; after ``start``."""
        return None

    def expense(self, longest: int) -> int:
        """Tokens that one ``observe`` has written at most, where a response has at most ``longest``."""
        return 0

    def sample(self, count: int, progress: float) -> list[State]:
        """``count`` start states, at ``progress`` in [0, 1] of training."""

    def observe(self, judged: Sequence[Judged], batch: Batch) -> Metrics:
        """Learn from a judged batch, whose row ``i`` is rollout ``i``, before the policy is updated."""
        return {}

    def experience(self, batch: Batch) -> Batch:
        """The batch to learn from in this step, after ``observe``: by default ``batch``, which the objective made."""
        return batch

    def events(self) -> list[StateEvent]:
        """The states stored and forgotten in the last ``observe``, in order, for the records."""
        return []

    def remembered(self) -> list[State]:
        """The states that it may go back to, prefixes included, in the order of their birth, for audits."""
        return []


class Selection(DependsOnTask, DependsOnTraining, Stateful, Protocol):
    """Finds the promising states along a response."""

    min_explained_variance: float | None = None
    """States are collected only while the critic explains at least this much of the returns; None: always."""

    def start(self, author: Author) -> None:
        """Take what ``examine`` may ask to write."""
        return None

    def expense(self, longest: int) -> int:
        """Tokens that one ``examine`` has written at most, where a response has at most ``longest``; 0: it does not."""
        return 0

    def examine(
        self, responses: Sequence[State], legal: Sequence[Sequence[int]], rng: Random
    ) -> tuple[list[Found], Metrics]:
        """Have something written about the failed responses of a step, each a state's prefix, before the first is cut.

        What is found of each comes back in ``TokenScores.found``. Called only where there is an ``expense``.
        """
        return [{} for _ in responses], {}

    def cuts(self, response: TokenScores, legal: Sequence[int], rng: Random) -> list[int]:
        """The ``legal`` lengths at which to cut, in rising order; may be none."""

    def score(self, response: TokenScores, cut: int) -> float:
        """How promising the state after the first ``cut`` tokens is; for ranking and reporting."""

    def learn(self, outcomes: Sequence[tuple[float, bool]]) -> None:
        """Learn from rollouts that went on from cuts: a prefix's share of the response it was cut from, and success."""


class WeightSource(Protocol):
    """Lends a language model for generation; ``version`` changes with its weights."""

    version: int

    def generation_model(self) -> AbstractContextManager[Any]:
        """The causal language model with all its weights in memory, for the length of the context."""


class RolloutEngine(Stateful, Protocol):
    """Writes responses from states."""

    ahead: int = 0
    """1: ``writing`` is used, so that the next step's rollouts are written while this one trains."""

    def start(self, source: WeightSource, tokenizer: Any, seed: int) -> None:
        """Begin with this policy's weights."""

    @property
    def sampling(self) -> Sampling:
        """How it draws tokens by default."""

    def faults(self) -> list[str]:
        """Reasons why it cannot write on this machine, for the report on a configuration; loads nothing."""
        return []

    @property
    def is_exact(self) -> bool:
        """True when it draws with the policy's own weights from its whole distribution, so that both agree."""
        return False

    def generate(
        self, states: Sequence[State], sampling: Sampling | None = None, generator: Generator | None = None,
        written: Written | None = None,
    ) -> list[Rollout]:  # fmt: skip
        """One rollout per state, in order; drawn from ``generator`` where given, which leaves the engine's unused."""

    def writing(self, states: Sequence[State]) -> AbstractContextManager[list[Rollout]]:
        """Write as ``generate`` does, with the present weights, while the context lasts; its end fills the list."""
        raise NotImplementedError


class Objective(DependsOnTask, DependsOnTraining, Stateful, Protocol):
    """Credit assignment and loss."""

    @property
    def needs_annotation(self) -> bool:
        """False when it reads neither log-probabilities nor values of the rollouts."""
        return True

    @property
    def needs_reference(self) -> bool:
        """True when it compares the policy with the frozen reference."""
        return False

    @property
    def pays_entropy(self) -> bool:
        """False when no gradient goes through the entropies."""
        return True

    def lend(self, author: Author) -> None:
        """Take what can be asked to write in ``observe``."""

    def expense(self, rollouts: int, longest: int) -> int:
        """Tokens that one ``observe`` of so many has written at most, where a response has at most ``longest``."""
        return 0

    def observe(self, judged: Sequence[Judged]) -> Metrics:
        """Read the rollouts of a step, the rows of its batch in order, before credit is assigned to them."""
        return {}

    def assign_credit(self, batch: Batch) -> Batch:
        """Fill ``advantages`` and ``returns``, once per batch of rollouts."""

    def experience(self, rollouts: Sequence[Rollout], batch: Batch) -> Batch:
        """The batch to learn from in this step: by default ``batch``, whose row ``i`` is rollout ``i``."""
        return batch

    def loss(self, batch: Batch, output: PolicyOutput) -> tuple[Tensor, Tensor, Metrics]:
        """Actor loss, critic loss (both scalars, ``weight``-ed sums) and the metrics' weighted sums."""
