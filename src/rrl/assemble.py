"""From checked parts to a running experiment: data, model, warm start, policy, trainer."""

import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from rrl.clock import Clock
from rrl.config import Parts
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
    examples = [parts.task.examples(split) for split in ("train", parts.evaluation.split)]
    model, tokenizer = parts.model.load(parts.task.vocabulary())
    train, test = (encode(rows, tokenizer, model, config, parts) for rows in examples)
    folder = None
    if parts.warmstart is not None:
        model, folder = warm_start(LoadedModel(model, tokenizer), config, parts, show)
    return Prepared(model, tokenizer, train, parts.evaluation.choose(test), folder)


def encode(
    examples: Sequence[Example], tokenizer: Any, model: Any, config: Mapping[str, Any], parts: Parts
) -> list[Problem]:
    """Examples as problems that fit the model's context."""
    context = getattr(model.config, "max_position_embeddings", None) or 10**9
    problems: list[Problem] = parts.prompts.encode(
        examples, tokenizer, context=context, response=config["data"]["max_response_length"]
    )
    return problems


def warm_start(loaded: LoadedModel, config: Mapping[str, Any], parts: Parts, show: Show) -> tuple[Any, Path]:
    """The model after supervised training and the folder it is cached in: trained once per content."""
    from transformers import AutoModelForCausalLM

    settings, (model, tokenizer) = parts.warmstart, loaded
    demonstrations = parts.task.demonstrations(settings.count, settings.seed)
    folder = _cache_folder(loaded, demonstrations, config, parts)
    if (folder / "config.json").is_file():
        log.info("warm start: %s (cached)", folder)
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), folder
    problems = encode(demonstrations, tokenizer, model, config, parts)
    settings.train(model, tokenizer, problems, show)
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


def _cache_folder(
    loaded: LoadedModel, demonstrations: Sequence[Example], config: Mapping[str, Any], parts: Parts
) -> Path:
    """Named by what goes in: weights, tokenizer, demonstrations, template and settings."""
    examples = hashlib.sha256(repr([(e.question, e.reference) for e in demonstrations]).encode()).hexdigest()
    key = content_key(
        [
            _hash_weights(loaded.model),
            hash_tokenizer(loaded.tokenizer),
            examples,
            parts.prompts.template.describe(loaded.tokenizer),
            asdict(parts.warmstart),
        ]
    )
    folder = Path(parts.run.cache_dir).expanduser() / f"sft-{key}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    return folder


def _hash_weights(model: Any) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _optimiser_steps(parts: Parts) -> int | None:
    """How many optimiser steps training takes, when the number of steps is given."""
    trainer = parts.trainer
    if trainer.total_training_steps is None:
        return None
    per_step = trainer.ppo_epochs * trainer.train_batch_size * trainer.n // trainer.ppo_mini_batch_size
    return int(trainer.total_training_steps * per_step)
