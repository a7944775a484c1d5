"""`rlhf-gym build-assets`: make the models that come with the library anew, from seeds alone.

All of RLHF but the last stage, by the same functions as the other subcommands: the generator writes
reviews, a language model is pretrained on them and fine-tuned to continue openings, the oracle
ranks what it then writes, and a reward model learns the ranking.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rlhf_gym.core.command import Command
from rlhf_gym.core.data import write_jsonl
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.labelers import make_teacher, text_rewards
from rlhf_gym.core.seeds import check_seed
from rlhf_gym.core.supervised.common import check_writable, write_json
from rlhf_gym.core.supervised.pretrain import PretrainConfig, pretrain
from rlhf_gym.core.supervised.reward_model import RewardModelConfig, train_reward_model
from rlhf_gym.core.supervised.sft import SFTConfig, sft
from rlhf_gym.envs.sentiment.grammar import prompts, reviews
from rlhf_gym.envs.sentiment.oracle import gold_sentiment, read
from rlhf_gym.pipelines.collect import judged, label_queries, make_queries

if TYPE_CHECKING:
    from rlhf_gym.pipelines.generation import Generation

CONTEXT = 96
"""Tokens the packaged models read; reviews to pretrain on are cut to fit."""
LONGEST_REVIEW = 64
ANSWERS = 4
"""Continuations of each opening that the oracle ranks."""
CLEAR = 0.2
"""Difference in gold from which a pair is no matter of taste."""
SEEDS = {"corpus": 1, "demonstrations": 2, "openings": 3, "unseen": 4}
"""Of the generator; the environment's own openings have seed 0."""


@dataclass(frozen=True)
class BuildAssetsConfig:
    """Make the embedded reference LM, tokenizer and reward model."""

    output: str = "runs/assets"
    """Folder of everything that is made on the way."""
    install: bool = False
    """Put the models into the package, where `gym.make` finds them."""
    corpus: int = 20_000
    """Reviews to pretrain on."""
    demonstrations: int = 6_000
    """Openings with their continuation to fine-tune on."""
    openings: int = 6_000
    """Openings that the reference continues, four times each, for the oracle to rank."""
    unseen: int = 1_000
    """Openings of their own to judge the models by, continued twice each."""
    epochs: float = 8.0
    """Passes over the corpus."""
    seed: int = 0
    """Of weights, data order and sampling."""
    progress: bool = True
    """Show progress bars."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        for name in ("corpus", "demonstrations", "openings", "unseen"):
            if getattr(self, name) < 100:
                raise InvalidArgument(
                    name, getattr(self, name), "too few to go by", "Give 100 or more"
                )


@dataclass(frozen=True)
class BuildAssetsResult:
    """What came of it, on openings that nothing was trained on."""

    output: Path
    """The folder."""
    installed: bool
    """Whether the package now holds the models."""
    megabytes: float
    """Of both models together."""
    corpus_perplexity: float
    """Of held-out reviews under the pretrained model, per token."""
    reference_perplexity: float
    """Of held-out continuations under the fine-tuned one, per token."""
    positive_share: float
    """Share of the reference's continuations that the oracle calls positive."""
    stopped_share: float
    """Share that ends by itself."""
    mean_length: float
    """Tokens of a continuation."""
    noisy_share: float
    """Share in which the oracle hears noise."""
    pair_accuracy: float
    """Share of pairs of continuations that reward model and oracle order alike."""
    clear_pair_accuracy: float
    """The same among pairs whose gold scores differ by at least CLEAR = 0.2."""
    gold_correlation: float
    """Correlation of score and gold."""


def build_assets(config: BuildAssetsConfig) -> BuildAssetsResult:
    """Train, judge and write the packaged models.

    Raises:
        FolderNotWritable: before any work is done.
    """
    from rlhf_gym.envs.sentiment.task import ASSETS

    folder = Path(config.output)
    check_writable(folder)
    if config.install:
        check_writable(ASSETS)
    common: dict[str, Any] = {"seed": config.seed, "progress": config.progress, "device": "cpu"}
    write_texts(folder, config)
    pretrained = pretrain(
        PretrainConfig(
            corpus=(str(folder / "corpus.jsonl"),),
            output=str(folder / "pretrained"),
            size="tiny",
            tokenizer="word",
            vocab_size=1024,
            context=CONTEXT,
            epochs=config.epochs,
            batch_size=32,
            learning_rate=4e-3,
            **common,
        )
    )
    tuned = sft(
        SFTConfig(
            model=str(pretrained.output),
            data=(str(folder / "demonstrations.jsonl"),),
            output=str(folder / "sft"),
            epochs=3,
            batch_size=64,
            learning_rate=1e-3,
            **common,
        )
    )
    write_rankings(folder / "rankings.jsonl", tuned.output, config)
    ranked = train_reward_model(
        RewardModelConfig(
            data=(str(folder / "rankings.jsonl"),),
            model=str(tuned.output),
            output=str(folder / "reward"),
            epochs=4,
            batch_size=16,
            learning_rate=1e-3,
            context=CONTEXT,
            **common,
        )
    )
    size = export(tuned.output, ranked.output, folder / "assets")
    result = BuildAssetsResult(
        output=folder,
        installed=config.install,
        megabytes=size / 1e6,
        corpus_perplexity=pretrained.held_out_perplexity,
        reference_perplexity=tuned.perplexity_after,
        **judge(folder / "assets", config.seed, config.unseen),
    )
    write_json(folder / "assets" / "build.json", _provenance(config, result))
    if config.install:
        shutil.rmtree(ASSETS, ignore_errors=True)
        shutil.copytree(folder / "assets", ASSETS)
    return result


