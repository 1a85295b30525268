"""Language models and tokenizers: built in code, from a local folder, or from the hub."""

import json
import logging
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from rrl.errors import DataError
from rrl.ranges import at_least_one, check_ranges
from rrl.records.files import by_step
from rrl.training import tiny
from rrl.training.adapters import Adapter, adapter_of
from rrl.training.pretrained import Refuse, load_pretrained, refusing, with_weights_in_files
from rrl.training.tokens import agree_on_padding, embedded

log = logging.getLogger(__name__)


class LoadedModel(NamedTuple):
    """A causal language model of transformers and the tokenizer that fits it."""

    model: Any
    tokenizer: Any


Read = Callable[[str, dict[str, Any], Refuse], LoadedModel]
"""Makes a model and its tokenizer from a folder or hub id and the arguments of both."""


class Model(Protocol):
    """A source of a language model."""

    def load(self, vocabulary: tuple[str, ...] | None) -> LoadedModel:
        """Model and tokenizer; ``vocabulary`` is the task's closed set of words, or None."""

    def unread(self, vocabulary: tuple[str, ...] | None) -> LoadedModel:
        """The same for ZeRO stage 3, with the weights left in their files (``weight_files``) where that is possible."""
        return self.load(vocabulary)

    def outline(self, vocabulary: tuple[str, ...] | None) -> LoadedModel:
        """The same for counting parameters: where loading is slow, the weights are on torch's meta device instead."""
        return self.load(vocabulary)

    def sketch(self, vocabulary: tuple[str, ...] | None) -> LoadedModel:
        """The same for counting parameters without adapters: the model need not be one of transformers."""
        return self.outline(vocabulary)


CONTEXT = 1024
"""The least context of a tiny model, prompt and response, in tokens."""
HEAD = 32
"""Width of an attention head."""
INITIALIZER_RANGE, WIDTH = 0.15, 64
"""Standard deviation of random weights up to this width; with Llama's 0.02 width 64 hardly learns."""


