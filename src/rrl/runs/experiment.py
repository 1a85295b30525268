"""One training run from configuration to results: steps, evaluations, records, checkpoints."""

import logging
import shutil
import traceback
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from rrl.config.check import Parts
from rrl.config.saved import write_config
from rrl.contracts import border
from rrl.errors import ConfigError, DataError, StorageError, UsageError
from rrl.preflight.capacity import look_around
from rrl.preflight.plan import at_start
from rrl.processes.clock import Clock
from rrl.processes.distributed import (
    agree,
    anywhere,
    from_first,
    gathered,
    rank,
    seed_everything,
    start_process_group,
    world_size,
)
from rrl.processes.logs import log_lines, log_lines_twice, open_log
from rrl.processes.out_of_memory import report_out_of_memory
from rrl.processes.stopping import Interrupted, StopRequest, has_parent, obeying, remove_requests
from rrl.processes.watchdog import Watchdog
from rrl.records.display import Display
from rrl.records.files import STATES, accuracy_of, last_rows, read_object, step_name, whole_rows
from rrl.records.fingerprints import weights_fingerprint
from rrl.records.run_directory import append, dump_evaluation, dump_rollouts, is_empty, rollout_rows, write_json
from rrl.records.saving import PLAIN, rescued
from rrl.records.secrecy import redacted
from rrl.records.status import RunLock, last_checkpoint, write_state
from rrl.records.summary import closing_lines
from rrl.records.tracking import Tracker
from rrl.runs.assemble import make_trainer, measure, prepare
from rrl.runs.checkpoint import Checkpoints
from rrl.runs.full_disk import guard_disk
from rrl.runs.manifest import BEGINNING, manifest, moment, write_manifest
from rrl.runs.resume import rewind_records
from rrl.training.evaluation import evaluation_metrics
from rrl.training.loop import Loop
from rrl.training.prepared import Prepared
from rrl.training.weight_files import in_files, weights
from rrl.types import Metrics

log = logging.getLogger(__name__)
SAMPLES = 8
"""Rollouts of a dump that a tracker receives."""


def train(config: Mapping[str, Any], parts: Parts, folder: Path, display: Display) -> None:
    """Run the experiment in ``folder``, from its last good checkpoint or from the beginning; all ranks together.

    docs/records.md describes the folder. Raises Interrupted after a requested stop, when the run has saved.
    """
    parts.run.limit_threads()
    seed_everything(parts.run.seed)
    start_process_group()
    with StopRequest() as stop, ExitStack() as stack:
        new = from_first(lambda: _occupy(folder, config, stack))
        file = stack.enter_context(open_log(folder, rank()))
        shown = display if rank() == 0 else Display()
        clock = Clock(shown.phase)
        watchdog = Watchdog(folder, clock, parts.run.phase_limit, file)
        stack.callback(watchdog.dismiss)
        stack.enter_context(obeying(folder))
        stack.enter_context(_end_reported(folder, file, new, config))
        stack.enter_context(report_out_of_memory(config, lambda: clock.current()[0] or "loading", world_size()))
        stack.callback(shown.close)
        run = _assemble(config, parts, folder, clock, shown)
        stop.gentle = True
        run.loop(stop, shown)


def _occupy(folder: Path, config: Mapping[str, Any], stack: ExitStack) -> bool:
    """Lock the folder for this run, and remove requests to earlier processes; returns whether the run is new."""
    new = is_empty(folder)
    stack.enter_context(RunLock(folder))
    _refuse_without_checkpoint(folder)
    write_config(folder, config)
    write_state(folder, "running", processes=world_size())
    if not has_parent():  # the parent did so before it began to pass on signals
        remove_requests(folder)
    (folder / "logs" / "alarm.json").unlink(missing_ok=True)
    return new


def _refuse_without_checkpoint(folder: Path) -> None:
    """Raise DataError for a finished run whose checkpoints were removed, before anything of it changes."""
    if (folder / "result.json").exists() and last_checkpoint(folder) is None:
        raise DataError(
            f"{folder / 'checkpoints'}: no checkpoint, but the run is finished; expected the last one; restore it, or "
            "begin a new run in another run.dir"
        )


