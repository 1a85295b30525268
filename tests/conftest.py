"""Fixtures that several test modules use."""

from fixtures_judge import server

__all__ = ["server"]
