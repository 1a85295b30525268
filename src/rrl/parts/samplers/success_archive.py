"""An archive of rare own successes, from whose beginnings the policy starts, and its control."""

from rrl.parts.samplers.controls import Redraw, SuccessPrefix


class SuccessArchive(SuccessPrefix):
    """Starts from the beginnings of own successes, in a step at most as many times as there are such states.

    So that a few rare successes are not most of a step: PrefixRL (arXiv 2601.18795) has many from the outset. The
    running success of a problem begins with its first start's, so that one which always succeeds is mastered at once.
    """

    def _wanted(self, count: int) -> int:
        held = len(self.buffer)
        return min(super()._wanted(count), held if self.siblings is None else self.siblings.fresh_for(held))

    def _move(self, problem_id: str, success: float) -> None:
        self._success.setdefault(problem_id, success)
        super()._move(problem_id, success)


class SuccessArchiveRedraw(Redraw, SuccessArchive):
    """The control: the same problems on the same schedule, the prefix emptied."""
