"""DeepSpeed: engines for networks, and gathering the weights that ZeRO divides. No other file imports it."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from rrl.processes.distributed import device, rank
from rrl.training.networks import Critic, in_precision
from rrl.training.policy_settings import BUCKET, PolicySettings
from rrl.training.weight_files import left


def in_deepspeed(module: torch.nn.Module, settings: PolicySettings, factor: Callable[[int], float]) -> Any:
    """The DeepSpeed engine of a network with optimiser and schedule; ``factor`` of the step scales the rate."""
    deepspeed = _deepspeed()
    config = _config(module, settings)
    if settings.offloads("optimizer"):
        config["zero_optimization"]["offload_optimizer"] = _in_main_memory()
    if settings.zero_stage == 3:
        _read_shards(module, settings, config)
    optimiser = settings.optimiser(module, is_critic=isinstance(module, Critic))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
    return deepspeed.initialize(
        model=module, optimizer=optimiser, lr_scheduler=schedule, config=config, dist_init_required=False
    )[0]


def frozen(module: torch.nn.Module, settings: PolicySettings) -> Any:
    """A network that is not trained: whole on every process or, at stage 3, divided among them."""
    module.eval().requires_grad_(False)
    if settings.zero_stage < 3:
        return in_precision(module.to(device()), settings.dtype)
    config = _config(module, settings)
    if settings.offloads("reference"):
        config["zero_optimization"]["offload_param"] = _in_main_memory()
    _read_shards(module, settings, config)
    return _deepspeed().initialize(model=module, config=config, dist_init_required=False)[0]


def _in_main_memory() -> dict[str, Any]:
    return {"device": "cpu", "pin_memory": torch.cuda.is_available()}


def _deepspeed() -> Any:
    import deepspeed

    deepspeed.logger.setLevel("WARNING")
    # Its shared-memory collectives compile C++ at first use; gloo serves as well and needs no compiler.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def _config(module: torch.nn.Module, settings: PolicySettings) -> dict[str, Any]:
    size = sum(count(p) for p in module.parameters() if p.requires_grad)
    return {
        "train_micro_batch_size_per_gpu": settings.micro_batch_size,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": settings.grad_clip,
        "zero_optimization": {"stage": settings.zero_stage, "reduce_bucket_size": min(BUCKET, size) or BUCKET},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # it would have to be compiled; torch's takes the same step
        "bf16": {"enabled": settings.dtype == "bfloat16"},
    }


def _read_shards(module: torch.nn.Module, settings: PolicySettings, config: dict[str, Any]) -> None:
    """Divide the weights that are still in files among the processes, one after another; the first process reads."""
    deepspeed = _deepspeed()
    first: Any = None
    made: dict[int, torch.nn.Parameter] = {}
    places = [
        (part, leaf, place, cast(torch.nn.Parameter, part._parameters[leaf])) for part, leaf, place in left(module)
    ]
    dtype = getattr(torch, settings.dtype)
    space = torch.empty(max((shape.numel() for *_, shape in places), default=0), dtype=dtype, device=device())
    for part, leaf, place, shape in places:
        if id(shape) not in made:
            weight = space[: shape.numel()].view(shape.shape)
            if rank() == 0:
                weight.copy_(place.read())
            made[id(shape)] = parameter = torch.nn.Parameter(weight, shape.requires_grad)
            if first is None:
                deepspeed.zero.Init(module=torch.nn.ParameterList([parameter]), config_dict_or_path=config, dtype=dtype)
                first = parameter
            else:
                first.convert_to_zero_parameters(param_list=[parameter])
        part._parameters[leaf] = made[id(shape)]
    if first is not None:  # the others, such as a head, are cast here, because DeepSpeed takes all for cast already
        in_precision(module, settings.dtype)


def count(parameter: Tensor) -> int:
    """The number of elements on all ranks."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def gathered_weights(parameters: Sequence[Tensor]) -> Any:
    """All elements of each parameter on every rank, for the length of the context."""
    import deepspeed

    return deepspeed.zero.GatheredParameters(list(parameters))
