"""Several processes: started here by DeepSpeed's launcher, or outside by torchrun or srun."""

import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rrl.errors import ConfigError
from rrl.processes import slurm
from rrl.processes.devices import visible_devices
from rrl.processes.environment import DEVICES, OWN, PARENT
from rrl.processes.machine import cpus
from rrl.processes.stopping import SIGNALS, Signals, print_stopping, remove_requests, request_stop
from rrl.ranges import at_least_one, check_ranges
from rrl.records.files import CACHE, read_object
from rrl.records.status import RunLock, read_state, write_state

log = logging.getLogger(__name__)
SHOWN = "CUDA_VISIBLE_DEVICES"
FEW = 4
SSH = "PDSH_SSH_ARGS_APPEND"
"""The environment variable with options that pdsh gives to ssh."""
KEEPALIVE = "-o ServerAliveInterval=10 -o ServerAliveCountMax=3"


@dataclass(frozen=True, kw_only=True)
class Launcher:
    """Starts ``num_processes`` processes on this machine."""

    num_processes: int

    def __post_init__(self) -> None:
        check_ranges(self, at_least_one("num_processes"))

    @property
    def processes(self) -> int:
        """How many in all."""
        return self.num_processes

    @property
    def machines(self) -> str | None:
        """The path of a file that names them; None for this machine alone."""
        return None

    def refuse_misfits(self) -> None:
        """Raise ConfigError where this machine cannot start them.

        Each needs a device or, without any, a processor; FEW processes may share one, for trials.
        """
        from torch import cuda

        devices = visible_devices() if cuda.is_available() else []
        most = len(devices) or max(FEW, cpus())
        if self.num_processes > most:
            here = f"{len(devices)} devices here: {', '.join(devices)}" if devices else f"{cpus()} processors here"
            raise ConfigError(
                f"launcher.num_processes: {self.num_processes}, but there are {here}; expected at most {most}; lower it"
                + (f", or let {SHOWN} list more" if devices else "")
            )

    def start(self, folder: Path) -> int:
        """Train in ``folder``, which holds config.yaml, in new processes; returns the exit code.

        On a signal they finish their step and save; a second Ctrl-C ends them at once.
        """
        remove_requests(folder)
        before, _ = read_object(folder / "status.json")
        log.info("starting %d processes", self.processes)
        ranks = _Ranks(folder)
        with Signals(ranks.finish, ranks.leave) as signals:
            with _signals_blocked():
                ranks.children = subprocess.Popen(
                    self.command(folder), env=self._environment(), stdout=subprocess.DEVNULL, start_new_session=True
                )
            code = ranks.children.wait()
        now, _ = read_object(folder / "status.json")
        if now == before or now.get("state") == "running":
            self._report(folder, code, signals)
        return 130 if signals.at_once else _exit_code_of_ranks(folder, code)

    def command(self, folder: Path) -> list[str]:
        """DeepSpeed's runner, which starts its launcher on each machine, which starts the ranks."""
        names = [name for name in (OWN, CACHE) if os.environ.get(name)]  # other machines do not get the environment
        given = [f"{name}={os.environ[name]}" for name in names]
        return runner(self.num_processes, self.machines, "rrl.cli.worker", str(folder), *given)

    def _environment(self) -> dict[str, str]:
        """This environment, with the devices as DEVICES and the processors divided among the processes."""
        environment = {**os.environ, PARENT: str(os.getpid())}
        environment.setdefault("OMP_NUM_THREADS", str(max(1, cpus() // self.num_processes)))
        if SHOWN in environment:
            environment[DEVICES] = environment.pop(SHOWN)
        return environment

    def _report(self, folder: Path, code: int, signals: Signals) -> None:
        """Write the end of ranks that could not, unless another run holds the folder."""
        reason = "left at once" if signals.asked else f"the processes ended with code {code} without a report"
        with suppress(ConfigError), RunLock(folder):
            write_state(folder, "interrupted" if signals.asked else "failed", reason, self.processes)


@dataclass(frozen=True, kw_only=True)
class Hostfile(Launcher):
    """``num_processes`` on each machine of a ``hostfile`` train together.

    It has a line ``name slots=8`` for each machine, which this one reaches by ssh without a password and which sees the
    run's directory under the same path.
    """

    hostfile: str | None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hostfile is None:
            raise ValueError("hostfile: missing; give a file with a line 'name slots=8' for each machine")
        slots = self._slots()
        if min(slots) < self.num_processes:
            raise ValueError(
                f"num_processes: expected at most the {min(slots)} slots of hostfile, got {self.num_processes}"
            )

    @property
    def processes(self) -> int:
        return self.num_processes * len(self._slots())

    @property
    def machines(self) -> str:
        return str(Path(str(self.hostfile)).expanduser().absolute())

    def refuse_misfits(self) -> None:
        """Raise ConfigError where other machines cannot be reached."""
        missing = [name for name in ("pdsh", "ssh") if shutil.which(name) is None]
        if missing:
            raise ConfigError(
                f"launcher.hostfile: other machines are reached by pdsh and ssh; {' and '.join(missing)} cannot be "
                "found here; install what is missing, or start a process for each device by torchrun or srun"
            )

    def _environment(self) -> dict[str, str]:
        """The same; ssh ends where a machine gives no answer any more, and pdsh with it."""
        environment = super()._environment()
        environment[SSH] = f"{environment.get(SSH, '')} {KEEPALIVE}"  # of two the first one holds
        return environment

    def _slots(self) -> list[int]:
        """The slots of each machine of the hostfile."""
        try:
            lines = Path(self.machines).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"hostfile: {self.hostfile!r} cannot be read ({error}); expected a text file") from error
        machines = [line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()]
        found = [match for line in machines if (match := re.fullmatch(r"(\S+)\s+slots=(\d+)", line))]
        if len(found) < len(machines) or not machines:
            wrong = [line for line in machines if line not in {match[0] for match in found}]
            raise ValueError(f"hostfile: expected a line 'name slots=8' for each machine, got {wrong or 'none'}")
        repeated = sorted(name for name, count in Counter(match[1] for match in found).items() if count > 1)
        if repeated:
            raise ValueError(f"hostfile: expected one line for each machine, got several for {', '.join(repeated)}")
        return [int(match[2]) for match in found]


def runner(processes: int, hostfile: str | None, *module: str) -> list[str]:
    """The command that runs a module with its arguments in ``processes`` here, or on each machine of ``hostfile``."""
    where = [os.devnull] if hostfile is None else [hostfile, "--force_multi"]  # a single one need not be this one
    how = [f"--num_gpus={processes}", f"--master_port={free_port()}", "--no_local_rank", "--module"]
    program = [sys.executable, "-m", "deepspeed.launcher.runner", "--log_level=critical"]
    return [*program, "--hostfile", *where, *how, *module]


def free_port() -> int:
    """An unused port of this machine."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def take_devices() -> None:
    """In a rank, before any search for accelerators: restrict them to those that the user chose."""
    if DEVICES in os.environ:
        os.environ[SHOWN] = os.environ.pop(DEVICES)


@dataclass
class _Ranks:
    """The processes that train in ``folder``, stopped by files there, which other machines see too."""

    folder: Path
    children: "subprocess.Popen[bytes] | None" = None

    def finish(self) -> None:
        """Request that they finish their step, and save."""
        self._request(now=False)
        print_stopping()

    def leave(self) -> None:
        """Request that all exit, and kill those of this machine."""
        self._request(now=True)
        self._send(signal.SIGKILL)

    def _request(self, *, now: bool) -> None:
        try:
            request_stop(self.folder, now=now)
        except OSError:  # a full disk: the launchers block this signal, the ranks of this machine handle it
            self._send(signal.SIGTERM)

    def _send(self, number: int) -> None:
        if self.children is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.children.pid, number)


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Processes started inside inherit blocked signals until they call ``take_signals``.

    DeepSpeed's launchers never do: they would end the ranks 30 seconds after SLURM or systemd sent SIGTERM to all.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def take_signals() -> None:
    """In a rank: unblock the signals."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def why(folder: Path) -> str:
    """How the processes that trained in ``folder`` ended, and the remedy."""
    state = read_state(folder)
    if state.state == "interrupted":
        saved = "nothing is saved yet" if state.checkpoint is None else f"saved as {state.checkpoint.name}"
        return f"{state.reason or 'interrupted'}; {saved}; continue: rrl-train resume={folder}"
    logs = ", ".join(str(path) for path in sorted((folder / "logs").glob("rank-*.log")))
    return f"{state.state}: {state.reason or 'no reason is known'}; see {logs or folder}"


def started_by_others() -> bool:
    """Whether torchrun or srun started this process as one of several; sets torchrun's variables from srun's."""
    if "WORLD_SIZE" not in os.environ and int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        os.environ |= slurm.place()
    return {"RANK", "MASTER_ADDR"} <= os.environ.keys() and int(os.environ.get("WORLD_SIZE", "1")) > 1


def _exit_code_of_ranks(folder: Path, code: int) -> int:
    """From the run's state: DeepSpeed's launcher may end with any code, and with 0 when it was killed."""
    state = read_state(folder).state
    if state == "interrupted":
        return 130
    return code if code in (1, 2) or (code == 0 and state == "finished") else 1