def write_texts(folder: Path, config: BuildAssetsConfig) -> None:
    """Write the corpus, and other reviews as demonstrations; both are new in every word order."""
    corpus = reviews(config.corpus, SEEDS["corpus"], longest=LONGEST_REVIEW, shortest=12)
    write_jsonl(folder / "corpus.jsonl", ({"text": review.text} for review in corpus))
    demonstrations = reviews(config.demonstrations, SEEDS["demonstrations"])
    write_jsonl(
        folder / "demonstrations.jsonl",
        ({"prompt": r.prompt, "completion": r.completion} for r in demonstrations),
    )


def write_rankings(path: Path, reference: Path, config: BuildAssetsConfig) -> None:
    """Let the reference continue each opening several times, and the oracle rank what it wrote."""
    openings = prompts(config.openings, SEEDS["openings"])
    generations = continuations(reference, openings, ANSWERS, config.seed)
    values = judged(generations, "gold")
    gold = {(g.prompt, g.completion): v for g, v in zip(generations, values, strict=True)}
    teacher = make_teacher(
        "oracle",
        text_rewards(lambda p, c: [gold[pair] for pair in zip(p, c, strict=True)]),
        seed=config.seed,
    )
    answers = [generations[i : i + ANSWERS] for i in range(0, len(generations), ANSWERS)]
    queries = [query for answer in answers for query in make_queries(answer, "ranking")]
    write_jsonl(path, label_queries(queries, teacher))


def continuations(
    model: Path, openings: list[str], count: int, seed: int, reward: Path | None = None
) -> list[Generation]:
    """What a language model writes behind openings, judged by the oracle.

    Args:
        model: its directory.
        openings: the prompts.
        count: continuations of each, one after another.
        seed: of the sampling.
        reward: directory of the reward model that scores them; the oracle does if None.
    """
    from rlhf_gym.core.models import load_causal_lm
    from rlhf_gym.envs.sentiment.task import SentimentVectorEnv
    from rlhf_gym.pipelines.generation import generate
    from rlhf_gym.rewards.model import RewardModel

    env = SentimentVectorEnv(
        num_envs=256,
        reference=model,
        prompts=openings,
        reward=gold_sentiment if reward is None else RewardModel(reward),
        kl_coef=0.0,
    )
    rows = np.repeat(np.arange(len(openings)), count)
    return generate(load_causal_lm(model), env, rows, seed=seed)


def judge(assets: Path, seed: int, count: int) -> dict[str, float]:
    """Look at the models on openings that nothing was trained on.

    Args:
        assets: folder with `reference` and `reward_model`.
        seed: of the sampling.
        count: openings, each continued twice.

    Returns:
        The last fields of `BuildAssetsResult`.
    """
    openings = prompts(count, SEEDS["unseen"])
    generations = continuations(
        assets / "reference", openings, 2, seed + 1, assets / "reward_model"
    )
    gold = np.array(judged(generations, "gold"))
    score = np.array([g.score for g in generations])
    noise = [read(g.prompt + g.completion).noise > 0 for g in generations]
    # Two continuations of one opening are a pair, as in the reward model's training.
    gap, margin = gold[::2] - gold[1::2], score[::2] - score[1::2]
    right = np.sign(gap) == np.sign(margin)
    return {
        "positive_share": float(np.mean(gold > 0)),
        "stopped_share": float(np.mean([g.stopped for g in generations])),
        "mean_length": float(np.mean([g.length for g in generations])),
        "noisy_share": float(np.mean(noise)),
        "pair_accuracy": _share(right[gap != 0]),
        "clear_pair_accuracy": _share(right[np.abs(gap) >= CLEAR]),
        "gold_correlation": float(np.corrcoef(gold, score)[0, 1]),
    }


def export(reference: Path, reward_model: Path, assets: Path) -> int:
    """Write the two models without anything else that stages leave in their folders.

    Returns:
        Bytes of all files together.
    """
    from rlhf_gym.core.models import (
        load_causal_lm,
        load_reward_model,
        load_tokenizer,
        save_model,
    )

    shutil.rmtree(assets, ignore_errors=True)
    tokenizer = load_tokenizer(reference)
    save_model(load_causal_lm(reference), tokenizer, assets / "reference")
    save_model(load_reward_model(reward_model), tokenizer, assets / "reward_model")
    files = [path for path in assets.rglob("*") if path.is_file()]
    for path in files:  # safetensors lets nobody but the owner read
        path.chmod(0o644)
    return sum(path.stat().st_size for path in files)


def _share(right: NDArray[np.bool_]) -> float:
    return float(right.mean()) if len(right) else math.nan


def _provenance(config: BuildAssetsConfig, result: BuildAssetsResult) -> dict[str, Any]:
    """What the models were made of and how they came out; nothing of the machine or the moment."""
    settings = ("corpus", "demonstrations", "openings", "epochs", "seed")
    return {
        "made_by": "rlhf-gym build-assets --install",
        "settings": {name: getattr(config, name) for name in settings},
        "figures": {name: v for name, v in asdict(result).items() if isinstance(v, float)},
    }


COMMAND = Command(BuildAssetsConfig, build_assets)
