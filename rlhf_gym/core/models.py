"""Making, loading, changing and saving language models; all of them Hugging Face models.

Nothing executes code from a model directory unless `trust_remote_code` asks for it, and weights are
written as safetensors only.
"""

from __future__ import annotations

import contextlib
import copy
import logging as levels
import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rlhf_gym.core.devices import Device, choose_device
from rlhf_gym.core.errors import InvalidArgument, InvalidCheckpoint
from rlhf_gym.core.model_changes import add_lora, disable_dropout, freeze_layers

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

PathLike = str | os.PathLike[str]

__all__ = [
    "SIZES",
    "ModelSize",
    "add_lora",
    "context_length",
    "disable_dropout",
    "freeze_layers",
    "load_causal_lm",
    "load_reward_model",
    "load_tokenizer",
    "new_causal_lm",
    "quiet_transformers",
    "save_model",
]


@dataclass(frozen=True)
class ModelSize:
    """The shape of a fresh GPT-2.

    Attributes:
        n_layer: transformer blocks.
        n_head: attention heads; divides `n_embd`.
        n_embd: hidden size.
    """

    n_layer: int
    n_head: int
    n_embd: int

    def __post_init__(self) -> None:
        if min(self.n_layer, self.n_head, self.n_embd) < 1 or self.n_embd % self.n_head:
            raise InvalidArgument(
                "size", self, "the hidden size is not shared out evenly", "Let n_head divide n_embd"
            )


SIZES = {
    "tiny": ModelSize(n_layer=2, n_head=4, n_embd=96),
    "small": ModelSize(n_layer=4, n_head=4, n_embd=128),
    "medium": ModelSize(n_layer=6, n_head=6, n_embd=384),
    "gpt2": ModelSize(n_layer=12, n_head=12, n_embd=768),
}
"""Named shapes for `--size`: tiny is the demo's, gpt2 that of GPT-2 small."""


def new_causal_lm(
    size: str | ModelSize, tokenizer: PreTrainedTokenizerBase, context: int, seed: int
) -> PreTrainedModel:
    """A freshly initialised GPT-2 for a tokenizer, without dropout.

    Args:
        size: a name in `SIZES`, or a shape.
        tokenizer: gives the vocabulary and the PAD, BOS and EOS ids.
        context: longest sequence in tokens.
        seed: of the initial weights; the global generator is left as it was.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    if isinstance(size, str):
        if size not in SIZES:
            raise InvalidArgument(
                "size", size, "no named size", f"Give one of {', '.join(sorted(SIZES))}"
            )
        size = SIZES[size]
    if context < 2:
        raise InvalidArgument("context", context, "no token could be predicted", "Give 2 or more")
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=context,
        n_layer=size.n_layer,
        n_head=size.n_head,
        n_embd=size.n_embd,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GPT2LMHeadModel(config)


def load_causal_lm(
    path_or_name: PathLike,
    *,
    device: Device = "auto",
    dtype: torch.dtype = torch.float32,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """Load a causal language model, in eval mode.

    Args:
        path_or_name: a Hugging Face directory (of an adapter too), or a name on the hub.
        device: where it goes; "auto" is a GPU if there is one.
        dtype: of its parameters.
        trust_remote_code: let the directory bring Python code of its own and execute it.

    Raises:
        InvalidCheckpoint: the directory is missing, truncated, or not a complete causal LM.
    """
    from transformers import AutoModelForCausalLM

    return _load(AutoModelForCausalLM, path_or_name, device, dtype, trust_remote_code)


def load_reward_model(
    path_or_name: PathLike,
    *,
    device: Device = "auto",
    dtype: torch.dtype = torch.float32,
    trust_remote_code: bool = False,
    field: str = "model",
) -> PreTrainedModel:
    """Load a sequence classifier with one output, in eval mode; arguments as `load_causal_lm`.

    Args:
        path_or_name: see there.
        device: see there.
        dtype: see there.
        trust_remote_code: see there.
        field: what the user gave it as, for messages.

    Raises:
        InvalidCheckpoint: also if the directory has no trained score, or more outputs than one.
    """
    from transformers import AutoModelForSequenceClassification

    model = _load(
        AutoModelForSequenceClassification, path_or_name, device, dtype, trust_remote_code, field
    )
    if model.config.num_labels != 1:
        raise InvalidCheckpoint(
            "reward_model" if field == "model" else field,
            os.fspath(path_or_name),
            f"a classifier with {model.config.num_labels} outputs gives no single score",
            "Give a sequence classifier with num_labels=1, as the reward-model stage writes",
        )
    return model


def load_tokenizer(
    path_or_name: PathLike, *, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a directory or hub name.

    Raises:
        InvalidCheckpoint: there is none.
    """
    from transformers import AutoTokenizer

    source = _source(path_or_name, "tokenizer", "tokenizer_config.json", "tokenizer.json")
    with quiet_transformers(), _loading("tokenizer", source):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            source, trust_remote_code=trust_remote_code
        )
    return tokenizer