@contextmanager
def _end_reported(folder: Path, file: IO[str], new: bool, config: Mapping[str, Any]) -> Iterator[None]:
    """Report the end of the run in status.json and in closing lines; a fault also in this rank's log.

    Removes the folder of a new run that could not begin, so that the same command can be repeated.
    """
    try:
        yield
    except (KeyboardInterrupt, Interrupted):
        _report_end(folder, "interrupted", None, config)
        raise
    except BaseException as error:
        file.write(redacted(traceback.format_exc()))
        where = f"rank {rank()}: " if world_size() > 1 else ""
        reason = error.faults[0] if isinstance(error, UsageError) else f"{where}{type(error).__name__}: {error}"
        _report_end(folder, "failed", reason, config)
        begun = (folder / "metrics.jsonl").exists() or (folder / "start").exists()
        if new and world_size() == 1 and isinstance(error, ConfigError | DataError) and not begun:
            shutil.rmtree(folder)
        raise
    gathered(None)  # no rank reports success while another one can still fail
    _report_end(folder, "finished", None, config)


def _report_end(folder: Path, state: Any, reason: str | None, config: Mapping[str, Any]) -> None:
    """The first rank reports success; any other end is reported by the first rank that detects it."""
    status, _ = read_object(folder / "status.json")
    if (rank() == 0 or state != "finished") and status.get("state", "running") == "running":
        try:
            write_state(folder, state, reason and redacted(reason), world_size())
        except OSError as error:  # most likely a full disk, which is reported already
            log.warning("status.json cannot be written (%s)", error)
    if rank() == 0:
        (log_lines_twice if state == "failed" else log_lines)(closing_lines(folder, state, config))


def _assemble(config: Mapping[str, Any], parts: Parts, folder: Path, clock: Clock, display: Display) -> "Run":
    """Data, model and trainer, with the state and records of the last checkpoint."""
    display.begin("loading" if parts.warmstart is None else "warm start")
    here = look_around()
    started = from_first(lambda: moment(folder))
    parts.prompts.template.stand(started)

    def read(cold: Prepared) -> None:
        log_lines(at_start(config, parts, folder, cold, here) if rank() == 0 else [])

    prepared = prepare(config, parts, display.advance, folder / "start", read)
    clock.enter("the start")
    display.phase("start")
    data = {"train": prepared.train, "test": prepared.test}
    about = manifest(config, data, _digest(prepared.model), prepared.tokenizer)
    agree("data, model and tokenizer", [about[name] for name in BEGINNING])
    trainer = make_trainer(parts, prepared, clock)
    from_first(lambda: write_manifest(folder, {**about, "warmstart": prepared.warmstart}, started))
    checkpoints = Checkpoints(folder, parts.run.keep_last, parts.run.keep_best)
    checkpoints.rehearse(trainer)
    step = checkpoints.restore(trainer)
    from_first(lambda: rewind_records(folder, step))
    if rank() == 0:
        log.info("run directory: %s%s", folder, "" if step is None else f" (continues from step {step})")
    tracker = Tracker(folder, parts.logger, config, step) if rank() == 0 else None
    display.begin("training")
    prepared = replace(prepared, model=None)  # the policy holds it, and may free it
    return Run(folder, config["data"]["name"], parts, prepared, trainer, checkpoints, tracker)


def _digest(model: Any) -> str:
    """Of its weights; where they are in files, the first process reads them for all."""

    def read() -> str:
        return weights_fingerprint(weights(model))

    return from_first(read) if in_files(model) else read()


