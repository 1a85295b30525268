"""DeepSpeed: engines for networks, and gathering the weights that ZeRO divides. No other file imports it."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from rrl.training.networks import Critic
from rrl.training.policy_settings import BUCKET, PolicySettings


def in_deepspeed(module: torch.nn.Module, settings: PolicySettings, factor: Callable[[int], float]) -> Any:
    """The DeepSpeed engine of a network with optimiser and schedule; ``factor`` of the step scales the rate."""
    import deepspeed

    deepspeed.logger.setLevel("WARNING")
    # Its shared-memory collectives compile C++ at first use; gloo serves as well and needs no compiler.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    size = sum(count(p) for _, p in trained)
    optimiser = settings.optimiser(module, is_critic=isinstance(module, Critic))
    config = {
        "train_micro_batch_size_per_gpu": settings.micro_batch_size,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": settings.grad_clip,
        "zero_optimization": {"stage": settings.zero_stage, "reduce_bucket_size": min(BUCKET, size)},
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": settings.dtype == "bfloat16"},
    }
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
    return deepspeed.initialize(
        model=module, optimizer=optimiser, lr_scheduler=schedule, config=config, dist_init_required=False
    )[0]


def count(parameter: Tensor) -> int:
    """The number of elements on all ranks."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def gathered_weights(parameters: Sequence[Tensor]) -> Any:
    """All elements of each parameter on every rank, for the length of the context."""
    import deepspeed

    return deepspeed.zero.GatheredParameters(list(parameters))
