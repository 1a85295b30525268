"""A step of the memory of states, from 10^4 to 10^7 of them: milliseconds by priority, and bytes a state.

    python experiments/bench/states.py [most states]

A step draws 4,096 starts, all from remembered states, books their outcomes (none dies or is mastered) and makes the
metrics. Prefixes have 16 tokens, problems 40 states each. ``add`` is one more state for a full memory, which gives up
its lowest. Every size has a process of its own, of at most 3.5 GiB, with 11 steps a priority; the medians are printed
and put into the file that ``bench.py`` writes.
"""

import gc
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import bench
import torch

from rrl.parts.samplers.buffer import WEIGHTS, StateBuffer
from rrl.parts.samplers.retrospective import Retrospective
from rrl.parts.samplers.rows import Candidate
from rrl.parts.samplers.schedule import Schedule
from rrl.parts.selections.random_cut import RandomCut
from rrl.types import Example, Feedback, Judged, Problem, Rollout, State, Verdict

PRIORITIES = (*WEIGHTS, "doubt", "lru_forest")
SIZES, DRAWN, STEPS, TOKENS, SIBLINGS = (10**4, 10**5, 10**6, 10**7), 4096, 11, 16, 40


def sampler(size: int) -> Retrospective:
    """One that starts from states only, and collects none while training is less than whole."""
    memory = StateBuffer(capacity=size, states_per_problem=SIBLINGS + 1, priority="uniform", keep_between=(0.0, 1.0))
    made = Retrospective(
        level_weights=None, selection=RandomCut(), buffer=memory, schedule=Schedule(share=1.0, collect=(1.0, 1.0)),
        sources="self", cut_points="token", max_response_length=TOKENS + 1, max_problem_success=0.5,
        success_momentum=0.7,
    )  # fmt: skip
    problems = [Problem(Example(f"problem {i}", "", "", "", ""), (), ()) for i in range(size // SIBLINGS)]
    made.start(problems, 0, lambda states: [], None)
    return made


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Milliseconds of the processor, and what came of it."""
    begin = time.process_time()
    result = work()
    return 1000 * (time.process_time() - begin), result


def judged(states: list[State]) -> list[Judged]:
    """Rollouts of one token from these states, every other one right."""
    verdicts = (Feedback(1.0, Verdict.RIGHT), Feedback(0.0, Verdict.WRONG))
    return [Judged(Rollout(s, (1,), (0.0,), (0.0,), True, "", 0), verdicts[i % 2]) for i, s in enumerate(states)]


def step(made: Retrospective) -> tuple[float, float]:
    """Milliseconds of the draw and of the rest."""
    drawing, states = timed(lambda: made.sample(DRAWN, 0.5))
    outcomes: Any = judged(states)
    booking, _ = timed(lambda: made.observe(outcomes, None))  # type: ignore[arg-type]
    return drawing, booking


def add(made: Retrospective, random: Random, times: int, problems: int) -> float:
    """Microseconds to remember one more state of the first so many problems."""
    tokens, names = tuple(random.randrange(150_000) for _ in range(TOKENS - 2)), list(made._problems)[:problems]

    def work() -> None:
        for i in range(times):
            prefix = (random.randrange(150_000), random.randrange(150_000), *tokens)
            score, doubt = random.random(), random.random()
            made.buffer.add(Candidate(names[i % problems], prefix, "self", score, 2 * TOKENS, doubt, 0.0), 0)

    taken, _ = timed(work)
    made.buffer.journal.clear()  # as every step does
    return 1000 * taken / times


def repeat(made: Retrospective, times: int) -> None:
    """Fill the memory with as many copies of what it holds, each of other problems."""
    state = made.buffer.state_dict()
    rows, names = state["rows"], list(made._problems)
    size, problems = len(rows["problems"]), len(made._problems) // times
    columns = {name: column.repeat(times) for name, column in rows["columns"].items()}
    copies = torch.arange(times).repeat_interleave(size) * size
    columns["number"] += copies
    columns["older"] += torch.where(columns["older"] < 0, 0, copies).int()
    placed = dict(zip(names, range(problems), strict=False))
    rows |= {
        "columns": columns, "tokens": rows["tokens"].repeat(times), "born": size * times,
        "problems": [names[placed[name] + i * problems] for i in range(times) for name in rows["problems"]],
        "totals": {name: total * times for name, total in rows["totals"].items()}, "room": size * times * 5 // 64 * 16,
    }  # fmt: skip
    made.buffer.load_state_dict(state)


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def measure(size: int) -> dict[str, float]:
    """Microseconds of an add to a full memory, bytes a state, and milliseconds of a draw and a step by priority."""
    made, random = sampler(size), Random(0)
    before, copies = resident(), max(1, size // 10**5)
    problems = size // SIBLINGS // copies
    add(made, random, size // copies, problems)
    repeat(made, copies)
    gc.collect()
    result = {"bytes": (resident() - before) / size, "add": add(made, random, 1000, problems)}
    state = made.buffer.state_dict() | {"turns": list(made.buffer._rows.newest), "turn": 0}
    for priority in PRIORITIES:
        made.buffer = replace(made.buffer, priority=priority)  # a new one, of the same settings
        made.buffer.load_state_dict(state)
        step(made)
        times = [step(made) for _ in range(STEPS)]
        drawing, booking = (statistics.median(column) for column in zip(*times, strict=True))
        result |= {f"{priority}_draw": drawing, f"{priority}_step": drawing + booking}
    return result


def main(most: int) -> None:
    """Measure each size, print the table, and put the rows into the file."""
    rows = []
    print("states     add us  bytes a state" + "".join(f"  {name}: draw, step ms" for name in PRIORITIES))
    for size in (size for size in SIZES if size <= most):
        found = json.loads(subprocess.check_output([sys.executable, __file__, "one", str(size)], text=True))
        times = "".join(f"{found[f'{name}_draw']:18.1f} {found[f'{name}_step']:6.1f}" for name in PRIORITIES)
        print(f"{size:<10,} {found['add']:6.0f} {found['bytes']:14.0f}{times}", flush=True)
        rows.append({"name": f"states_{size}", **found})
    bench.record(rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["one"]:
        print(json.dumps(measure(int(sys.argv[2]))))
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else SIZES[-1])
