"""Weights that stay in their files until a process needs them: models whose parameters are on torch's meta device."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

PLACES = "_weight_files"
"""The attribute of a module that maps its parameters' names to their ``Place``; copies of the module have it too."""


class Place(NamedTuple):
    """Where a weight is: a safetensors file, and its name in it."""

    file: str
    name: str

    def read(self) -> Tensor:
        """The weight, in the precision of the file."""
        from safetensors import safe_open

        with safe_open(self.file, framework="pt") as file:
            weight: Tensor = file.get_tensor(self.name)
        return weight

    def shape(self) -> tuple[int, ...]:
        from safetensors import safe_open

        with safe_open(self.file, framework="pt") as file:
            return tuple(file.get_slice(self.name).get_shape())


@contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Within the context modules are made without weights; their buffers have values."""
    usual = nn.Module.register_parameter

    def register(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        if param is not None and param.device.type != "meta":
            param = nn.Parameter(param.data.to("meta"), param.requires_grad)
        usual(self, name, param)

    nn.Module.register_parameter = register  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.register_parameter = usual  # type: ignore[method-assign]


def leave_in_files(model: Any, files: Mapping[str, str]) -> str | None:
    """Note in the modules of a model on the meta device where their weights are; or return why that cannot be.

    It can where each parameter has its own name in the files, and its shape, and where nothing else is stored.
    """
    names: dict[int, list[str]] = {}
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, parameter in parameters.items():
        names.setdefault(id(parameter), []).append(name)
    if others := sorted(model.state_dict().keys() - parameters.keys()):
        return f"{others[0]} is no parameter"
    for shared in names.values():
        stored = [name for name in shared if name in files]
        if len(stored) != 1:
            return f"{shared[0]} is stored {len(stored)} times"
        place = Place(files[stored[0]], stored[0])
        if place.shape() != tuple(parameters[stored[0]].shape):
            return f"{stored[0]} has another shape there"
        for name in shared:
            above, _, leaf = name.rpartition(".")
            vars(model.get_submodule(above)).setdefault(PLACES, {})[leaf] = place
    return None


def weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The tensors of the model's state by name; those left in files are read in float32, one after another."""
    for name, tensor in sorted(model.state_dict().items()):
        above, _, leaf = name.rpartition(".")
        place = vars(model.get_submodule(above)).get(PLACES, {}).get(leaf)
        yield name, tensor if place is None else place.read().to(torch.float32)


def in_files(model: nn.Module) -> bool:
    """Whether weights of the model are still in files."""
    return any(PLACES in vars(module) for module in model.modules())


def left(network: nn.Module) -> Iterator[tuple[nn.Module, str, Place]]:
    """The module, the name in it and the place of each weight that is still in a file."""
    for module in network.modules():
        for leaf, place in vars(module).pop(PLACES, {}).items():
            yield module, leaf, place
