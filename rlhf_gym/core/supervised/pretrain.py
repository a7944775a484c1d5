"""Pretraining: from a corpus of plain text to a language model and its tokenizer.

Cleaned documents are packed into rows without waste; a share of them is held out for the
perplexity, and at the end samples are compared with the corpus to see whether they recite it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_gym.core.cleaning import CleaningConfig, CleaningReport, clean_corpus
from rlhf_gym.core.data import hold_out, read_records, text_column
from rlhf_gym.core.data_formats import TextUnit
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.supervised.common import StageConfig, close_folder, last_checkpoint, open_folder
from rlhf_gym.core.tokenizers import TokenizerKind, encode_beginnings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(StageConfig):
    """Train a language model on plain text."""

    corpus: tuple[str, ...]
    """Files, folders or hub names with a column `text`."""
    columns: dict[str, str] = field(default_factory=dict)
    """Columns to rename: name in the file, then the name wanted (review text)."""
    text_unit: TextUnit = "line"
    """What one document of a .txt file is."""
    limit: int | None = None
    """Read this many documents of each corpus at most."""
    size: str = "small"
    """Shape of a fresh GPT-2: tiny, small, medium or gpt2."""
    model: str | None = None
    """Directory or hub name of a model to train on (with its tokenizer) in place of a fresh one."""
    tokenizer: TokenizerKind = "bpe"
    """Kind of tokenizer to train for a fresh model: bpe, word or char."""
    vocab_size: int = 4096
    """Tokens of that tokenizer, at most."""
    context: int = 256
    """Longest sequence in tokens; longer documents are cut into pieces."""
    end_token: str | None = None
    """Token that ends a document, with --model only; its tokenizer's EOS if not given."""
    trust_remote_code: bool = False
    """Let the directory of --model execute Python code of its own."""
    cleaning: CleaningConfig = field(default_factory=CleaningConfig)
    """What is done to the corpus first."""
    samples: int = 64
    """Texts to sample at the end for the memorisation check."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("context", self.context >= 2, "2 or more", "Give 256, for example")
        self._check("samples", self.samples >= 1, "a count", "Give 1 or more")
        if not self.corpus:
            raise InvalidArgument("corpus", self.corpus, "nothing to read", "Name a file")


@dataclass(frozen=True)
class PretrainResult:
    """What pretraining came to.

    Attributes:
        output: the folder.
        parameters: of the model.
        train_tokens: tokens of one pass over the training documents.
        steps: updates.
        seconds: of training.
        held_out_perplexity: exp of the mean loss per token of held-out documents; NaN if none.
        held_out_bits_per_character: the same loss, comparable between tokenizers; NaN if none.
        recited_share: of the samples' 8-grams, those that stand in the training documents.
        held_out_share: the same of held-out documents, which nobody copied; NaN if none.
        longest_recited: tokens of the longest stretch of a sample that stands in them.
        cleaning: what was dropped from the corpus.
    """

    output: Path
    parameters: int
    train_tokens: int
    steps: int
    seconds: float
    held_out_perplexity: float
    held_out_bits_per_character: float
    recited_share: float
    held_out_share: float
    longest_recited: int
    cleaning: CleaningReport


def pretrain(config: PretrainConfig) -> PretrainResult:
    """Train a language model on a corpus and write it with its tokenizer.

    Raises:
        FolderNotWritable, InvalidCheckpoint: the output folder cannot be used.
        InvalidData: the corpus is missing, malformed or empty after cleaning.
        NonFiniteTraining: training diverged.
    """
    folder = open_folder(config, "pretrain")
    texts, report = clean_corpus(_read(config), config.cleaning)
    train_texts, held_texts = hold_out(texts, config.held_out, seed=config.seed)
    model, tokenizer = _starting_point(config, folder, train_texts)

    from rlhf_gym.core.models import context_length
    from rlhf_gym.core.supervised.language_model import perplexity
    from rlhf_gym.core.supervised.packing import collate_rows, pack
    from rlhf_gym.core.supervised.trainer import train

    context = min(config.context, context_length(model.config) or config.context)
    end = int(tokenizer.eos_token_id)
    train_ids = [[*ids, end] for ids in encode_beginnings(tokenizer, train_texts)]
    held_ids = [[*ids, end] for ids in encode_beginnings(tokenizer, held_texts)]
    collate = partial(collate_rows, pad_id=int(tokenizer.pad_token_id))
    held_rows = pack(held_ids, context)
    evaluate = partial(
        perplexity, examples=held_rows, collate=collate, batch_size=config.batch_size
    )
    trained = train(
        model,
        pack(train_ids, context),
        collate,
        config,
        stage="pretrain",
        evaluate=evaluate if held_ids else None,
    )
    nats = trained.metrics.get("loss", math.nan) * trained.metrics.get("tokens", math.nan)
    recital, samples = _recital(model, tokenizer, train_ids, held_ids, context, config)
    result = PretrainResult(
        output=folder,
        parameters=model.num_parameters(),
        train_tokens=sum(map(len, train_ids)),
        steps=trained.steps,
        seconds=trained.seconds,
        held_out_perplexity=trained.metrics.get("perplexity", math.nan),
        held_out_bits_per_character=nats / math.log(2) / max(sum(map(len, held_texts)), 1),
        cleaning=report,
        **recital,
    )
    close_folder(config, model, tokenizer, {"result": result, "samples": samples})
    return result


def _read(config: PretrainConfig) -> Iterable[str]:
    for path in config.corpus:
        records = read_records(
            path,
            columns=config.columns,
            required=("text",),
            limit=config.limit,
            text_unit=config.text_unit,
        )
        yield from text_column(records, "text", path)


def _starting_point(
    config: PretrainConfig, folder: Path, texts: Sequence[str]
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    from rlhf_gym.core.models import load_tokenizer, new_causal_lm
    from rlhf_gym.core.supervised.language_model import load_for_training
    from rlhf_gym.core.tokenizers import train_tokenizer

    if config.model is not None:
        return load_for_training(
            config.model,
            end_token=config.end_token,
            trust_remote_code=config.trust_remote_code,
            device=config.device,
        )
    if last_checkpoint(folder) is not None:
        tokenizer = load_tokenizer(folder)
    else:
        tokenizer = train_tokenizer(
            texts, config.tokenizer, config.vocab_size, context=config.context
        )
        tokenizer.save_pretrained(folder)
    return new_causal_lm(config.size, tokenizer, config.context, config.seed), tokenizer


def _recital(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train_ids: Sequence[Sequence[int]],
    held_ids: Sequence[Sequence[int]],
    context: int,
    config: PretrainConfig,
) -> tuple[dict[str, Any], list[str]]:
    """How much of what the model writes stands in the corpus, and a few of its texts."""
    from rlhf_gym.core.supervised.language_model import sample_completions
    from rlhf_gym.core.supervised.memorisation import CorpusIndex

    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    nothing = [[int(eos if bos is None else bos)]] * config.samples
    samples = sample_completions(model, tokenizer, nothing, context - 1, config.seed)
    index = CorpusIndex(train_ids)
    overlap = index.overlap(samples)
    recital = {
        "recited_share": overlap.share,
        "longest_recited": overlap.longest,
        "held_out_share": index.overlap(held_ids).share if held_ids else math.nan,
    }
    texts: list[str] = tokenizer.batch_decode(samples[:8], skip_special_tokens=True)
    return recital, texts