@dataclass(frozen=True, kw_only=True)
class TinyLlama(Model):
    """A random Llama small enough for a laptop, with the task's own words or, for free text, bytes as tokens.

    Heads are ``HEAD`` wide, or as wide as the model, and feed-forward layers 8/3 as wide as it, in multiples of 4, as
    Llama's (arXiv 2302.13971). Random weights have ``start_seed`` and the standard deviation ``INITIALIZER_RANGE``,
    beyond ``WIDTH`` less by the width's root (LeCun et al., "Efficient BackProp", 1998, eq. 16).
    """

    hidden_size: int
    num_hidden_layers: int
    start_seed: int
    max_prompt_length: int
    max_response_length: int

    def __post_init__(self) -> None:
        check_ranges(self, at_least_one("hidden_size", "num_hidden_layers"))
        if self.hidden_size % (HEAD if self.hidden_size > HEAD else 2):
            raise ValueError(
                f"hidden_size: expected a multiple of {HEAD}, or an even number below it, got {self.hidden_size}"
            )

    def load(self, vocabulary: tuple[str, ...] | None) -> LoadedModel:
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        tokenizer = tiny.tokenizer(vocabulary)
        config = LlamaConfig(
            **self._sizes(len(tokenizer)),
            initializer_range=INITIALIZER_RANGE * math.sqrt(WIDTH / max(WIDTH, self.hidden_size)),
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        with torch.random.fork_rng():
            torch.manual_seed(self.start_seed)
            return LoadedModel(LlamaForCausalLM(config), tokenizer)

    def sketch(self, vocabulary: tuple[str, ...] | None) -> LoadedModel:
        tokenizer = tiny.TokenizerSketch(vocabulary)
        return LoadedModel(tiny.LlamaSketch(self._sizes(len(tokenizer))), tokenizer)

    def _sizes(self, vocabulary: int) -> dict[str, int]:
        heads = max(1, self.hidden_size // HEAD)
        return {
            "vocab_size": vocabulary,
            "hidden_size": self.hidden_size,
            "intermediate_size": 4 * round(2 * self.hidden_size / 3),
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "max_position_embeddings": max(CONTEXT, self.max_prompt_length + self.max_response_length),
        }


@dataclass(frozen=True, kw_only=True)
class HuggingFace(Model):
    """Any causal language model of transformers, by hub id or local folder.

    ``revision`` is a hub revision or null; ``attention`` is transformers' ``attn_implementation`` (sdpa, eager,
    flash_attention_2). Weights are loaded in float32: the policy decides the training precision. A folder with a
    low-rank adapter gives its base model with the adapter merged into the weights.
    """

    path: str | None
    revision: str | None
    attention: str
    trust_remote_code: bool

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError("path: missing; give a hub id or a local folder, as in model.path=Qwen/Qwen2.5-0.5B")

    def load(self, vocabulary: tuple[str, ...] | None) -> LoadedModel:
        """Load both; the model's own vocabulary replaces the task's."""
        return self._loaded(self._with_weights)

    def unread(self, vocabulary: tuple[str, ...] | None) -> LoadedModel:
        return self._loaded(self._in_files)

    def outline(self, vocabulary: tuple[str, ...] | None) -> LoadedModel:
        """The tokenizer and a model of shapes alone: weights are neither allocated nor read, and may be missing."""
        return self._loaded(self._without_weights)

    def _loaded(self, read: Read) -> LoadedModel:
        path = os.path.expanduser(str(self.path))
        loaded = self._load(path, self.revision, read, partial(self._unreadable, path, None))
        check_tokenizer(loaded.tokenizer, loaded.model, path)
        return loaded

    def _load(self, path: str, revision: str | None, read: Read, refuse: Refuse) -> LoadedModel:
        """The model or, for an adapter, its base with the adapter merged."""
        from transformers import AutoTokenizer

        adapter = adapter_of(path)
        common = {"revision": revision, "trust_remote_code": self.trust_remote_code}
        with refusing(refuse):
            if adapter is None:
                return read(path, common, refuse)
            of_base = partial(self._unreadable, path, adapter)
            read = self._with_weights if read == self._in_files else read  # an adapter is merged into weights
            model, tokenizer = self._load(adapter.base, adapter.revision, read, of_base)
            if (Path(path) / "tokenizer_config.json").is_file():
                tokenizer = AutoTokenizer.from_pretrained(path, **common)
            return LoadedModel(model if model.device.type == "meta" else adapter.merge(model), tokenizer)

    def _with_weights(self, path: str, common: dict[str, Any], refuse: Refuse) -> LoadedModel:
        import torch

        causal_config(path, common)
        model, tokenizer, missing = load_pretrained(
            "AutoModelForCausalLM", path, refuse, common, dtype=torch.float32, attn_implementation=self.attention,
            generation_config=sound_generation(path, common["revision"]),
        )  # fmt: skip
        if missing:
            raise refuse(f"{len(missing)} weights are missing, such as {missing[0]}")
        return LoadedModel(model, tokenizer)

    def _in_files(self, path: str, common: dict[str, Any], refuse: Refuse) -> LoadedModel:
        import torch
        from transformers import AutoTokenizer

        model = with_weights_in_files(
            path, causal_config(path, common), common, dtype=torch.float32, attn_implementation=self.attention,
            generation_config=sound_generation(path, common["revision"]),
        )  # fmt: skip
        if isinstance(model, str):
            log.warning("model.path: every process loads all weights, not only its share: %s", model)
            return self._with_weights(path, common, refuse)
        return LoadedModel(model, AutoTokenizer.from_pretrained(path, **common))

    def _without_weights(self, path: str, common: dict[str, Any], refuse: Refuse) -> LoadedModel:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        shape = {"dtype": torch.float32, "attn_implementation": self.attention}
        config, tokenizer = causal_config(path, common), AutoTokenizer.from_pretrained(path, **common)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, **shape, trust_remote_code=self.trust_remote_code)
        return LoadedModel(model, tokenizer)

    def _unreadable(self, path: str, adapter: Adapter | None, reason: object) -> DataError:
        text = " ".join(str(reason).split()) or type(reason).__name__
        if isinstance(reason, ImportError) or "attn_implementation" in text:
            return DataError(
                f"model.attention: {self.attention!r} cannot be used here ({text}); expected sdpa or eager"
            )  # fmt: skip
        if adapter is not None:
            return adapter.unreadable(text)
        kind = "a folder that transformers cannot read" if os.path.isdir(path) else "no local folder"
        return DataError(
            f"model.path: {self.path!r} is {kind} ({text[:300]}); expected a folder with config.json, tokenizer and "
            f"weights of a causal language model, or the id of a hub model this machine can reach{_instead(Path(path))}"
        )


def _instead(folder: Path) -> str:
    """A hint at the model within the folder of a run, of a checkpoint, or of all its checkpoints."""
    checkpoints = [step for place in (folder, folder / "checkpoints") for step in reversed(by_step(place))]
    models = [place / "actor" for place in (folder, *checkpoints) if (place / "actor" / "config.json").is_file()]
    if models:
        return f"; it holds a run's model: give model.path={models[0]}"
    return "; it holds a run that has saved no model yet" if (folder / "config.yaml").is_file() else ""


def sound_generation(path: str, revision: str | None) -> Any:
    """A valid form of the model's generation config; None where it is valid already.

    Many folders have a temperature without ``do_sample``, which transformers reads but refuses to write. Sampling
    follows the engine's settings; only the tokens that end a response matter here.
    """
    from transformers import GenerationConfig

    values = _generation_values(path, revision)
    ids = {name: value for name, value in values.items() if name.endswith("token_id") and _are_ids(value)}
    for candidate in (values, {**values, "do_sample": True}, ids):
        try:
            config = GenerationConfig(**candidate)
            config.validate(strict=True)
        except Exception as error:  # of any kind: transformers does not check the types of values
            log.info("generation config of %s: not valid (%s)", path, " ".join(str(error).split())[:200])
        else:
            return None if candidate is values else config
    return GenerationConfig()


def _generation_values(path: str, revision: str | None) -> dict[str, Any]:
    """The values of generation_config.json or, where there is none, of config.json."""
    from transformers import GenerationConfig
    from transformers.utils import cached_file

    for name in ("generation_config.json", "config.json"):
        try:
            found = json.loads(Path(str(cached_file(path, name, revision=revision))).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # missing, or no JSON: transformers reads the next, or reports it
            continue
        known = found if name != "config.json" else found.keys() & vars(GenerationConfig()).keys()
        return {key: found[key] for key in known if found[key] is not None}
    return {}


def _are_ids(value: Any) -> bool:
    several = value if isinstance(value, list) else [value]
    return all(type(number) is int and number >= 0 for number in several)


def causal_config(path: str, common: Mapping[str, Any]) -> Any:
    """The configuration in a model's folder. Raises DataError where the model is no causal language model."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    config = AutoConfig.from_pretrained(path, **common)
    foreign = "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})
    if (type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and not config.is_encoder_decoder) or foreign:
        return config
    name = ", ".join(config.architectures or [type(config).__name__])
    reason = "has an encoder beside its decoder" if config.is_encoder_decoder else "is not among AutoModelForCausalLM's"
    raise DataError(
        f"model.path: {path!r} holds {name} ({config.model_type}), which {reason}; expected a causal language model; "
        "docs/models.md lists those that were tried"
    )


def check_tokenizer(tokenizer: Any, model: Any, name: str) -> None:
    """Give the tokenizer a pad token where EOS can serve; refuse one without EOS, or whose EOS the model cannot read.

    It may have more tokens than the model embeds: texts are checked for them when they are encoded.
    """
    end, size = tokenizer.eos_token_id, embedded(model)
    if end is None:
        raise DataError(
            f"tokenizer of {name}: has no EOS token, so that no response could end; set eos_token in its "
            "tokenizer_config.json"
        )
    if end >= size:
        raise DataError(
            f"tokenizer of {name}: its EOS token has the number {end} but the model embeds {size}; use the "
            "tokenizer the model was trained with"
        )
    agree_on_padding(tokenizer, size)
