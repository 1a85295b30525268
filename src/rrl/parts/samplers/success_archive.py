"""An archive of rare own successes, from whose beginnings the policy starts, and its control."""

from rrl.parts.samplers.controls import Redraw, SuccessPrefix


class SuccessArchive(SuccessPrefix):
    """Starts from the beginnings of own successes, in a step at most as many times as there are such states.

    So that a few rare successes are not most of a step: PrefixRL (arXiv 2601.18795) has many from the outset.
    """

    def _wanted(self, count: int) -> int:
        held = len(self.buffer)
        return min(super()._wanted(count), held if self.siblings is None else self.siblings.fresh_for(held))


class SuccessArchiveRedraw(Redraw, SuccessArchive):
    """The control: the same problems on the same schedule, the prefix emptied."""
