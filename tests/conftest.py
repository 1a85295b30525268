"""What several test modules use, and what makes all of them faster."""

import gc
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tensors here are tiny: a second thread costs more than it brings

from fixtures_judge import server  # it imports torch, which reads that once

__all__ = ["server"]


def pytest_collection_finish() -> None:
    """What is imported is not looked at again by each collection, which would take much of the time."""
    gc.collect()
    gc.freeze()
