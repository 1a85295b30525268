"""Compiled layers: faster forward and backward passes of training, by ``torch.compile``."""

import shutil
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rrl.errors import ConfigError

COMPILERS = ("g++", "clang++")


@dataclass(frozen=True, kw_only=True)
class CompiledLayers:
    """Compiles the layers of every network, which are of one kind and share their code.

    Its fused operations read and write less memory than one operation after another, and round differently.
    """

    def apply(self, network: nn.Module) -> None:
        """Compile the layers when they are first called. Raises ConfigError without a C++ compiler."""
        if not any(map(shutil.which, COMPILERS)):
            raise ConfigError(
                f"compile: layers needs a C++ compiler, and there is none; install {' or '.join(COMPILERS)}, or set "
                "compile=none"
            )
        for layer in layers_of(network):
            layer.compile(dynamic=True)


def layers_of(network: nn.Module) -> list[Any]:
    """The repeated layers: the longest list of modules in the network."""
    lists = [module for module in network.modules() if isinstance(module, nn.ModuleList)]
    return list(max(lists, key=len, default=[]))


def uncompiled() -> AbstractContextManager[Any]:
    """Within the context compiled layers run operation by operation: code for every length would be compiled anew."""
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance
