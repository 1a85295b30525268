"""All numbers of the study on one task, from the lines of collect.py: by share of the budget, paired by seed."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from collect import Line
from protocol import Protocol

from rrl.errors import DataError
from rrl.study.comparison import at, summary, tokens_to
from rrl.study.paired import holm, share_of_lead, sign_flip_test
from rrl.study.sigmoid import fit

MARKS = (0.2, 0.4, 0.6, 0.8, 1.0)
"""Shares of the budget at which accuracies are compared."""
FITTED = 20
"""Budgets, evenly apart, at which curves are fitted."""
WRITING = (0.5, 0.75)
"""Shares of the baseline's work that writing may take, for which arms are compared after the same work."""
Curve = list[tuple[float, float]]
Arms = Mapping[str, Mapping[int, Line]]
"""By arm and seed."""


def compare(about: Protocol, lines: Sequence[Line], stage: str) -> dict[str, Any]:
    """Every number as plain data. Accuracies between evaluations are interpolated linearly.

    Raises DataError with all that cannot be compared.
    """
    faults = of_lines(about, lines, stage)
    if faults:
        raise DataError(*faults)
    arms = by_arm(about, lines)
    mode = next(iter(lines[0]["accuracy"]))
    study = Study(about, arms, mode)
    rows = {arm: study.row(arm) for arm in arms}
    for name in ("minus_baseline", "minus_control"):
        for mark in {about.judged, 1.0}:
            _correct(about, [(arm, row[name][percent(mark)]) for arm, row in rows.items() if row[name]])
    return {
        "task": about.task,
        "stage": stage,
        "level": about.level,
        "mode": mode,
        "budget": about.budget,
        "judged_at": about.judged,
        "marks": [percent(mark) for mark in marks(about)],
        "baseline": about.baseline,
        "rules": [arm for arm in about.named("rule") if arm in arms],
        "missing": {
            arm: seeds for arm in about.arms if (seeds := sorted(set(about.seeds[stage]) - set(arms.get(arm, ()))))
        },
        "code": dict(Counter(str(line["code"]) for line in lines)),
        "processors": dict(Counter(str(line["processor"]) for line in lines)),
        "arms": rows,
    }


def of_lines(about: Protocol, lines: Sequence[Line], stage: str) -> list[str]:
    """What keeps lines from being compared."""
    own = [line for line in lines if line["arm"] == about.baseline]
    if not own:
        found = ", ".join(sorted({line["arm"] for line in lines})) or "none"
        return [f"{stage}: no run of {about.baseline}, the baseline of {about.task}; expected one or more, got {found}"]
    mode, questions = next(iter(own[0]["accuracy"])), own[0]["questions"]
    faults = [fault for line in lines for fault in _of_line(about, line, stage, mode, questions)]
    found = defaultdict[tuple[str, int], list[str]](list)
    configurations = defaultdict[str, dict[str, list[int]]](dict)
    for line in lines:
        found[line["arm"], line["seed"]].append(line["run"])
        configurations[line["arm"]].setdefault(line["config"], []).append(line["seed"])
    for (arm, seed), runs in found.items():
        if len(runs) > 1:
            faults.append(f"{stage}: {', '.join(runs)} are all {arm} with seed {seed}; expected one; remove the others")
    for arm, seeds in configurations.items():
        if len(seeds) > 1:
            which = "; ".join(f"{key}: seeds {', '.join(map(str, sorted(each)))}" for key, each in seeds.items())
            faults.append(
                f"{stage}: {arm} has runs of several configurations ({which}); expected one; repeat the older"
            )
    return faults


def _of_line(about: Protocol, line: Line, stage: str, mode: str, questions: str | None) -> list[str]:
    name = f"{stage}: {line['run']} ({line['arm']}, seed {line['seed']})"
    accuracies = line["accuracy"].get(mode, {})
    seeds = ", ".join(map(str, about.seeds[stage]))
    checks = (
        (line["arm"] in about.arms, "is no arm of arms.yml; expected one of " + ", ".join(about.arms)),
        (line["seed"] in about.seeds[stage], f"has no seed of {stage}; expected one of {seeds}"),
        (line["tokens"][-1] >= about.budget,
         f"ended at {line['tokens'][-1]:,} tokens; expected the budget of {about.budget:,} or more"),
        (line["tokens"][0] == 0, "has no evaluation before training; expected one at 0 tokens"),
        (about.level in accuracies, f"has no {mode} of level {about.level}; expected one, of {', '.join(accuracies)}"),
        (line["questions"] == questions, "was measured on other questions than the baseline; expected the same"),
    )  # fmt: skip
    return [f"{name} {fault}" for sound, fault in checks if not sound]