@dataclass
class Run:
    """A trainer with evaluations, records and checkpoints; ``source`` is the data's name in metrics."""

    folder: Path
    source: str
    parts: Parts
    prepared: Prepared
    trainer: Loop
    checkpoints: Checkpoints
    tracker: Tracker | None

    def loop(self, stop: StopRequest, display: Display) -> None:
        """Take steps until training is done or a stop is requested."""
        settings, trainer = self.parts.run, self.trainer
        try:
            if trainer.global_step == 0:
                self._log(self._evaluate()[0])
            display.advance(trainer.progress, self._last_metrics())
            for metrics in trainer.run():
                step, last, marked = trainer.global_step, trainer.progress >= 1, trainer.milestone
                measured, score = self._evaluate() if _due(step, settings.test_freq) or marked or last else ({}, None)
                asked = anywhere(stop.asked)
                self._record(dump=_due(step, settings.rollout_freq))
                metrics |= measured | trainer.costs()
                self._log(metrics)
                display.advance(trainer.progress, metrics)
                if _due(step, settings.save_freq) or marked or asked or last:
                    with trainer.clock.phase("save_checkpoint"), self._rescue(step_name(step)):
                        (self.checkpoints.save if asked or last else self.checkpoints.begin)(trainer, score)
                if asked and not last:
                    raise Interrupted(f"step {step} is done and saved; continue: rrl-train resume={self.folder}")
            rows, _ = from_first(lambda: last_rows(self.folder / "evaluations.jsonl"))
            if not rows or rows[0]["step"] != trainer.global_step:  # not of the present weights
                self._evaluate()
            self._finish()
        finally:
            self.checkpoints.leave()
            if self.tracker is not None:
                self.tracker.finish()

    def _evaluate(self) -> tuple[Metrics, float]:
        """Evaluate on held-out problems, and record it; returns metrics and the accuracy for ranking."""
        trainer = self.trainer
        with trainer.clock.phase("testing"):
            result, answers = measure(self.parts, self.prepared)
        row = {"step": trainer.global_step, "tokens_generated": trainer.tokens_generated, **result}
        if rank() == 0:
            with guard_disk(self.folder):
                dump_evaluation(self.folder, row, answers, self.prepared.tokenizer)
        return evaluation_metrics(result, self.source), accuracy_of(result)

    def _last_metrics(self) -> Metrics:
        """The last row of metrics, with the last accuracy."""
        (measured, _), (rows, _) = (last_rows(self.folder / f"{name}.jsonl") for name in ("evaluations", "metrics"))
        row = {name: value for name, value in rows[0].items() if value is not None} if rows else {}
        accuracy = evaluation_metrics(measured[0], self.source) if measured else {}
        return row | accuracy | {"training/global_step": float(self.trainer.global_step)}

    def _log(self, metrics: Metrics) -> None:
        if self.tracker is not None:
            with guard_disk(self.folder):
                self.tracker.log(self.trainer.global_step, metrics)

    def _record(self, *, dump: bool) -> None:
        """Write what became of remembered states in the last step, where the records are full, and its rollouts."""
        step, full, rollouts = self.trainer.global_step, self.parts.run.records, self.trainer.last_rollouts
        learnt, self.trainer.last_batch = self.trainer.last_batch, None
        if self.tracker is None:
            return
        if full is not None:
            with guard_disk(self.folder):
                append(self.folder / STATES, full.states(step, rollouts, border.events(self.trainer.sampler)))
        if not dump or not rollouts:
            return
        rows = rollout_rows(step, rollouts, self.prepared.tokenizer)
        rows = rows if full is None else full.rows(rows, rollouts, learnt, self.prepared.tokenizer)
        with guard_disk(self.folder):
            dump_rollouts(self.folder / "rollouts" / f"{step_name(step)}.jsonl", rows)
        shown = ("prefix", "response", "verdict", "score")
        self.tracker.samples(
            step, [{"id": r["problem"]["id"], **{name: r[name] for name in shown}} for r in rows[:SAMPLES]]
        )

    def _finish(self) -> None:
        """Save the actor in Hugging Face format, and write result.json."""
        aside = self.folder / ".actor.tmp"
        with self._rescue("actor"), guard_disk(self.folder, aside):
            self.checkpoints.finish()
            faults = gathered(self.trainer.policy.save(aside))[0]
            if self.tracker is not None:
                shutil.rmtree(self.folder / "actor", ignore_errors=True)
                aside.rename(self.folder / "actor")
                measured = whole_rows(self.folder / "evaluations.jsonl")
                spent = {"steps": self.trainer.global_step, "tokens_generated": self.trainer.tokens_generated}
                result = {**spent, "before": measured[0], "after": measured[-1]}
                write_json(self.folder / "result.json", result)
                self.tracker.summary(result)
        if faults:
            raise StorageError(*(f"{fault}; its weights are in {self.folder / 'actor' / PLAIN}" for fault in faults))

    def _rescue(self, name: str) -> AbstractContextManager[None]:
        """Write the weights elsewhere when a save fails."""
        policy = self.trainer.policy
        return rescued(policy.save if policy.saves_alone else None, name, self.folder)


def _due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0
