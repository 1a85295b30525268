"""What a judge's replies have cost: questions, tokens, money."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from rrl.parts.judges.replies import Reply


@dataclass(frozen=True, kw_only=True)
class Prices:
    """Prices of a million tokens in one currency; None where they are not known."""

    prompt: float | None
    completion: float | None

    def of(self, tokens: Counter[str]) -> float | None:
        """The price of so many tokens of each kind."""
        if self.prompt is None or self.completion is None:
            return None
        return (tokens["prompt"] * self.prompt + tokens["completion"] * self.completion) / 1e6


@dataclass
class Ledger:
    """Counts replies as they come: those paid for now, those kept from before, and failures by reason."""

    prices: Prices
    paid: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)

    def count(self, reply: Reply, *, kept: bool) -> None:
        """One reply more."""
        side = self.kept if kept else self.paid
        side.update(replies=1, prompt=reply.prompt_tokens, completion=reply.completion_tokens)

    def summary(self) -> dict[str, Any]:
        """Plain data; ``cost`` is in the currency of the prices."""
        return {
            "paid_now": self._side(self.paid),
            "kept_from_before": self._side(self.kept),
            "failures": dict(self.failures),
        }

    def _side(self, tokens: Counter[str]) -> dict[str, Any]:
        return {
            "replies": tokens["replies"],
            "prompt_tokens": tokens["prompt"],
            "completion_tokens": tokens["completion"],
            "cost": self.prices.of(tokens),
        }