def by_arm(about: Protocol, lines: Sequence[Line]) -> dict[str, dict[int, Line]]:
    """The lines by arm, in the order of arms.yml, and by seed."""
    arms = {arm: sorted((line for line in lines if line["arm"] == arm), key=lambda line: line["seed"])
            for arm in about.arms}  # fmt: skip
    return {arm: {line["seed"]: line for line in own} for arm, own in arms.items() if own}


def marks(about: Protocol) -> list[float]:
    return sorted({*MARKS, about.judged})


def percent(mark: float) -> str:
    return f"{mark:.0%}"


def curve_of(line: Line, level: str, axis: str = "tokens", mode: str | None = None) -> Curve:
    """A run's accuracies, sampled ones unless there is a ``mode``, by tokens, steps or seconds."""
    values = line["accuracy"][mode or next(iter(line["accuracy"]))][level]
    return [(x, y) for x, y in zip(line[axis], values, strict=True) if y is not None]


class Study:
    """The numbers of one arm at a time, against the others."""

    def __init__(self, about: Protocol, arms: Arms, mode: str) -> None:
        self.about, self.arms, self.mode = about, arms, mode
        self.goal = fmean(self.at(line, 1.0) for line in arms[about.baseline].values())

    def row(self, arm: str) -> dict[str, Any]:
        """Everything about an arm."""
        own, about = self.arms[arm], self.about
        control = about.arms[arm].control
        first = next(iter(own.values()))
        return {
            "kind": about.arms[arm].kind,
            "control": control,
            "seeds": sorted(own),
            "configuration": first["config"],
            "accuracy": {level: self.by_mark(own, self.mode, level) for level in first["accuracy"][self.mode]},
            "greedy": self.by_mark(own, "greedy", about.level) if "greedy" in first["accuracy"] else None,
            "tokens_to_baseline": [tokens_to(curve_of(line, about.level), self.goal) for line in own.values()],
            "k": first["k"],
            "minus_baseline": None if arm == about.baseline else self.differences(arm, about.baseline),
            "minus_control": None if control is None else self.differences(arm, control),
            "minus_tuned": self.minus_tuned(arm),
            "share_of_bound": self.share(arm),
            **{name: self.recorded(own, name) for name in ("first_solves", "unsolved", "entropy", "replay", "pass")},
            **{f"by_{axis}": self.beside(arm, axis) for axis in ("step", "seconds")},
            "by_work": {percent(writing): self.beside(arm, writing) for writing in WRITING},
            "sigmoid": self.sigmoid(own),
        }

    def at(self, line: Line, mark: float) -> float:
        return at(curve_of(line, self.about.level), mark * self.about.budget)

    def by_mark(self, own: Mapping[int, Line], mode: str, level: str) -> dict[str, Any]:
        curves = [curve_of(line, level, mode=mode) for line in own.values()]
        return {percent(mark): means([at(curve, mark * self.about.budget) for curve in curves])
                for mark in marks(self.about)}  # fmt: skip

    def leads(self, arm: str, other: str, mark: float, seeds: Sequence[int]) -> list[float]:
        return [self.at(self.arms[arm][seed], mark) - self.at(self.arms[other][seed], mark) for seed in seeds]

    def common(self, *arms: str) -> list[int]:
        return sorted(set.intersection(*(set(self.arms.get(arm, ())) for arm in arms)))

    def differences(self, arm: str, other: str) -> dict[str, Any] | None:
        """Paired by seed, at the mark and at the end; None without a seed in common."""
        seeds = self.common(arm, other)
        if not seeds:
            return None
        found = {mark: self.leads(arm, other, mark, seeds) for mark in (self.about.judged, 1.0)}
        return {percent(mark): {**summary(each), "seeds": seeds, "p": sign_flip_test(each)}
                for mark, each in found.items()}  # fmt: skip

    def minus_tuned(self, arm: str) -> dict[str, Any]:
        """Of a rule or the bound: paired by seed, from every control that is tuned by itself."""
        if self.about.arms[arm].kind not in ("rule", "bound"):
            return {}
        others = self.about.tuned_controls()
        return {name: found for name in others if (found := self.differences(arm, name)) is not None}

    def share(self, arm: str) -> dict[str, Any] | None:
        """Of the bound's lead over the baseline, at the mark; of rules only."""
        bound, first = next(iter(self.about.named("bound")), None), self.about.baseline
        if bound is None or self.about.arms[arm].kind != "rule":
            return None
        seeds = self.common(arm, bound, first)
        leads = [self.leads(name, first, self.about.judged, seeds) for name in (arm, bound)]
        found = share_of_lead(*leads) if seeds else None
        return None if found is None else {**found, "seeds": seeds}

    def recorded(self, own: Mapping[int, Line], name: str) -> dict[str, float] | None:
        """Means over runs at the mark and at the end; None where a run does not record it."""
        found: dict[str, float] = {}
        for mark in (self.about.judged, 1.0):
            values = []
            for line in own.values():
                column = (line["pass"] or {}).get(self.about.level) if name == "pass" else line[name]
                curve = [(x, y) for x, y in zip(line["tokens"], column or (), strict=bool(column)) if y is not None]
                values += [at(curve, mark * self.about.budget)] if curve else []
            if len(values) < len(own):
                return None
            found[percent(mark)] = fmean(values)
        return found

    def beside(self, arm: str, axis: str | float) -> dict[str, Any] | None:
        """Where the baseline's run of the same seed stood at the mark, by step, by seconds or by work: accuracy, minus
        the baseline's there and minus the own control's.

        Work is calculated, for a share ``axis`` of the baseline's that is writing: writing counts by the token, all
        else by the step, and of an arm with ``extra`` so much more. ``ended`` counts the runs that had ended by then;
        their last accuracy is taken. None without seconds or seeds, and by seconds where a pair was run on two kinds
        of processor.
        """
        first, control = self.arms[self.about.baseline], self.about.arms[arm].control
        own, other = self._there(arm, axis), self._there(control, axis) if control else {}
        if not own:
            return None
        both = sorted(own.keys() & other.keys())
        return {
            "at": fmean(place for place, _ in own.values()),
            "accuracy": means([height for _, height in own.values()]),
            "minus_baseline": summary([own[seed][1] - self.at(first[seed], self.about.judged) for seed in own]),
            "minus_control": summary([own[seed][1] - other[seed][1] for seed in both]) if both else None,
            "ended": sum(self._along(arm, seed, axis)[-1] < place for seed, (place, _) in own.items()),
            "seeds": list(own),
        }

    def _there(self, arm: str, axis: str | float) -> dict[int, tuple[float, float]]:
        """By seed, where the baseline's run stood at the mark, and the accuracy of the arm's there."""
        own, first = self.arms.get(arm, {}), self.arms[self.about.baseline]
        seeds = self.common(arm, self.about.baseline)
        if axis == "seconds" and any(line[seed]["seconds"] is None for line in (own, first) for seed in seeds):
            return {}
        if axis == "seconds" and any(own[seed]["processor"] != first[seed]["processor"] for seed in seeds):
            return {}
        found = dict[int, tuple[float, float]]()
        for seed in seeds:
            place = self._place(seed, axis)
            curve = curve_of({**own[seed], "along": self._along(arm, seed, axis)}, self.about.level, "along")
            found[seed] = place, at(curve, place)
        return found

    def _along(self, arm: str, seed: int, axis: str | float) -> list[float]:
        """The steps, the seconds or the work of a run at its evaluations; the baseline's work up to the mark is 1."""
        line = self.arms[arm][seed]
        if isinstance(axis, str):
            return list(line[axis])
        steps = self._place(seed, "step")
        rest = (1 - axis) * (1 + self.about.arms[arm].extra)
        written = zip(line["tokens"], line["step"], strict=True)
        return [axis * tokens / self._mark + rest * step / steps for tokens, step in written]

    def _place(self, seed: int, axis: str | float) -> float:
        """Where the baseline's run stood at the mark."""
        first = self.about.baseline
        along = self._along(first, seed, axis)
        return at(list(zip(self.arms[first][seed]["tokens"], along, strict=True)), self._mark)

    @property
    def _mark(self) -> float:
        """Tokens up to the mark."""
        return self.about.judged * self.about.budget

    def sigmoid(self, own: Mapping[int, Line]) -> dict[str, Any]:
        budgets = [self.about.budget * number / FITTED for number in range(FITTED + 1)]
        curves = [curve_of(line, self.about.level) for line in own.values()]
        return fit(budgets, [[at(curve, budget) for budget in budgets] for curve in curves])


def means(values: Sequence[float]) -> dict[str, Any]:
    """A summary without the values, which the lines have."""
    return {name: value for name, value in summary(values).items() if name != "values"}


def _correct(about: Protocol, found: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """Add Holm's p-values over the rules; those of other arms stay as they are."""
    rules = [difference for arm, difference in found if about.arms[arm].kind == "rule"]
    for difference, p in zip(rules, holm([each["p"] for each in rules]), strict=True):
        difference["holm"] = p
