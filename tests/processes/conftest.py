"""What the tests of processes share."""

import os

import pytest


@pytest.fixture
def started_by_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """No launcher around the tests is seen."""
    for name in [*os.environ]:
        if name.startswith("SLURM_") or name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            monkeypatch.delenv(name)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("RRL_PARTS", raising=False)
