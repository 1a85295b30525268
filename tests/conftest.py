"""What several test modules use, and what makes all of them faster."""

import gc
import os
from functools import cache
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tensors here are tiny: a second thread costs more than it brings

import pytest

from fixtures_judge import server  # it imports torch, which reads that once

__all__ = ["server"]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Of several workers one runs all of a file, whose tests share what they make, and one all that watch clocks."""
    from xdist.scheduler import LoadScopeScheduling

    @cache
    def group(file: str) -> str:
        text = (config.rootpath / file).read_text(encoding="utf-8")  # marks are known to the workers alone
        return "clock" if "pytest.mark.clock" in text else file

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group(nodeid.split("::")[0])

    return ByFile(config, log)


def pytest_collection_finish() -> None:
    """What is imported is not looked at again by each collection, which would take much of the time."""
    gc.collect()
    gc.freeze()
