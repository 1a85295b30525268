"""The data that flows through a training step, all of it frozen.

Index convention: position ``t`` of every [batch, time] tensor holds a fact about token ``t``.
``logprobs[b, t]`` is log pi(token t | tokens before t); ``values[b, t]`` is the value of the state in
which token t was chosen; ``mask[b, t]`` is true where the policy chose token t in this rollout.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

import torch
from torch import Tensor

Metrics = dict[str, float]
Show = Callable[[float, Metrics], None]
"""Progress callback: the fraction of the work done, from 0 to 1, and the latest metrics."""


@dataclass(frozen=True, slots=True)
class Example:
    """One item of a data set, as text.

    ``reference`` is a whole canonical response ("" when there is none); the verifier compares with ``answer``;
    results are reported by ``level`` and by ``strata``, as in {"subject": "algebra"}. Where the question is a
    conversation, ``turns`` are its chat messages ({"role": "user" or "assistant", "content": text}); otherwise empty.
    """

    id: str
    level: str
    question: str
    reference: str
    answer: str
    strata: Mapping[str, str] = field(default_factory=dict, hash=False)
    turns: tuple[Mapping[str, str], ...] = field(default=(), hash=False)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two responses to one prompt, of which one was preferred; ``level`` and ``strata`` as in ``Example``."""

    id: str
    level: str
    prompt: str
    chosen: str
    rejected: str
    strata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Problem:
    """An example with its prompt and its reference as token ids (the reference ends with EOS)."""

    example: Example
    prompt: tuple[int, ...]
    reference: tuple[int, ...]

    @property
    def id(self) -> str:
        """The example's identifier, unique within a split."""
        return self.example.id

    @property
    def level(self) -> str:
        """The example's stratum."""
        return self.example.level


@dataclass(frozen=True, slots=True)
class State:
    """The start of a rollout: a problem and the token ids of the response so far.

    An ordinary start has an empty prefix. ``replayed_from`` is the key of the remembered state that it was drawn from
    (with an empty prefix under the re-draw control), ``help`` the name of the guidance that it has.
    """

    problem: Problem
    prefix: tuple[int, ...] = ()
    replayed_from: str | None = None
    help: str | None = None

    @property
    def replayed(self) -> bool:
        """Whether it was drawn from a remembered state."""
        return self.replayed_from is not None

    @property
    def fresh(self) -> bool:
        """Whether it is an ordinary start; metrics keep these and the others apart."""
        return self.replayed_from is None and self.help is None


@dataclass(frozen=True, slots=True)
class Rollout:
    """A response of the policy from a state.

    ``actions`` are the new token ids and ``logprobs`` (nats) their log-probabilities under exactly the
    distribution they were drawn from; ``finished`` is false when the length limit cut the response off;
    ``response`` is the text of prefix and actions without the end token; ``version`` is the policy's.
    ``kept`` is the log of the probability mass that top-k and top-p left to choose from (0 without them), so that
    ``logprobs + kept`` is the log-probability under the whole vocabulary.
    """

    state: State
    actions: tuple[int, ...]
    logprobs: tuple[float, ...]
    kept: tuple[float, ...]
    finished: bool
    response: str
    version: int

    @property
    def tokens(self) -> tuple[int, ...]:
        """Prefix and actions: the whole response, as token ids."""
        return self.state.prefix + self.actions


class Verdict(str, Enum):
    """A verifier's result. ``ERROR`` is the verifier's own failure, never the policy's."""

    RIGHT = "right"
    WRONG = "wrong"
    UNPARSEABLE = "unparseable"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Feedback:
    """A rollout's judgement: ``score`` in [0, 1], the verdict, and the verifier's findings for rewards and viewers.

    ``evidence`` is plain data. Its ``outcome``, where present, is more specific than the verdict.
    """

    score: float
    verdict: Verdict
    evidence: Mapping[str, Any] = field(default_factory=dict)

    @property
    def solved(self) -> bool:
        """Whether the verifier found it right."""
        return self.verdict is Verdict.RIGHT


@dataclass(frozen=True, slots=True)
class Judged:
    """A rollout with its feedback."""

    rollout: Rollout
    feedback: Feedback


