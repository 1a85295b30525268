"""Several processes: started by DeepSpeed's launcher from here, or found started by torchrun or srun."""

import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rrl.errors import ConfigError
from rrl.processes.devices import visible
from rrl.processes.environment import DEVICES, OWN, PARENT
from rrl.processes.machine import cpus
from rrl.processes.stopping import SIGNALS, Signals, ask_to_stop, say_that_it_stops, withdraw
from rrl.ranges import at_least_one, check_ranges
from rrl.records.files import read_object
from rrl.records.status import hold, read_state, write_state

log = logging.getLogger(__name__)
SHOWN = "CUDA_VISIBLE_DEVICES"
FEW = 4


@dataclass(frozen=True, kw_only=True)
class Launcher:
    """How many processes train together: ``num_processes`` on this machine or, with a ``hostfile``, on each of its.

    A hostfile has a line ``name slots=8`` for each machine, which this one reaches by ssh without a password and which
    sees the run's directory under the same path.
    """

    num_processes: int
    hostfile: str | None

    def __post_init__(self) -> None:
        check_ranges(self, at_least_one("num_processes"))
        slots = self._slots()
        if slots and min(slots) < self.num_processes:
            raise ValueError(
                f"num_processes: expected at most the {min(slots)} slots of hostfile, got {self.num_processes}"
            )

    @property
    def processes(self) -> int:
        """How many in all."""
        return self.num_processes * max(1, len(self._slots()))

    def refuse_misfits(self) -> None:
        """Raise ConfigError where this machine cannot start as many."""
        if self.hostfile is None:
            self._refuse_sharing()
            return
        missing = [name for name in ("pdsh", "ssh") if shutil.which(name) is None]
        if missing:
            raise ConfigError(
                f"launcher.hostfile: other machines are reached by pdsh and ssh; {' and '.join(missing)} cannot be "
                "found here; install what is missing, or start a process for each device by torchrun or srun"
            )

    def _refuse_sharing(self) -> None:
        """A device for each process or, without any, a processor; a few processes may share one, to try things out."""
        from torch import cuda

        devices = visible() if cuda.is_available() else []
        most = len(devices) or max(FEW, cpus())
        if self.num_processes > most:
            here = f"{len(devices)} devices here: {', '.join(devices)}" if devices else f"{cpus()} processors here"
            raise ConfigError(
                f"launcher.num_processes: {self.num_processes}, but there are {here}; expected at most {most}; lower it"
                + (f", or let {SHOWN} show more" if devices else "")
            )

    def start(self, folder: Path) -> int:
        """Train in ``folder``, which holds config.yaml, by fresh processes; returns the exit code.

        A signal to this process asks them to finish their step and save; a second Ctrl-C ends them at once.
        """
        withdraw(folder)
        before, _ = read_object(folder / "status.json")
        log.info("%d processes are started", self.processes)
        ranks = _Ranks(folder)
        with Signals(ranks.finish, ranks.leave) as signals:
            with _held_back():
                ranks.children = subprocess.Popen(
                    self.command(folder), env=self._environment(), stdout=subprocess.DEVNULL, start_new_session=True
                )
            code = ranks.children.wait()
        now, _ = read_object(folder / "status.json")
        if now == before or now.get("state") == "running":
            self._tell(folder, code, signals)
        return 130 if signals.at_once else _exit_code(folder, code)

    def command(self, folder: Path) -> list[str]:
        """What starts them: DeepSpeed's runner, which starts its launcher on each machine, which starts the ranks."""
        parts = [os.environ[OWN]] if os.environ.get(OWN) else []  # an environment does not travel to other machines
        hostfile = None if self.hostfile is None else _path(self.hostfile)
        return runner(self.num_processes, hostfile, "rrl.cli.worker", str(folder), *parts)

    def _environment(self) -> dict[str, str]:
        """Ours, with devices under their other name, and the processors divided among processes that share them."""
        environment = {**os.environ, PARENT: str(os.getpid())}
        environment.setdefault("OMP_NUM_THREADS", str(max(1, cpus() // self.num_processes)))
        if SHOWN in environment:
            environment[DEVICES] = environment.pop(SHOWN)
        return environment

    def _tell(self, folder: Path, code: int, signals: Signals) -> None:
        """Tell how it ended for ranks that could not, unless another run has the folder and tells of itself."""
        with suppress(ConfigError), hold(folder):
            if signals.asked:
                write_state(folder, "interrupted", "left at once", self.processes)
            else:
                reason = f"the processes ended with code {code} and told nothing"
                write_state(folder, "failed", reason, self.processes)

    def _slots(self) -> list[int]:
        """Processes that each machine of the hostfile has room for."""
        if self.hostfile is None:
            return []
        try:
            lines = Path(_path(self.hostfile)).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"hostfile: {self.hostfile!r} cannot be read ({error}); expected a text file") from error
        machines = [line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()]
        found = [re.fullmatch(r"(\S+)\s+slots=(\d+)", line) for line in machines]
        wrong = [line for line, match in zip(machines, found, strict=True) if match is None]
        if wrong or not machines:
            raise ValueError(f"hostfile: expected a line 'name slots=8' for each machine, got {wrong or 'none'}")
        names = [match[1] for match in found if match is not None]
        double = sorted({name for name in names if names.count(name) > 1})
        if double:
            raise ValueError(f"hostfile: expected one line for each machine, got several for {', '.join(double)}")
        return [int(match[2]) for match in found if match is not None]


def runner(processes: int, hostfile: str | None, *module: str) -> list[str]:
    """What runs a module, with its arguments, in so many processes on this machine or on each of the hostfile's."""
    where = [os.devnull] if hostfile is None else [hostfile, "--force_multi"]  # though it names one: not this one
    how = [f"--num_gpus={processes}", f"--master_port={free_port()}", "--no_local_rank", "--module"]
    program = [sys.executable, "-m", "deepspeed.launcher.runner", "--log_level=critical"]
    return [*program, "--hostfile", *where, *how, *module]


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def take_devices() -> None:
    """In a rank, before anything looks for accelerators: those that the user chose."""
    if DEVICES in os.environ:
        os.environ[SHOWN] = os.environ.pop(DEVICES)


@dataclass
class _Ranks:
    """What trains in ``folder``, asked by files there, which ranks on other machines see too."""

    folder: Path
    children: "subprocess.Popen[bytes] | None" = None

    def finish(self) -> None:
        """Let them finish their step, and save."""
        self._ask(now=False)
        say_that_it_stops()

    def leave(self) -> None:
        """Let all of them leave, and kill those of this machine."""
        self._ask(now=True)
        self._send(signal.SIGKILL)

    def _ask(self, *, now: bool) -> None:
        try:
            ask_to_stop(self.folder, now=now)
        except OSError:  # a full disk: the launchers hold this back, the ranks of this machine take it
            self._send(signal.SIGTERM)

    def _send(self, number: int) -> None:
        if self.children is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.children.pid, number)


@contextmanager
def _held_back() -> Iterator[None]:
    """What is started inside gets no signals until it wants them.

    So do DeepSpeed's launchers, which would end the ranks after 30 seconds when SLURM or systemd sends SIGTERM to all.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def take_signals() -> None:
    """In a rank: let signals come through again."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def why(folder: Path) -> str:
    """How the processes that trained in ``folder`` ended, and what to do about it."""
    state = read_state(folder)
    if state.state == "interrupted":
        saved = "nothing is saved yet" if state.checkpoint is None else f"saved as {state.checkpoint.name}"
        return f"{state.reason or 'interrupted'}; {saved}; go on: rrl-train resume={folder}"
    logs = ", ".join(str(path) for path in sorted((folder / "logs").glob("rank-*.log")))
    return f"{state.state}: {state.reason or 'no reason was told'}; see {logs or folder}"


def started_by_others() -> bool:
    """Whether torchrun or srun started this process as one of several; srun's variables are told as torchrun's."""
    if "WORLD_SIZE" not in os.environ and int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        os.environ |= _from_slurm()
    return {"RANK", "MASTER_ADDR"} <= os.environ.keys() and int(os.environ.get("WORLD_SIZE", "1")) > 1


def _from_slurm() -> dict[str, str]:
    given = os.environ
    place = {"RANK": "SLURM_PROCID", "LOCAL_RANK": "SLURM_LOCALID", "WORLD_SIZE": "SLURM_STEP_NUM_TASKS"}
    step = int(given["SLURM_JOB_ID"]) + 1000 * int(given["SLURM_STEP_ID"])  # several may run at once on a machine
    meeting = {
        "MASTER_ADDR": given.get("MASTER_ADDR") or first_host(given["SLURM_STEP_NODELIST"]),
        "MASTER_PORT": given.get("MASTER_PORT") or str(20000 + step % 10000),
    }
    return {name: given[slurm] for name, slurm in place.items()} | meeting


def first_host(nodes: str) -> str:
    """The first of SLURM's node list: of ``gpu[003-007,012]-ib,login`` it is ``gpu003-ib``."""
    first = re.match(r"(?:[^\[,]|\[[^\]]*\])+", nodes)
    assert first is not None, nodes
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first[0])


def _exit_code(folder: Path, code: int) -> int:
    """DeepSpeed's launcher may end with any number, and with 0 when it was killed itself."""
    state = read_state(folder).state
    if state == "interrupted":
        return 130
    return code if code in (1, 2) or (code == 0 and state == "finished") else 1


def _path(hostfile: str) -> str:
    return str(Path(hostfile).expanduser().absolute())
