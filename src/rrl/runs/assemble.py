"""Assembles a run from checked parts: data, model, warm start, policy, trainer."""

import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rrl.config.check import Parts
from rrl.contracts import border
from rrl.contracts.breaches import StateLimits
from rrl.contracts.calling import calling
from rrl.errors import StorageError
from rrl.interfaces import RolloutEngine
from rrl.preflight.plan import before_warm_start
from rrl.processes.clock import Clock
from rrl.processes.distributed import device, first_on_each_machine
from rrl.records.fingerprints import fingerprint, tokenizer_fingerprint, weights_fingerprint
from rrl.records.run_directory import cache
from rrl.records.saving import rehearse, rescued, write_model
from rrl.training.agreement import check_agreement, reader
from rrl.training.authoring import LoopAuthor
from rrl.training.evaluation import Answers
from rrl.training.loop import Loop, RunStart
from rrl.training.models import LoadedModel
from rrl.training.policy import DeepSpeedPolicy
from rrl.training.prepared import FrozenSource, Prepared, encode
from rrl.training.pretrained import refusing, unreadable
from rrl.training.tokens import context, embedded, refuse_beyond
from rrl.training.warm_start import WarmStart
from rrl.training.weight_files import weights
from rrl.types import Example, Problem, Show

log = logging.getLogger(__name__)


def prepare(
    config: Mapping[str, Any],
    parts: Parts,
    show: Show,
    keep: Path | None = None,
    read: Callable[[Prepared], None] = lambda cold: None,
) -> Prepared:
    """Read the data, load the model, encode the texts, and train the warm start or load the cached one.

    ``read`` is called before the warm start. The folder ``keep`` gets a copy of the warm start, and takes precedence
    over the cache. One process of each machine runs before the others.
    """
    with first_on_each_machine():
        cold = before_warm_start(parts, loader(parts))
        read(cold)
        start_task(parts)  # reports faults of the task before the warm start takes time
        return _warmed(cold, parts, show, keep)


def loader(parts: Parts) -> Callable[[tuple[str, ...] | None], LoadedModel]:
    """The way to load the model: whole, or divided among processes by the policy."""
    return parts.model.unread if parts.policy.loads_shards and parts.warmstart is None else parts.model.load


def prepare_evaluation(parts: Parts, show: Show, keep: Path | None = None) -> Prepared:
    """The same without training problems, which need not be available."""
    return _warmed(before_warm_start(parts, parts.model.load, training=False), parts, show, keep)


def _warmed(cold: Prepared, parts: Parts, show: Show, keep: Path | None) -> Prepared:
    """After the warm start, if any: the one kept with the run, else the cached one."""
    loaded = LoadedModel(cold.model, cold.tokenizer)
    if parts.warmstart is None:
        return cold
    if keep is not None and (keep / "config.json").is_file():
        return replace(cold, model=_from_folder(keep, loaded), warmstart=keep, kept=keep)
    model, folder = warm_start(loaded, parts, show)
    if keep is not None:
        _keep(LoadedModel(model, loaded.tokenizer), keep)
    return replace(cold, model=model, warmstart=folder, kept=keep or folder)


def warm_start(loaded: LoadedModel, parts: Parts, show: Show) -> tuple[Any, Path]:
    """The model after supervised training and its folder in the cache; the same content is trained once."""
    settings, (model, tokenizer) = parts.warmstart, loaded
    assert settings is not None, "the caller checks"
    demonstrations = border.demonstrations(parts.task, settings.count, settings.start_seed)
    folder = _cache_folder(loaded, demonstrations, settings, parts)
    if (folder / "config.json").is_file():
        log.info("warm start: %s (cached)", folder)
        return _from_folder(folder, loaded), folder
    problems = encode(demonstrations, loaded, parts.prompts, parts.engine.sampling.max_new_tokens)
    rehearse(model, tokenizer, folder.parent)
    settings.train(model, tokenizer, problems, parts.policy.micro_batch_size, show)
    _keep(loaded, folder)
    return model.cpu(), folder


def _from_folder(folder: Path, loaded: LoadedModel) -> Any:
    from transformers import AutoModelForCausalLM

    attention = loaded.model.config._attn_implementation
    expected = "the warm start that was saved there; delete the folder to have it trained again"
    with refusing(partial(unreadable, "warmstart", folder, expected=expected)):
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=attention)