def save_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: PathLike
) -> Path:
    """Write a plain Hugging Face directory (safetensors and JSON) that `load_causal_lm` reads.

    A LoRA adapter is merged into a copy of its model first, so that whoever reads the directory
    needs neither peft nor the base model.

    Returns:
        The folder.
    """
    from peft import PeftModel

    if isinstance(model, PeftModel):
        model = copy.deepcopy(model).merge_and_unload()
    with quiet_transformers():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return Path(folder)


def context_length(config: PretrainedConfig) -> int | None:
    """Longest sequence a model takes, in tokens; None if its positions have no limit."""
    length = getattr(config.get_text_config(), "max_position_embeddings", None)
    return None if length is None else int(length)


def _load(
    auto_class: Any,
    path_or_name: PathLike,
    device: Device,
    dtype: torch.dtype,
    trust_remote_code: bool,
    field: str = "model",
) -> PreTrainedModel:
    target = choose_device(device)
    source = _source(path_or_name, field, "config.json", "adapter_config.json")
    with quiet_transformers(), _loading(field, source):
        model, info = auto_class.from_pretrained(
            source, dtype=dtype, trust_remote_code=trust_remote_code, output_loading_info=True
        )
    # transformers fills missing weights with random numbers and goes on.
    missing = sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])})
    if missing:
        raise InvalidCheckpoint(
            field,
            source,
            f"{len(missing)} weights are missing or misshapen, {missing[0]} first",
            "Give a complete directory of this kind of model",
        )
    return model.to(target).eval()  # type: ignore[no-any-return]


def _source(path_or_name: PathLike, field: str, *files: str) -> str:
    """Refuse a directory that cannot be one of a model, and a path that is none, before loading."""
    source = os.fspath(path_or_name)
    path = Path(source)
    if path.is_dir():
        if not any((path / name).is_file() for name in files):
            # A run's folder holds the model that it made, such as a policy, one level down.
            inside = [
                str(f) for f in sorted(path.iterdir()) if any((f / n).is_file() for n in files)
            ]
            remedy = f"Give {' or '.join(inside)}" if inside else "Give a Hugging Face directory"
            raise InvalidCheckpoint(field, source, f"the folder has no {files[0]}", remedy)
    elif (
        path.is_file()
        or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", source)
        or ("/" in source and path.parent.exists())
    ):
        raise InvalidCheckpoint(
            field, source, "there is no such folder", "Check the path, or run the stage before"
        )
    return source


@contextlib.contextmanager
def _loading(field: str, source: str) -> Iterator[None]:
    """Turn the many ways in which a directory can be broken into one error."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        first_line = (str(error).strip().splitlines() or [""])[0]
        raise InvalidCheckpoint(
            field,
            source,
            f"it cannot be loaded ({type(error).__name__}: {first_line})",
            "Write it again with the stage that made it, or check the name and the network",
        ) from error


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence the bars, reports and warnings of transformers and peft, and restore their settings.

    What they warn of here is either dealt with by this library or their own deprecation.
    """
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(levels.ERROR)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
            warnings.filterwarnings("ignore", category=UserWarning, module="peft")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
