"""Signs of life between ranks: a host that has gone, or a cable that is cut, is noticed by all within minutes.

A collective waits for a rank whose host has gone without a word as it waits for one that works.
"""

import os
import threading
from collections.abc import Iterable
from typing import Any

from rrl.processes.distributed import rank, world_size

EVERY = 1.0
"""Seconds between two signs."""
LEFT = -(2**40)
"""Added by a rank to its number when it ends."""


class SignsOfLife:
    """A thread that gives this rank's signs, and takes those of its peers, until ``end``.

    Each rank but the first counts up a number in the store by which they found each other; the first one looks whether
    they grow. The others hear of it by the store's answers: that of a host which has gone never comes.
    """

    def __init__(self) -> None:
        self._heard: set[int] = set()
        self._silence: dict[int, float] = {}
        self._over = threading.Event()
        if world_size() > 1:
            threading.Thread(target=self._exchange, name="signs of life", daemon=True).start()

    def end(self) -> None:
        self._over.set()

    def longest_silence(self, passed: float) -> tuple[int, float]:
        """The peer that has been silent for longest, and for how many seconds; (-1, 0) where none is known.

        Called again and again, with the seconds ``passed`` since the last call, in which this process was not stopped.
        """
        heard, self._heard = self._heard, set()
        self._silence = {peer: silence + passed for peer, silence in self._silence.items()} | dict.fromkeys(heard, 0.0)
        return max(self._silence.items(), key=lambda item: item[1], default=(-1, 0.0))

    def _exchange(self) -> None:
        try:
            store, counts = _connect(), dict[int, int]()
            while not self._over.wait(EVERY):
                self._heard.update(self._peers(store, counts))
            if rank() > 0:
                store.add(str(rank()), LEFT)
        except RuntimeError:  # the first rank's process has ended, of which the collectives tell
            self._heard, self._silence = set(), {}

    def _peers(self, store: Any, counts: dict[int, int]) -> Iterable[int]:
        """The peers that gave a sign since the last call."""
        if rank() > 0:
            store.add(str(rank()), 1)
            return [0]
        before = dict(counts)
        counts.update((number, store.add(str(number), 0)) for number in range(1, world_size()))
        return [number for number, count in counts.items() if count < 0 or count != before.get(number, 0)]


def _connect() -> Any:
    """A connection of this thread's own: on that of others it would wait for their answers."""
    from torch import distributed

    place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = distributed.TCPStore(*place, is_master=False, wait_for_workers=False)  # type: ignore[attr-defined]
    return distributed.PrefixStore("rrl/signs of life", store)  # type: ignore[attr-defined]
