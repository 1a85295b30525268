"""From checked parts to a running experiment: data, model, warm start, policy, trainer."""

import hashlib
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from rrl.clock import Clock
from rrl.config import Parts
from rrl.errors import DataError, DivergenceError
from rrl.evaluation import Evaluation
from rrl.models import LoadedModel
from rrl.policy import DeepSpeedPolicy
from rrl.rundir import hash_tokenizer
from rrl.sft import content_key
from rrl.trainer import Trainer
from rrl.types import Example, Problem

log = logging.getLogger(__name__)
Show = Callable[[int, float], None]


@dataclass(frozen=True)
class Prepared:
    """What training and evaluation start from."""

    model: Any
    tokenizer: Any
    train: list[Problem]
    test: list[Problem]
    warmstart: Path | None


class FrozenSource:
    """Lends the weights of a model that is not in training."""

    version = 0

    def __init__(self, model: Any) -> None:
        self._model = model

    @contextmanager
    def generation_model(self) -> Iterator[Any]:
        """The model in evaluation mode."""
        with torch.no_grad():
            yield self._model.eval()


def prepare(config: Mapping[str, Any], parts: Parts, show: Show) -> Prepared:
    """Read the data, load the model, warm it up (or take the cached warm start), turn text into tokens."""
    train = parts.task.examples("train")
    _check_levels(train, config["sampler"].get("level_weights"))
    prepared = prepare_evaluation(parts, show)
    return replace(prepared, train=encode(train, prepared.tokenizer, prepared.model, parts))


def prepare_evaluation(parts: Parts, show: Show) -> Prepared:
    """The same without problems to train on, which need not be at hand."""
    if parts.warmstart is not None:
        parts.run.cache()
    examples = parts.task.examples(parts.evaluation.split)
    model, tokenizer = parts.model.load(parts.task.vocabulary())
    test = encode(examples, tokenizer, model, parts)
    folder = None
    if parts.warmstart is not None:
        model, folder = warm_start(LoadedModel(model, tokenizer), parts, show)
    return Prepared(model, tokenizer, [], parts.evaluation.choose(test), folder)


def _check_levels(examples: Sequence[Example], weights: Mapping[str, float] | None) -> None:
    """Every level with a weight needs problems."""
    levels = sorted({example.level for example in examples})
    missing = sorted(set(weights or {}) - set(levels))
    if missing:
        raise DataError(
            f"data.level_weights: no problems of level {', '.join(missing)}; expected levels among {', '.join(levels)}"
        )


def encode(examples: Sequence[Example], tokenizer: Any, model: Any, parts: Parts) -> list[Problem]:
    """Examples as problems that fit the model's context."""
    context = getattr(model.config, "max_position_embeddings", None) or 10**9
    problems: list[Problem] = parts.prompts.encode(
        examples, tokenizer, context=context, response=parts.engine.sampling.max_new_tokens
    )
    return problems


def warm_start(loaded: LoadedModel, parts: Parts, show: Show) -> tuple[Any, Path]:
    """The model after supervised training and the folder it is cached in: trained once per content."""
    from transformers import AutoModelForCausalLM

    settings, (model, tokenizer) = parts.warmstart, loaded
    demonstrations = parts.task.demonstrations(settings.count, settings.seed)
    folder = _cache_folder(loaded, demonstrations, parts)
    if (folder / "config.json").is_file():
        log.info("warm start: %s (cached)", folder)
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), folder
    problems = encode(demonstrations, tokenizer, model, parts)
    loss = settings.train(model, tokenizer, problems, show)
    if not math.isfinite(loss):
        raise DivergenceError(f"warm start: loss {loss}; expected a finite number; lower warmstart.lr")
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = folder.with_name(f".{folder.name}.{os.getpid()}")
    model.save_pretrained(aside)
    tokenizer.save_pretrained(aside)
    if folder.exists():
        shutil.rmtree(aside)
    else:
        aside.rename(folder)
    return model.cpu(), folder


def make_trainer(config: Mapping[str, Any], parts: Parts, prepared: Prepared, clock: Clock) -> Trainer:
    """Policy, sampler and engine, started on the prepared data; the trainer that drives them."""
    policy = DeepSpeedPolicy(
        prepared.model,
        prepared.tokenizer,
        parts.policy,
        reference=parts.objective.needs_reference,
        temperature=parts.engine.temperature,
        optimiser_steps=_optimiser_steps(parts),
    )
    parts.sampler.start(prepared.train, config["seed"], policy.inspect, prepared.tokenizer)
    parts.engine.start(policy, prepared.tokenizer, config["seed"])
    return Trainer(
        settings=parts.trainer,
        task=parts.task,
        sampler=parts.sampler,
        engine=parts.engine,
        reward=parts.reward,
        objective=parts.objective,
        policy=policy,
        pad=prepared.tokenizer.pad_token_id,
        micro_batch_size=parts.policy.micro_batch_size,
        seed=config["seed"],
        clock=clock,
    )


def measure(evaluation: Evaluation, parts: Parts, prepared: Prepared) -> dict[str, Any]:
    """An evaluation with the engine as it stands, and the template it used."""
    result = evaluation.measure(prepared.test, parts.task, parts.engine)
    return {**result, "template": parts.prompts.template.describe(prepared.tokenizer)}


def _cache_folder(loaded: LoadedModel, demonstrations: Sequence[Example], parts: Parts) -> Path:
    """Named by what goes in: weights, tokenizer, demonstrations, prompts and settings."""
    examples = hashlib.sha256(repr([(e.question, e.reference) for e in demonstrations]).encode()).hexdigest()
    key = content_key(
        [
            _hash_weights(loaded.model),
            hash_tokenizer(loaded.tokenizer),
            examples,
            parts.prompts.template.describe(loaded.tokenizer),
            [parts.prompts.max_prompt_length, parts.engine.sampling.max_new_tokens],
            asdict(parts.warmstart),
        ]
    )
    return Path(parts.run.cache()) / f"sft-{key}"


def _hash_weights(model: Any) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _optimiser_steps(parts: Parts) -> int | None:
    """How many optimiser steps training takes, when the number of steps is given."""
    trainer = parts.trainer
    if trainer.total_training_steps is None:
        return None
    per_step = trainer.ppo_epochs * trainer.train_batch_size * trainer.n // trainer.ppo_mini_batch_size
    return int(trainer.total_training_steps * per_step)
