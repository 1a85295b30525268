"""What a part may need of others, which it states as a class attribute or property."""

from typing import Protocol


class DependsOnTask(Protocol):
    """A part that may need more of a task than a score."""

    @property
    def needs(self) -> frozenset[str]:
        """The names that must be in the task's ``gives``."""
        return frozenset()


class DependsOnCritic(Protocol):
    """A part that may read the critic's values or, as an objective, train the critic."""

    @property
    def needs_critic(self) -> bool:
        """Whether it does."""
        return False


class DependsOnEntropies(Protocol):
    """A part that may read the entropies of rollouts, which only the actor's own pass gives."""

    @property
    def needs_entropies(self) -> bool:
        """Whether it does."""
        return False


class DependsOnSiblings(Protocol):
    """A part that may compare rollouts of one start with each other."""

    @property
    def needs_siblings(self) -> bool:
        """Whether it does."""
        return False
