"""Reinforcement learning of language models with retrospective replay."""

__version__ = "0.1.0"
