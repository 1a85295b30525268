"""What several test modules use, and what makes all of them faster."""

import gc
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tensors here are tiny: a second thread costs more than it brings

import pytest

from fixtures_judge import server  # it imports torch, which reads that once

__all__ = ["server"]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of several workers one runs all of a file, whose tests share what they make, and one all that watch clocks."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.nodeid.split("::")[0]))


def pytest_collection_finish() -> None:
    """What is imported is not looked at again by each collection, which would take much of the time."""
    gc.collect()
    gc.freeze()
