"""Actor, critic and frozen reference, trained through DeepSpeed."""

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from rrl.collate import context_batch, micro_batches
from rrl.errors import DataError, DivergenceError
from rrl.interfaces import StateDict, Stateful, WeightSource
from rrl.processes.distributed import device, gathered, rank, share, start_process_group, unshare, world_size
from rrl.records.saving import rehearse, write_model
from rrl.training import attention
from rrl.training.compiling import uncompiled
from rrl.training.networks import Actor, Critic, dropout_off, lend, skeleton
from rrl.training.policy_settings import OwnCritic, PolicySettings
from rrl.training.tokens import context
from rrl.training.zero import count, frozen, gathered_weights, in_deepspeed
from rrl.types import Batch, Metrics, PolicyOutput, State, TokenScores


class DeepSpeedPolicy(WeightSource, Stateful):
    """The policy in training: actor, critic and reference with their optimisers.

    ``model`` is a causal language model of transformers; ``reference`` says whether a frozen copy is kept;
    ``temperature`` divides the logits before every log-probability, as when sampling; ``optimiser_steps`` is the
    length of training, for schedules (None: they stay constant after the warm-up); without ``pays_entropy`` no gradient
    goes through entropies.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        settings: PolicySettings,
        *,
        reference: bool,
        pays_entropy: bool,
        temperature: float,
        optimiser_steps: int | None,
    ) -> None:
        start_process_group()
        dropout_off(model)
        self.version, self.optimiser_steps = 0, optimiser_steps
        self._settings, self._tokenizer, self._temperature = settings, tokenizer, temperature
        self._train_actor, self._pays_entropy, self._longest = True, pays_entropy, context(model)
        self._reference = None
        if reference and settings.lora is None:
            reference_network = Actor(copy.deepcopy(model), temperature)
            if settings.compile:
                settings.compile.apply(reference_network)
            self._reference = frozen(reference_network, settings)
        self._reads_base = reference and settings.lora is not None
        self._build(model)

    def _build(self, model: Any) -> None:
        """Networks and optimisers that begin with the weights of ``model``."""
        attention.take_place()
        settings = self._settings
        critic = Critic(model, settings.head_size) if isinstance(settings.critic, OwnCritic) else None
        if critic is not None and settings.gradient_checkpointing:
            critic.trunk.train()
            critic.trunk.gradient_checkpointing_enable()
        model = settings.lora.wrap(model) if settings.lora else model
        model.train()  # transformers checkpoints gradients in training mode only
        if settings.gradient_checkpointing:
            model.gradient_checkpointing_enable()
        self._bare = skeleton(model, device()) if settings.zero_stage == 3 else None
        actor = Actor(model, self._temperature, pays_entropy=self._pays_entropy, **settings.head())
        networks = {"actor": actor} if critic is None else {"actor": actor, "critic": critic}
        self._engines = {name: self._in_deepspeed(network) for name, network in networks.items()}

    def _in_deepspeed(self, network: torch.nn.Module) -> Any:
        if self._settings.compile:
            self._settings.compile.apply(network)
        return in_deepspeed(network, self._settings, lambda step: self._settings.lr_factor(step, self.optimiser_steps))

    def reset(self, model: Any, optimiser_steps: int) -> None:
        """Restart from these weights with new moments and a new schedule; the frozen reference stays."""
        dropout_off(model)
        for engine in self._engines.values():
            engine.destroy()
        self._engines, self.optimiser_steps = {}, optimiser_steps
        self._build(model)
        self.version += 1

    @property
    def actor(self) -> Actor:
        """The actor's module: its parameters are whole at ZeRO stages 0 to 2."""
        return cast(Actor, self._engines["actor"].module)

    def train_critic_only(self, only: bool) -> None:
        """Freeze the actor and a shared trunk during critic warm-up; no effect without a critic."""
        self._train_actor = not only or self._settings.critic is None
        self.actor.detach_trunk = only

    def __call__(self, batch: Batch) -> PolicyOutput:
        batch = batch.to(device())
        logprobs, entropy, values = self._engines["actor"](batch.tokens, batch.attention, batch.mask)
        return PolicyOutput(logprobs, entropy, self._own_values(batch) if "critic" in self._engines else values)

    def micro_batches(self, batch: Batch) -> tuple[Tensor, list[Batch]]:
        """The order in which ranks take the rows in turn, and the micro-batches of this rank, on its device."""
        order, sizes = self._settings.passes(batch.attention.sum(1), world_size())
        return order, [part.to(device()) for part in micro_batches(share(batch.rows(order)), sizes)]

    def annotate(self, batch: Batch, every: int = 1, *, refers: bool = True) -> Batch:
        """Fill ``old_logprobs``, ``entropies``, ``ref_logprobs`` (if it ``refers``) and ``values`` without gradient.

        Ranks share the rows and get the results of all of them. The actor reads only one row in ``every``;
        ``old_logprobs`` and ``entropies`` of the others are zero.
        """
        columns, rows = torch.zeros(4, *batch.tokens.shape), torch.arange(len(batch))
        for reads_actor in (True, False):
            index = rows[(rows % every == 0) == reads_actor]
            if len(index):
                part = self._columns(batch.rows(index), reads_actor, refers)
                columns[:, index, : part.shape[2]] = part
        old, entropies, ref, values = columns
        return batch.with_(old_logprobs=old, entropies=entropies, ref_logprobs=ref, values=values)

    def inspect(self, states: Sequence[State]) -> list[TokenScores]:
        """Log-probabilities, values and entropies of each state's prefix, token by token."""
        if not states:
            return []
        batch = self.annotate(context_batch(states, self._tokenizer, self._longest), refers=False)
        rows = zip(states, batch.mask, batch.old_logprobs, batch.values, batch.entropies, strict=True)
        return [
            TokenScores(
                tuple(logprobs[mask][: len(state.prefix)].tolist()),
                tuple(values[mask].tolist()),
                tuple(entropies[mask][: len(state.prefix)].tolist()),
            )
            for state, mask, logprobs, values, entropies in rows
        ]

    def backward(self, actor_loss: Tensor, critic_loss: Tensor, *, last: bool) -> None:
        """Accumulate the gradients of both losses; ``last`` marks an optimiser step's final micro-batch.

        The losses are shares of a global sum; DeepSpeed averages gradients over ranks, which is undone here.
        """
        losses = gathered((actor_loss.item(), critic_loss.item()))
        wrong = [pair for pair in losses if not all(map(math.isfinite, pair))]
        if wrong:
            raise DivergenceError(
                f"loss: actor {wrong[0][0]}, critic {wrong[0][1]}; expected finite numbers; lower policy.actor_lr, "
                "policy.critic_lr or raise kl.coef"
            )
        for name, loss in self._losses(actor_loss, critic_loss).items():
            self._engines[name].set_gradient_accumulation_boundary(last)
            self._engines[name].backward(loss * world_size(), scale_wrt_gas=False)

    def step(self) -> Metrics:
        """One optimiser step of every network in training; returns gradient norms and learning rates."""
        metrics = {}
        norms = {name: _norm_before_step(name, engine) for name, engine in self._in_training()}
        for name, engine in self._in_training():
            for group in engine.optimizer.param_groups:
                group["lr"] = 0.0 if group["network"] == "actor" and not self._train_actor else group["lr"]
                metrics[f"{group['network']}/lr"] = float(group["lr"])
            engine.step()
            norm = norms[name]
            metrics[f"{name}/grad_norm"] = _finite(name, engine.get_global_grad_norm()) if norm is None else norm
        for name in self._engines.keys() - norms.keys():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the schedule must advance while its optimiser is idle
                self._engines[name].lr_scheduler.step()
        self.version += 1
        return metrics

    @contextmanager
    def generation_model(self) -> Iterator[Any]:
        """The actor's language model in evaluation mode; at ZeRO stage 3 its weights are gathered once.

        They are then lent to a copy without DeepSpeed's hooks, which would gather and release them at every token and
        wait for ranks that have finished their rows.
        """
        model = self.actor.model
        with torch.no_grad(), uncompiled() if self._settings.compile else nullcontext():
            if self._bare is None:
                model.eval()
                yield model
                model.train()
                return
            with gathered_weights(list(model.parameters())):
                weights = dict(model.named_parameters(remove_duplicate=False))
                lend(self._bare, weights)
                yield self._bare
                lend(self._bare, {name: weight.to("meta") for name, weight in weights.items()})

    def save(self, folder: Path) -> list[str]:
        """Write actor and tokenizer in Hugging Face format; adapters are merged into the weights.

        The first rank writes; returns warnings of what was saved in a plain form instead (``saving.write_model``).
        """
        with self.generation_model() as model:
            return write_model(model, self._tokenizer, folder) if rank() == 0 else []

    def rehearse(self, folder: Path) -> None:
        """Try all of ``save`` but the weights. Raises DataError or StorageError."""
        rehearse(self.actor.model if self._bare is None else self._bare, self._tokenizer, folder)

    @property
    def saves_alone(self) -> bool:
        """Whether this rank can ``save`` without the others."""
        return rank() == 0 and (self._bare is None or world_size() == 1)

    def state_bytes(self) -> int:
        """Approximate size of a checkpoint, the actor in Hugging Face format included."""
        parameters = [p for engine in self._engines.values() for p in engine.module.parameters()]
        trained = sum(count(p) for p in parameters if p.requires_grad)
        whole = sum(map(count, self.actor.model.parameters()))
        return self._settings.checkpoint_bytes(trained, sum(map(count, parameters)) - trained, whole)

    def save_state(self, folder: Path, write: Callable[[Any, Any], None] = torch.save) -> None:
        """Write networks, optimisers and schedules, every rank its part, in DeepSpeed's format.

        ``write`` receives the content and the path of each file.
        """
        for name, engine in self._engines.items():
            engine.checkpoint_engine.save = lambda state_dict, path: write(state_dict, path)
            engine.save_checkpoint(str(folder / name), tag="state", save_latest=False)

    def load_state(self, folder: Path) -> None:
        """Go back to what ``save_state`` wrote."""
        for name, engine in self._engines.items():
            found, _ = engine.load_checkpoint(str(folder / name), tag="state")
            if found is None:
                raise DataError(f"{folder / name}: holds no state of this network; expected what save_state wrote")

    def state_dict(self) -> StateDict:
        return {"version": self.version}

    def load_state_dict(self, state: StateDict) -> None:
        self.version = state["version"]

    def _in_training(self) -> list[tuple[str, Any]]:
        idle = "actor" if not self._train_actor and "critic" in self._engines else None
        return [(name, engine) for name, engine in self._engines.items() if name != idle]

    def _losses(self, actor_loss: Tensor, critic_loss: Tensor) -> dict[str, Tensor]:
        actor_loss = actor_loss if self._train_actor else 0.0 * actor_loss
        if "critic" not in self._engines:
            return {"actor": actor_loss + critic_loss}
        losses = {"actor": actor_loss, "critic": critic_loss}
        return {name: losses[name] for name, _ in self._in_training()}

    def _own_values(self, batch: Batch) -> Tensor:
        return cast(Tensor, self._engines["critic"](batch.tokens, batch.attention))

    def _columns(self, batch: Batch, reads_actor: bool, refers: bool) -> Tensor:
        """What ``_annotate`` returns, for the rows of all ranks, [4, rows, time]."""
        order, parts = self.micro_batches(batch)
        mine, row = torch.zeros(4, sum(map(len, parts)), batch.tokens.shape[1]), 0
        for part in parts:
            mine[:, row : row + len(part), : part.tokens.shape[1]] = self._annotate(part, reads_actor, refers)
            row += len(part)
        return unshare(mine, len(batch))[:, order.argsort()]

    @torch.no_grad()
    def _annotate(self, batch: Batch, reads_actor: bool, refers: bool) -> Tensor:
        """Old log-probabilities, entropies, the reference's log-probabilities and values, [4, rows, time]."""
        self.actor.eval()  # no dropout in adapters
        old = entropies = reference = values = torch.zeros_like(batch.rewards)
        if reads_actor:
            output = self(batch)
            old, entropies = output.logprobs, output.entropy
            values = values if output.values is None else output.values
        elif "critic" in self._engines:
            values = self._own_values(batch)
        if refers and self._reference is not None:
            reference = self._reference(batch.tokens, batch.attention, batch.mask)[0]
        elif refers and self._reads_base:
            with self.actor.model.disable_adapter():
                reference = self.actor(batch.tokens, batch.attention, batch.mask)[0]
        self.actor.train()
        return torch.stack([old.float(), entropies.float(), reference.float(), values.float()]).cpu()


def _norm_before_step(network: str, engine: Any) -> float | None:
    """The gradient's norm where DeepSpeed keeps gradients; None elsewhere, where it skips infinite steps itself."""
    if engine.zero_optimization() or engine.bfloat16_enabled():
        return None
    gradients = [p.grad for p in engine.module.parameters() if p.grad is not None]
    return _finite(network, torch.nn.utils.get_total_norm(gradients))


def _finite(network: str, norm: Tensor | float) -> float:
    if not math.isfinite(float(norm)):
        raise DivergenceError(
            f"gradient of the {network}: norm {float(norm)}; expected a finite number; lower policy.{network}_lr "
            "or set policy.grad_clip"
        )
    return float(norm)
