"""What several test modules use, and that the collector of garbage leaves alone what was imported."""

import gc

from fixtures_judge import server

__all__ = ["server"]


def pytest_collection_finish() -> None:
    """What is imported is not looked at again by each collection, which would take much of the time."""
    gc.collect()
    gc.freeze()
