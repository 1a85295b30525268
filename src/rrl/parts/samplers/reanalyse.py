"""Replay of failures that the present policy cuts: where to go back to is decided when they are drawn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from rrl.contracts import border
from rrl.interfaces import StateDict
from rrl.parts.samplers.controls import Redraw
from rrl.parts.samplers.demands import examines, reads_errors
from rrl.parts.samplers.retrospective import Retrospective
from rrl.parts.samplers.rows import StoredState
from rrl.parts.samplers.silence import Standstill
from rrl.types import Batch, Judged, Metrics, State


@dataclass(kw_only=True)
class Reanalyse(Retrospective):
    """Remembers whole failures, and cuts them anew whenever they are drawn, by the policy and critic of that moment.

    So that the cut keeps up with the policy: MuZero Reanalyse (arXiv 2104.06294) reads stored games with the latest
    network, too. Nothing is generated for it. A response is remembered if the rule finds a cut when it is written; one
    in which it finds none any more is begun at the prompt, and of several cuts one is drawn evenly. Draws go by the
    ``doubt`` and the score of that first reading, of several cuts those of the one with the highest score.
    """

    _read: tuple[float, float] = field(init=False, default=(0.0, 0.0))  # mean length and share without a cut
    _standstill: Standstill = field(init=False, default_factory=Standstill)

    def __post_init__(self) -> None:
        super().__post_init__()
        if reads_errors(self.selection) or examines(self.selection):
            raise ValueError(
                f"selection: {type(self.selection).__name__} asks the task or the policy about a response when it is "
                "written, not when it is read again; expected another rule, or sampler=retrospective"
            )

    def observe(self, judged: Sequence[Judged], batch: Batch) -> Metrics:
        """As ``Retrospective``; ``replay/prefix_length/mean`` is that of the cuts of the last draw."""
        length, uncut = self._read
        return super().observe(judged, batch) | {"replay/prefix_length/mean": length, "replay/uncut_frac": uncut}

    def remembered(self) -> list[State]:
        """The failures as the policy of now cuts them, without those in which it finds no cut."""
        return [state for state in super().remembered() if state.prefix]

    def state_dict(self) -> StateDict:
        return super().state_dict() | {"read": self._read, "idle": self._standstill.steps}

    def load_state_dict(self, state: StateDict) -> None:
        super().load_state_dict(state)
        self._read, self._standstill = state["read"], Standstill(state["idle"])

    def _kept(self, response: tuple[int, ...], scores: Mapping[int, float]) -> dict[int, tuple[int, ...]]:
        return {cut: response for cut in sorted(scores, key=lambda cut: -scores[cut])[:1]}

    def _reviewed(self, remembered: list[StoredState]) -> list[StoredState]:
        scores = self._inspect([State(self._problems[each.problem_id], each.prefix) for each in remembered])
        reviewed = []
        for stored, scored in zip(remembered, scores, strict=True):
            cuts = border.cuts(self.selection, scored, self._legal(stored.prefix), self._rng) or [0]
            reviewed.append(stored._replace(prefix=stored.prefix[: self._rng.choice(cuts)]))
        lengths = [len(each.prefix) for each in reviewed if each.prefix]
        self._read = fmean(lengths or [0.0]), 1 - len(lengths) / max(1, len(reviewed)) if reviewed else 0.0
        self._standstill.heed(
            not reviewed or bool(lengths),
            f"{self.selection} found no cut in any failure that was drawn, so that all were begun at the prompt; look "
            "at replay/uncut_frac; move its bounds, or use sampler=retrospective",
        )
        return reviewed


class ReanalyseRedraw(Redraw, Reanalyse):
    """The control: the same problems on the same schedule, the prefix emptied."""
