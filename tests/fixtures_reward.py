"""A reward that tells what it sees of its process, and misbehaves as RRL_TEST_ACT says: the tests of launching."""

import json
import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from rrl.distributed import rank
from rrl.interfaces import Reward
from rrl.types import Feedback, Rollout


@dataclass(frozen=True)
class Scripted(Reward):
    """Pays the share of even token ids on the last token, so that a random model has something to learn."""

    def __call__(self, rollout: Rollout, feedback: Feedback) -> list[float]:
        _tell()
        _act(os.environ["RRL_TEST_ACT"])
        share = sum(token % 2 == 0 for token in rollout.actions) / len(rollout.actions)
        return [0.0] * (len(rollout.actions) - 1) + [share]


def _tell() -> None:
    heavy = sorted({"hydra", "torch"} & sys.modules.keys())
    about = {"pid": os.getpid(), "modules": heavy, "devices": os.environ.get("CUDA_VISIBLE_DEVICES")}
    (Path(os.environ["RRL_TEST_SEEN"]) / f"seen-{rank()}").write_text(json.dumps(about))


def _act(act: str) -> None:
    """Pause, sleep for ever, hold the interpreter for ever, or fail, on the rank that is named."""
    what, _, where = act.partition(":")
    if what == "none" or rank() != int(where):
        return
    if what == "pause":
        time.sleep(0.5)
    elif what == "sleep":
        sleep_for_ever()
    elif what == "match":
        match_for_ever()
    else:
        raise RuntimeError("this reward always fails")


def sleep_for_ever() -> None:
    while True:
        time.sleep(3600)


def match_for_ever() -> None:
    """A regular expression that takes 2**60 steps, in which no other thread of Python gets to run."""
    re.match(r"(a|a)*b", "a" * 60)
