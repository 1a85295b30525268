"""Functions of the tests run on several gloo processes at once, as a launcher would start them."""

import importlib
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

TESTS = Path(__file__).resolve().parent


def on_ranks(count: int, function: Any, *arguments: Any, timeout: float = 240) -> list[Any]:
    """What ``function(*arguments)``, of a test module's top level, returns on each of ``count`` fresh processes."""
    with tempfile.TemporaryDirectory() as folder:
        torch.save(arguments, Path(folder) / "arguments")
        port = _free_port()
        command = [sys.executable, __file__, function.__module__, function.__name__, folder]
        ranks = [
            subprocess.Popen(
                command, env=rank_environment(number, count, port), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            for number in range(count)
        ]
        try:
            said = [process.communicate(timeout=timeout)[0].decode() for process in ranks]
        finally:
            for process in ranks:
                process.kill()
        for process, text in zip(ranks, said, strict=True):
            assert process.returncode == 0, text
        return [torch.load(Path(folder) / str(number), weights_only=False) for number in range(count)]


def rank_environment(number: int, count: int, port: int) -> dict[str, str]:
    """What torchrun tells each process."""
    place = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": count, "MASTER_PORT": port, "MASTER_ADDR": "127.0.0.1"}
    path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "", "RRL_QUIET": "1"}
    return {**os.environ, **own, **{name: str(value) for name, value in place.items()}}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _main(module: str, function: str, folder: str) -> None:
    from rrl.cli.shell import leave
    from rrl.distributed import leave_process_group, start_process_group

    torch.set_num_threads(1)
    start_process_group()
    arguments = torch.load(Path(folder) / "arguments", weights_only=False)
    result = getattr(importlib.import_module(module), function)(*arguments)
    torch.save(result, Path(folder) / os.environ["RANK"])
    leave_process_group()
    leave(0)


if __name__ == "__main__":
    _main(*sys.argv[1:])
