"""The process group and the device of this process."""

import os

import torch

from rrl.errors import ConfigError

if not torch.cuda.is_available():  # before anything imports deepspeed, which would look around and say so
    os.environ.setdefault("DS_ACCELERATOR", "cpu")


def device() -> torch.device:
    """This process's accelerator, or the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def world_size() -> int:
    """How many processes train together."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def start_process_group() -> None:
    """Make a process group of this process alone; idempotent. Raises ConfigError when a launcher started several."""
    if torch.distributed.is_initialized():
        return
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            f"WORLD_SIZE: {os.environ['WORLD_SIZE']} processes were started, but this version trains in one; start it "
            "without a launcher"
        )
    os.environ.setdefault("LOCAL_RANK", "0")
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    store = torch.distributed.HashStore()  # type: ignore[attr-defined]
    torch.distributed.init_process_group(backend, store=store, rank=0, world_size=1)
