"""What the tests of commands share."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def own_messages() -> Iterator[None]:
    """As the commands do: messages of this project from INFO on."""
    logger = logging.getLogger("rrl")
    before = logger.level
    logger.setLevel(logging.INFO)
    yield
    logger.setLevel(before)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of each test's own."""
    monkeypatch.setenv("RRL_CACHE", str(tmp_path / "cache"))
