"""metrics.jsonl is the truth whatever becomes of a sink; what Weights & Biases and TensorBoard keep is read back."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from fixtures.wandb_files import items, of_kind, offline_runs
from rrl.records.tracking import Sink, TensorBoard, Tracker, WandB

KEY = "0123456789abcdef" * 3
CONFIG = {"seed": 3, "trainer": {"n": 1}}


def wandb(**settings: Any) -> WandB:
    return WandB(**{"project": "p", "entity": None, "group": "g", "tags": ("a", "b"), "patience": 30.0, **settings})


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().split("\n") if line]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory of one's own and no word to W&B in the environment."""
    for name in list(os.environ):
        if name.startswith("WANDB_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# --- metrics.jsonl ----------------------------------------------------------------------------------------------------


class Notes(Sink):
    """A sink that writes down what it is told; ``broken`` is the call that it cannot do."""

    def __init__(self, broken: str = "") -> None:
        self.told: list[Any] = []
        self.broken = broken

    def _note(self, what: str, *about: Any) -> None:
        if what == self.broken:
            raise RuntimeError(f"no\n{what}")
        self.told.append((what, *about))

    def start(self, folder: Path, config: Mapping[str, Any], after: int | None) -> None:
        self._note("start", folder.name, config, after)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._note("log", step, metrics)

    def samples(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        self._note("samples", step, rows)

    def summary(self, result: Mapping[str, Any]) -> None:
        self._note("summary", result)

    def finish(self, complete: bool) -> None:
        self._note("finish", complete)


def test_a_sink_is_told_everything_in_order_and_nothing_after_the_end(folder: Path) -> None:
    notes = Notes()
    tracker = Tracker(folder, notes, CONFIG, None)
    tracker.log(0, {"x": 1.5})
    tracker.samples(0, [{"response": "a", "score": 1.0, "problem": {"id": "p"}, "replayed_from": None}])
    tracker.summary({"steps": 0})
    tracker.finish()
    tracker.finish()
    assert notes.told == [
        ("start", "run", CONFIG, None),
        ("log", 0, {"x": 1.5}),
        ("samples", 0, [{"response": "a", "score": 1.0, "problem": '{"id": "p"}', "replayed_from": None}]),
        ("summary", {"steps": 0}),
        ("finish", True),
    ]


def test_a_run_that_comes_to_no_summary_is_not_complete(folder: Path) -> None:
    notes = Notes()
    Tracker(folder, notes, CONFIG, 7).finish()
    assert notes.told == [("start", "run", CONFIG, 7), ("finish", False)]


def test_every_row_is_in_the_file_before_a_sink_hears_of_it(folder: Path) -> None:
    tracker = Tracker(folder, Notes("log"), CONFIG, None)
    tracker.log(0, {"x": 1.5})
    assert rows(folder) == [{"step": 0, "x": 1.5}]


@pytest.mark.parametrize("broken", ["start", "log", "samples", "summary", "finish"])
def test_a_sink_that_fails_is_told_of_once_and_costs_no_row(
    broken: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    notes = Notes(broken)
    tracker = Tracker(folder, notes, CONFIG, None)
    for step in range(3):
        tracker.log(step, {"x": float(step)})
        tracker.samples(step, [{"response": "a"}])
    tracker.summary({})
    tracker.finish()
    assert [row["step"] for row in rows(folder)] == [0, 1, 2]
    assert warnings(caplog) == [
        f"logger: Notes fails (RuntimeError: no {broken}); the run continues with metrics.jsonl alone"
    ]
    before = {"start": 0, "log": 1, "samples": 2, "summary": 7, "finish": 8}
    assert len(notes.told) == before[broken]


def test_a_sink_cannot_swallow_an_interruption(folder: Path) -> None:
    class Slow(Notes):
        def log(self, step: int, metrics: Mapping[str, float]) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Tracker(folder, Slow(), CONFIG, None).log(0, {})


def test_numbers_that_are_not_finite_are_null_in_the_file_and_themselves_in_a_sink(folder: Path) -> None:
    notes = Notes()
    metrics = {"a": float("nan"), "b": float("inf"), "c": -float("inf"), "d": 0.5, "e": 2}
    Tracker(folder, notes, CONFIG, None).log(0, metrics)
    assert (folder / "metrics.jsonl").read_text() == '{"step": 0, "a": null, "b": null, "c": null, "d": 0.5, "e": 2}\n'
    assert notes.told[-1] == ("log", 0, metrics)


@pytest.mark.parametrize(("after", "step"), [(None, 1), (None, -1), (4, 4), (4, 6), (0, 0)])
def test_a_row_that_would_make_a_hole_or_a_double_is_refused(after: int | None, step: int, folder: Path) -> None:
    tracker = Tracker(folder, None, CONFIG, after)
    with pytest.raises(
        AssertionError, match=f"got a row of step {step}, expected step {0 if after is None else after + 1}"
    ):
        tracker.log(step, {})
    assert rows(folder) == []


def test_a_resumed_run_appends_to_its_file(folder: Path) -> None:
    for after in (None, 0):
        tracker = Tracker(folder, None, CONFIG, after)
        tracker.log(0 if after is None else 1, {})
        tracker.finish()
    assert rows(folder) == [{"step": 0}, {"step": 1}]


# --- Weights & Biases: what is kept -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run that was stopped after step 2, taken back to step 1, and resumed to its end, offline."""
    folder = tmp_path_factory.mktemp("wandb") / "name-of-run"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("WANDB_API_KEY", "WANDB_MODE"):
            patch.delenv(name, raising=False)
        patch.setenv("HOME", str(folder.parent))
        patch.setattr(sys, "argv", ["/bin/rrl-train", "algo=rrl", f"x={KEY}"])
        patch.setenv("SOME_TOKEN", KEY)
        first = Tracker(folder, wandb(), CONFIG, None)
        for step in range(3):
            first.log(step, {"x": 1.5 * step, "group/y": float("nan") if step == 1 else 0.25})
        first.samples(5, [{"response": "a\nb", "score": 1.0}, {"response": "c", "level": "L3"}])
        first.finish()
        second = Tracker(folder, wandb(), CONFIG, 1)
        for step in (2, 3):
            second.log(step, {"x": 10.0 * step})
        second.summary({"steps": 3, "after": {"greedy": {"accuracy": 0.5}}})
        second.finish()
    yield folder


def histories(run: Sequence[Any]) -> list[dict[str, Any]]:
    return [items(history.item) for history in of_kind(run, "history")]


def test_every_metric_is_kept_on_the_axis_of_steps(kept: Path) -> None:
    axis = "training/global_step"
    first, second = offline_runs(kept)
    logged = [{k: v for k, v in row.items() if k in (axis, "x", "group/y")} for row in histories(first)[:3]]
    assert logged[0] == {axis: 0, "x": 0, "group/y": 0.25}
    assert logged[1].pop("group/y") != 0.25  # not a number
    assert logged[1:] == [{axis: 1, "x": 1.5}, {axis: 2, "x": 3, "group/y": 0.25}]
    assert [(row[axis], row["x"]) for row in histories(second)] == [(2, 20), (3, 30)]
    for run in (first, second):
        assert {(m.name or m.glob_name, m.step_metric) for m in of_kind(run, "metric")} == {(axis, ""), ("*", axis)}


def test_a_resumed_run_keeps_its_id_name_and_configuration(kept: Path) -> None:
    abouts = [about for run in offline_runs(kept) for about in of_kind(run, "run")]
    assert len(abouts) == 2
    for about in abouts:
        assert about.run_id == json.loads((kept / "wandb-run.json").read_text())["id"]
        assert (about.display_name, about.project, about.run_group, list(about.tags)) == (
            "name-of-run", "p", "g", ["a", "b"],
        )  # fmt: skip
        config = items(about.config.update)
        assert {name: config[name] for name in CONFIG} == CONFIG


def test_samples_are_a_table_under_their_step(kept: Path) -> None:
    row = histories(offline_runs(kept)[0])[3]
    assert (row["training/global_step"], row["samples/_type"], row["samples/nrows"]) == (5, "table-file", 2)
    (file,) = kept.glob(f"wandb/offline-run-*/files/{row['samples/path']}")
    table = json.loads(file.read_text())
    assert table["columns"] == ["step", "response", "score", "level"]
    assert table["data"] == [[5, "a\nb", 1.0, None], [5, "c", None, "L3"]]


def test_the_summary_is_the_result_and_only_a_complete_run_ends_well(kept: Path) -> None:
    first, second = offline_runs(kept)
    summary = {k: v for record in of_kind(second, "summary") for k, v in items(record.update).items()}
    assert (summary["steps"], summary["after"]) == (3, {"greedy": {"accuracy": 0.5}})
    assert [of_kind(run, "exit")[0].exit_code for run in (first, second)] == [1, 0]


def test_the_command_is_kept_without_secrets(kept: Path) -> None:
    about = next(e for e in of_kind(offline_runs(kept)[0], "environment") if e.program)
    assert (about.program, list(about.args)) == ("rrl-train", ["algo=rrl", "x=<SOME_TOKEN>"])


# --- Weights & Biases: what breaks ------------------------------------------------------------------------------------


def service(tracker: Tracker) -> tuple[psutil.Process, psutil.Process]:
    """W&B's process and the service process that it has started, once the run is open."""
    own = psutil.Process(tracker._sink._process._process.pid)  # type: ignore[union-attr]
    while True:
        assert own.is_running(), "W&B's process has ended"
        found = [child for child in own.children() if child.name() == "wandb-core"]
        if found and list(Path(own.cwd()).glob("wandb/offline-run-*/*.wandb")):
            return own, found[0]
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("victim", "blow", "patience", "why"),
    [
        (
            "service",
            signal.SIGKILL,
            30.0,
            r"\(\w+Error[:)]",
        ),
        ("process", signal.SIGKILL, 30.0, "its process ended with SIGKILL"),
        ("service", signal.SIGSTOP, 2.0, " within 2"),
        ("process", signal.SIGSTOP, 2.0, "it did not end within 2 s"),
    ],
)
def test_when_weights_and_biases_breaks_in_the_middle_the_run_goes_on_and_says_so_once(
    victim: str,
    blow: signal.Signals,
    patience: float,
    why: str,
    home: Path,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tracker = Tracker(folder, wandb(patience=patience), CONFIG, None)
    tracker.log(0, {"x": 0.0})
    process, core = service(tracker)
    try:
        (core if victim == "service" else process).send_signal(blow)
        wide = {f"metric/{number}": 1.0 for number in range(200)}
        for step in range(1, 100):  # more than pipes and sockets hold
            tracker.log(step, wide)
            time.sleep(0.01)
        tracker.summary({})
        tracker.finish()
    finally:
        for left in (process, core):
            if left.is_running():
                left.kill()
    assert [row["step"] for row in rows(folder)] == list(range(100))
    (told,) = warnings(caplog)
    assert told.startswith("logger: WandB fails (")
    assert re.search(why, told)
    assert told.endswith("); the run continues with metrics.jsonl alone")


def test_weights_and_biases_that_cannot_even_be_imported_stops_nothing(
    home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (home / "wandb.py").write_text("raise OSError('half\\ninstalled')")
    monkeypatch.setenv("PYTHONPATH", str(home))
    tracker = Tracker(folder, wandb(), CONFIG, None)
    tracker.log(0, {"x": 0.0})
    tracker.finish()
    assert rows(folder) == [{"step": 0, "x": 0.0}]
    assert warnings(caplog) == [
        "logger: WandB fails (OSError: half installed); the run continues with metrics.jsonl alone"
    ]


def test_what_weights_and_biases_does_not_take_waits_up_to_a_bound(
    home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("rrl.records.sidecar.MOST_WAITING", 2**20)
    (home / "wandb.py").write_text("import time\ntime.sleep(100)")
    monkeypatch.setenv("PYTHONPATH", str(home))
    tracker = Tracker(folder, wandb(), CONFIG, None)
    for step in range(100):
        tracker.samples(step, [{"response": "x" * 2**19}])
    assert warnings(caplog) == [
        "logger: WandB fails (it has not taken 1 MiB); the run continues with metrics.jsonl alone"
    ]


def test_ctrl_c_reaches_training_alone(home: Path, folder: Path) -> None:
    tracker = Tracker(folder, wandb(), CONFIG, None)
    own = tracker._sink._process._process  # type: ignore[union-attr]
    assert os.getpgid(own.pid) != os.getpgid(0)
    own.kill()
    tracker.finish()


KILLED = """
import os, sys, time
from pathlib import Path
from rrl.records.tracking import Tracker, WandB
folder = Path(sys.argv[1])
tracker = Tracker(folder, WandB(project="p", entity=None, group=None, tags=(), patience=30.0), {}, None)
tracker.log(0, {"x": 1.5})
while not list(folder.glob("wandb/offline-run-*/*.wandb")): time.sleep(0.05)
print(tracker._sink._process._process.pid, flush=True)
os.kill(os.getpid(), 9)
"""


def test_a_run_that_is_killed_has_failed_for_weights_and_biases_and_leaves_no_process(home: Path, folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = [psutil.Process(pid) for pid in map(int, done.stdout.split()) if psutil.pid_exists(pid)]
    assert psutil.wait_procs(left, timeout=60)[1] == []
    (run,) = offline_runs(folder)
    assert [row["x"] for row in histories(run)] == [1.5]
    assert of_kind(run, "exit")[0].exit_code == 1


# --- Weights & Biases: keys -------------------------------------------------------------------------------------------


def test_a_key_is_in_no_file_no_message_and_no_process_list(
    home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nothing answers there
    assert wandb().check() == []
    tracker = Tracker(folder, wandb(patience=6.0), CONFIG, None)
    tracker.log(0, {"x": 1.5})
    service(tracker)
    listed = subprocess.run(["ps", "-eww", "-o", "args"], capture_output=True, text=True, check=True).stdout
    tracker.finish()
    (told,) = warnings(caplog)
    assert "127.0.0.1:9" in told
    assert "this part of the run is kept offline" in told
    assert histories(offline_runs(folder)[0])[0]["x"] == 1.5
    assert "rrl.records.wandb_process" in listed
    assert KEY not in listed + told
    written = [path for top in (folder, home) for path in top.rglob("*") if path.is_file()]
    assert {"metrics.jsonl", "debug.log", "debug-internal.log"} <= {path.name for path in written}
    assert not [path for path in written if KEY.encode() in path.read_bytes()]


@pytest.mark.parametrize("key", ["a" * 40, "local-" + "b" * 40, "wandb_v1_" + "c" * 77, "h-e.a_d.er", None])
def test_keys_of_the_right_shape_pass(key: str | None, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if key:
        monkeypatch.setenv("WANDB_API_KEY", key)
    assert wandb().check() == []


@pytest.mark.parametrize("key", ["short", "a" * 39, "a" * 40 + " ", "a" * 20 + "!" + "b" * 20])
def test_a_key_of_another_shape_is_told_before_anything_begins_and_not_shown(
    key: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", key)
    (told,) = wandb().check()
    assert told.startswith(f"logger: WANDB_API_KEY in the environment is no key of Weights & Biases ({len(key)} char")
    assert key not in told


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"project": "a/b"}, "project: expected 1 to 128 characters without / \\ # ? % :, got 'a/b'"),
        ({"project": ""}, "project: expected 1 to 128"),
        ({"patience": 0.5}, "patience: expected 1 to 86400 seconds, got 0.5"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError) as caught:
        wandb(**settings)
    assert str(caught.value).startswith(told)


@pytest.fixture
def told(home: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What W&B's process, which is not started, is told."""
    messages: list[dict[str, Any]] = []

    class Process:
        def __init__(self, module: str, folder: Path) -> None: ...

        def send(self, message: dict[str, Any]) -> list[str]:
            messages.append(message)
            return []

    monkeypatch.setattr("rrl.records.tracking.Sidecar", Process)
    return messages


@pytest.mark.parametrize(
    ("environment", "mode"),
    [
        ({}, "offline"),
        ({"WANDB_API_KEY": KEY}, "online"),
        ({"WANDB_API_KEY": KEY, "WANDB_MODE": "offline"}, "offline"),
        ({"WANDB_MODE": "online"}, "offline"),
        ({"WANDB_MODE": "disabled"}, "disabled"),
    ],
)
def test_online_takes_a_key_and_no_word_against_it(
    environment: dict[str, str],
    mode: str,
    told: list[dict[str, Any]],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    wandb().start(folder, CONFIG, None)
    assert [message["mode"] for message in told] == [mode]
    assert KEY not in json.dumps(told)


def test_only_a_resume_goes_on_with_the_same_id(told: list[dict[str, Any]], folder: Path) -> None:
    for after in (None, 3, None):
        wandb().start(folder, CONFIG, after)
    first, resumed, anew = (message["id"] for message in told)
    assert first == resumed != anew


# --- TensorBoard ------------------------------------------------------------------------------------------------------


@pytest.fixture
def events() -> Callable[[Path], Any]:
    """Reads a run's events as TensorBoard does."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

    def read(folder: Path) -> Any:
        return accumulator.EventAccumulator(str(folder / "tensorboard")).Reload()

    return read


def test_tensorboard_shows_scalars_by_step_samples_and_result_without_doubles_after_a_resume(
    folder: Path, events: Callable[[Path], Any]
) -> None:
    first = Tracker(folder, TensorBoard(), CONFIG, None)
    for step in range(3):
        first.log(step, {"group/x": 1.5 * step})
    first.samples(0, [{"question": "1|2", "response": "a\nb"}, {"question": "q", "score": 1.0}])
    first.finish()
    second = Tracker(folder, TensorBoard(), CONFIG, 1)
    for step in (2, 3):
        second.log(step, {"group/x": 10.0 * step})
    second.summary({"steps": 3})
    second.finish()
    shown = events(folder)
    assert [(event.step, event.value) for event in shown.Scalars("group/x")] == [(0, 0), (1, 1.5), (2, 20), (3, 30)]
    texts = {tag: shown.Tensors(tag)[0] for tag in shown.Tags()["tensors"]}
    assert texts.keys() == {f"{name}/text_summary" for name in ("config", "samples", "result")}
    (text,) = texts["samples/text_summary"].tensor_proto.string_val
    assert (
        text.decode() == "| question | response | score |\n| --- | --- | --- |\n| 1\\|2 | a<br>b |  |\n| q |  | 1.0 |"
    )


def test_tensorboard_has_each_row_at_once(folder: Path, events: Callable[[Path], Any]) -> None:
    tracker = Tracker(folder, TensorBoard(), CONFIG, None)
    for step in range(3):
        tracker.log(step, {"x": 1.0})
    assert [event.step for event in events(folder).Scalars("x")] == [0, 1, 2]
    tracker.finish()


def test_tensorboard_that_cannot_write_stops_nothing(
    folder: Path, events: Callable[[Path], Any], caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "tensorboard").write_text("a file where the folder belongs")
    tracker = Tracker(folder, TensorBoard(), CONFIG, None)
    tracker.log(0, {"x": 1.0})
    tracker.finish()
    assert rows(folder) == [{"step": 0, "x": 1.0}]
    assert len(warnings(caplog)) == 1


def test_tensorboard_that_is_not_installed_is_told_before_anything_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert TensorBoard().check() == [
        "logger: tensorboard is not installed; expected it; pip install 'rrl[tensorboard]', or use logger=none"
    ]


def test_tensorboard_that_is_installed_passes(events: Callable[[Path], Any]) -> None:
    assert TensorBoard().check() == []