def _keep(loaded: LoadedModel, folder: Path) -> None:
    """Write a temporary folder and rename it, because another process may do the same."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = folder.with_name(f".{folder.name}.{os.getpid()}")
    with rescued(partial(write_model, *loaded), "warm-start", folder.parent):
        faults = write_model(*loaded, aside)
    if faults:
        raise StorageError(*(f"warm start: {fault}; the written files are in {aside}" for fault in faults))
    if folder.exists():
        shutil.rmtree(aside)
    else:
        aside.rename(folder)


def make_trainer(parts: Parts, prepared: Prepared, clock: Clock) -> Loop:
    """Start policy, sampler and engine on the prepared data; returns the loop that drives them."""
    seed, tokenizer = parts.run.seed, prepared.tokenizer
    start_task(parts)
    longest = parts.engine.sampling.max_new_tokens
    limits = StateLimits(  # before the policy wraps the model
        problems={problem.id: problem for problem in prepared.train},
        vocabulary=embedded(prepared.model),
        response=longest,
        prompt=context(prepared.model) - longest,
    )
    policy = DeepSpeedPolicy(
        prepared.model,
        tokenizer,
        parts.policy,
        reference=parts.objective.needs_reference,
        pays_entropy=parts.objective.pays_entropy,
        temperature=parts.engine.sampling.temperature,
        optimiser_steps=parts.trainer.optimiser_steps,
    )
    with calling("sampler", parts.sampler, "start"):
        parts.sampler.start(list(prepared.train), seed, policy.inspect, tokenizer)
    with calling("engine", parts.engine, "start"):
        parts.engine.start(policy, tokenizer, seed)
    check_agreement(prepared.model, prepared.train, parts.engine, policy.inspect, parts.policy.dtype)
    start = _run_start(parts, prepared)
    trainer = parts.trainer.make(
        start,
        task=parts.task,
        sampler=parts.sampler,
        engine=parts.engine,
        reward=parts.reward,
        objective=parts.objective,
        policy=policy,
        pad=tokenizer.pad_token_id,
        seed=seed,
        clock=clock,
        limits=limits,
    )
    with calling("reward", parts.reward, "start"):
        parts.reward.start(tokenizer, trainer.decode)
    trainer.author = LoopAuthor(loop=trainer, tokenizer=tokenizer, render=start.render)
    with calling("sampler", parts.sampler, "lend"):
        parts.sampler.lend(trainer.author)
    with calling("objective", parts.objective, "lend"):
        parts.objective.lend(trainer.author)
    return trainer


def start_task(parts: Parts) -> None:
    """Let the task load its verifier."""
    with calling("task", parts.task, "start"):
        parts.task.start()


def _run_start(parts: Parts, prepared: Prepared) -> RunStart:
    """The beginning of the run; its model is loaded anew at each call, and not kept."""
    folder, tokenizer, size = prepared.kept, prepared.tokenizer, embedded(prepared.model)

    def model() -> Any:
        loaded = loader(parts)(border.vocabulary(parts.task))
        return loaded.model if folder is None else _from_folder(folder, loaded)

    def render(questions: Sequence[str]) -> list[tuple[int, ...]]:
        examples = [Example(id="", level="", question=question, reference="", answer="") for question in questions]
        rows = parts.prompts.template.render(examples, tokenizer)
        refuse_beyond(zip(questions, rows, strict=True), tokenizer, size)
        return rows

    return RunStart(
        problems=prepared.train,
        tokenizer=tokenizer,
        model=model,
        render=render,
        longest_prompt=context(prepared.model) - parts.engine.sampling.max_new_tokens,
    )


def start_frozen(parts: Parts, loaded: LoadedModel, problems: Sequence[Problem], engine: RolloutEngine) -> None:
    """Start an engine with a model that is not in training, and check that both agree."""
    model = loaded.model.to(device())
    with calling("engine", engine, "start"):
        engine.start(FrozenSource(model), loaded.tokenizer, parts.run.seed)
    inspect = reader(model, loaded.tokenizer, engine.sampling.temperature)
    check_agreement(model, problems, engine, inspect, "float32")


def measure(parts: Parts, prepared: Prepared, engine: RolloutEngine | None = None) -> tuple[dict[str, Any], Answers]:
    """An evaluation: its figures with the template it used, and every response.

    ``engine`` writes them (None: the parts' own), as the parts' engine would.
    """
    shape = parts.engine.sampling
    answers = parts.evaluation.answers(prepared.test, parts.task, engine or parts.engine, shape)
    figures = parts.evaluation.figures(answers, shape)
    return {**figures, "template": parts.prompts.template.describe(prepared.tokenizer)}, answers


def _cache_folder(loaded: LoadedModel, demonstrations: Sequence[Example], settings: WarmStart, parts: Parts) -> Path:
    """Named by a hash of architecture, weights, tokenizer, demonstrations, prompts and settings."""
    content = fingerprint(
        [
            _architecture(loaded.model),
            weights_fingerprint(weights(loaded.model)),
            tokenizer_fingerprint(loaded.tokenizer),
            [(example.question, example.reference) for example in demonstrations],
            parts.prompts.template.describe(loaded.tokenizer),
            [parts.prompts.max_prompt_length, parts.engine.sampling.max_new_tokens],
            {**asdict(settings), "micro_batch_size": parts.policy.micro_batch_size},
        ]
    )
    return cache() / f"sft-{content[:16]}"


def _architecture(model: Any) -> dict[str, Any]:
    """The model's configuration: equal weights with another number of heads are another model."""
    changing = ("_name_or_path", "architectures", "dtype", "transformers_version")
    return {name: value for name, value in model.config.to_dict().items() if name not in changing}
