"""The table of the study: which arm is whose control, differences paired by seed, and what was tested."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from rrl.records.status import write_state

ARMS = [
    "sampler=problems", "sampler=allocation", "sampler=allocation sampler.schedule.share=0", "sampler=pass_rate",
    "sampler=pass_rate_redraw", "sampler=retrospective selection=pivot", "sampler=redraw selection=pivot",
    "sampler=redraw selection=peak", "selection=peak sampler=retrospective",
]  # fmt: skip


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "experiments" / "study")
    return importlib.import_module("table")


@pytest.mark.parametrize(
    ("arm", "control"),
    [("sampler=retrospective selection=pivot", "sampler=redraw selection=pivot"),
     ("selection=peak sampler=retrospective", "sampler=redraw selection=peak"),
     ("sampler=allocation", "sampler=allocation sampler.schedule.share=0"),
     ("sampler=pass_rate", "sampler=pass_rate_redraw"), ("sampler=problems", None),
     ("sampler=allocation sampler.schedule.share=0", None), ("sampler=redraw selection=pivot", None),
     ("sampler=retrospective selection=entropy", None)],
)  # fmt: skip
def test_an_arm_is_compared_with_its_own_control(arm: str, control: str | None, table: Any) -> None:
    assert table.control_of(arm, ARMS) == control


def run(folder: Path, sampler: str, seed: int, accuracies: tuple[float, ...], tokens: int = 1000) -> None:
    """A finished run's records: accuracies at even distances of generated tokens."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(f"seed: {seed}\nalgo: rrl\nsampler: {{name: {sampler}}}\n")
    command = ["rrl-train", f"sampler={sampler}", f"seed={seed}"]
    (folder / "manifest.json").write_text(json.dumps({"seed": seed, "command": command}))
    write_state(folder, "finished")
    ends = [tokens * i // (len(accuracies) - 1) for i in range(len(accuracies))]
    rows = [
        {
            "step": i,
            "tokens_generated": end,
            "mean@4": {"accuracy": a, "pass@k": {"1": {"value": a}, "4": {"value": a + 0.1}}},
        }
        for i, (end, a) in enumerate(zip(ends, accuracies, strict=True))
    ]
    (folder / "evaluations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    solves = {} if sampler == "problems" else {"replay/first_solves": 2.0}
    metrics = [{"step": i, **solves, "actor/entropy": 0.5} for i in range(3)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics))


def test_differences_are_paired_by_seed_and_tested_together(table: Any, tmp_path: Path) -> None:
    for seed in range(4):
        base = 0.1 * seed
        run(tmp_path / f"p{seed}", "problems", seed, (0.0, base, base))
        run(tmp_path / f"r{seed}", "retrospective", seed, (0.0, base + 0.2, base + 0.2))
        run(tmp_path / f"c{seed}", "redraw", seed, (0.0, base + 0.1, base + (0.1 if seed else 0.3)))
    result = table.compare(tmp_path, None)
    ppo, own, control = (result["arms"][f"sampler={name}"] for name in ("problems", "retrospective", "redraw"))
    assert (result["budget"], result["baseline"]) == (1000, "sampler=problems")
    assert ppo["values"]["40%"]["values"] == pytest.approx([0.0, 0.08, 0.16, 0.24])
    assert own["minus_ppo"]["values"] == pytest.approx([0.2] * 4) and own["minus_ppo"]["p"] == 2 / 16
    assert own["minus_ppo"]["holm"] == control["minus_ppo"]["holm"] == 4 / 16  # two arms were tested
    assert own["control"] == "sampler=redraw" and own["minus_control"]["holm"] == own["minus_control"]["p"]
    assert own["minus_control"]["values"] == pytest.approx([0.2 - 0.14, 0.1, 0.1, 0.1])
    assert "minus_ppo" not in ppo and "minus_control" not in control
    assert own["tokens_to_ppo"] == [375, 250, 188, 150]  # to .15, PPO's mean at the end; .5 * .15 / (.2 + .1 seed)
    assert (own["first_solves"], own["entropy"], own["k"], own["pass@k"]) == (6.0, 0.5, 4, pytest.approx(0.45))
    assert ppo["first_solves"] is None  # which it does not count: not 0
    text = table.as_table(result).markdown()
    assert "| 0.450 (k = 4) | 0.500 |" in text and "| - | 0.250 (k = 4) | 0.500 |" in text
    assert "| sampler=redraw | 4 |" in text and "0.200 ± 0.000 | 0.125 (0.250)" in text


def test_a_study_without_ppo_is_refused(table: Any, tmp_path: Path) -> None:
    run(tmp_path / "r", "retrospective", 0, (0.0, 0.5))
    with pytest.raises(SystemExit, match="no arm with sampler=problems; expected PPO among"):
        table.compare(tmp_path, None)