class Preference(str, Enum):
    """Which of two answers a judge prefers. ``ERROR`` is the judge's own failure, never an answer's."""

    FIRST = "first"
    SECOND = "second"
    TIE = "tie"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two answers to a question, in the order in which a judge sees them."""

    question: str
    first: str
    second: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """A judge's result for a comparison; ``reason`` is its own words or numbers, or its error."""

    preference: Preference
    reason: str


@dataclass(frozen=True, slots=True)
class TokenScores:
    """The current policy's scores of a token sequence that follows a prompt.

    ``logprobs[i]`` is the log-probability (nats) of token ``i``; ``values[i]`` is the critic's value of the
    state after the first ``i`` tokens, so that ``values[0]`` is that of the empty prefix. Zeros without a critic.
    ``values`` has no number after the last token of a sequence that fills the model's context.
    ``entropies[i]`` (nats) is that of the distribution of token ``i``; empty where nobody needs it. ``right`` is the
    number of tokens before the first error, where the task tells that: the truth, for upper bounds. ``found`` are the
    numbers of cuts that ``Selection.examine`` has found.
    """

    logprobs: tuple[float, ...]
    values: tuple[float, ...]
    entropies: tuple[float, ...] = ()
    right: int | None = None
    found: Mapping[int, float] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class StateEvent:
    """What became of a remembered state, for the records; ``key`` names it for the whole run."""

    key: str


@dataclass(frozen=True, slots=True)
class Stored(StateEvent):
    """It is new: the first ``cut`` tokens of ``rollout``, or (None) of another response to the problem.

    ``cut`` is None where the whole response is remembered, to be cut when it is drawn. ``source`` is the kind of
    response, ``score`` how promising the state is.
    """

    problem_id: str
    source: str
    rollout: Rollout | None
    cut: int | None
    score: float


@dataclass(frozen=True, slots=True)
class Forgotten(StateEvent):
    """It is forgotten, for this ``reason``."""

    reason: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn: temperature 0 is greedy; ``top_k`` 0 and ``top_p`` 1 keep every token."""

    temperature: float
    top_p: float
    top_k: int
    max_new_tokens: int
    stop: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """Rollouts as padded tensors; see the index convention above.

    Shapes are [batch, time], except ``group``, ``level`` and ``replayed`` [batch]: rows of one start state share a
    group number, rows of one level a level number; ``replayed`` is true where a remembered state was the start.
    ``attention`` is true on real tokens, ``prefix`` on the prefix of a remembered state. ``weight`` is each acted
    token's share of one optimiser step and sums to one over it, so that a loss is a weighted sum.
    ``engine_logprobs`` are the engine's for the tokens it drew, ``old_logprobs`` those of the same policy computed
    by the trained networks, ``entropies`` (nats) those of the distributions that the tokens were drawn from.
    """

    tokens: Tensor
    attention: Tensor
    mask: Tensor
    prefix: Tensor
    weight: Tensor
    rewards: Tensor
    engine_logprobs: Tensor
    old_logprobs: Tensor
    ref_logprobs: Tensor
    entropies: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor
    group: Tensor
    level: Tensor
    replayed: Tensor

    def __len__(self) -> int:
        return int(self.tokens.shape[0])

    def rows(self, index: Tensor) -> "Batch":
        """The rows ``index`` [n], in its order, without columns that are padding in all of them."""
        width = int(self.attention[index].any(0).nonzero().max()) + 1
        cut = {
            name: value[index] if value.dim() == 1 else value[index, :width]
            for name in self.__dataclass_fields__
            for value in [getattr(self, name)]
        }
        return Batch(**cut)

    def with_(self, **tensors: Tensor) -> "Batch":
        """A copy with these tensors replaced."""
        return replace(self, **tensors)

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device."""
        return Batch(**{name: getattr(self, name).to(device) for name in self.__dataclass_fields__})


@dataclass(frozen=True, slots=True)
class PolicyOutput:
    """A forward pass over a batch: [batch, time] log-probabilities, entropies (nats) and values.

    ``values`` is None under a policy without a critic. Cells outside the mask are meaningless.
    """

    logprobs: Tensor
    entropy: Tensor
    values: Tensor | None
