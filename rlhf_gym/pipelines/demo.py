"""`rlhf-gym demo`: the whole of RLHF on film reviews of our own, live, in minutes on two CPU cores.

Every stage is the stage of the same name, at its smallest size, and reads what the one before it
wrote; above each stands the command that would do the same by hand.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rlhf_gym.agents.ppo_config import PPOConfig
from rlhf_gym.core.command import Command
from rlhf_gym.core.data import write_jsonl
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.seeds import check_seed
from rlhf_gym.core.supervised.common import check_writable
from rlhf_gym.core.supervised.pretrain import PretrainConfig, PretrainResult, pretrain
from rlhf_gym.core.supervised.reward_model import (
    RewardModelConfig,
    RewardModelResult,
    train_reward_model,
)
from rlhf_gym.core.supervised.sft import SFTConfig, SFTResult, sft
from rlhf_gym.envs.sentiment import grammar
from rlhf_gym.pipelines.collect import CollectConfig, CollectResult, collect
from rlhf_gym.pipelines.curves import draw_training
from rlhf_gym.pipelines.environment import EnvironmentConfig
from rlhf_gym.pipelines.evaluate import EvaluateConfig, Evaluation, TextReport, evaluate
from rlhf_gym.pipelines.train import TrainConfig, TrainResult, train

GOLD = "rlhf_gym.envs.sentiment.oracle:gold_sentiment"
CORPUS_SEED, DEMONSTRATION_SEED, PROMPT_SEED, HELD_OUT_SEED = 101, 102, 103, 104
BUDGET = 32
SAMPLES = 4


@dataclass(frozen=True)
class DemoConfig:
    """The whole of RLHF on the embedded task."""

    output: str = "runs/demo"
    """Folder of all stages; what an earlier demo left there is replaced."""
    seed: int = 0
    """Of every stage."""
    reviews: int = 8000
    """Reviews to pretrain on."""
    demonstrations: int = 2000
    """Reviews whose completions are demonstrated."""
    prompts: int = 4000
    """Openings whose completions are ranked, four each, to learn the reward."""
    timesteps: int = 60_000
    """Response tokens to train PPO on."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        for name in ("reviews", "demonstrations", "prompts", "timesteps"):
            if getattr(self, name) < 1:
                raise InvalidArgument(name, getattr(self, name), "not a count", "Give 1 or more")


def demo(config: DemoConfig) -> None:
    """Run all stages and show what came of them.

    Raises:
        FolderNotWritable: before any work is done.
    """
    started = time.perf_counter()
    run = _Demo(config, Console())
    run.write_data()
    run.pretrain()
    run.sft()
    run.collect()
    run.reward_model()
    run.train()
    run.show(run.evaluate(), time.perf_counter() - started)


class _Demo:
    """The stages in one folder; each method is one stage."""

    def __init__(self, config: DemoConfig, console: Console) -> None:
        self.config = config
        self.console = console
        self.folder = Path(config.output)
        check_writable(self.folder)
        for name in ("data", "lm", "sft", "reward_model", "ppo", "evaluation"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        self.task = EnvironmentConfig(
            model=self._path("sft"),
            prompts=self._path("data/prompts.jsonl"),
            reward=self._path("reward_model"),
            gold=GOLD,
            kl_coef=0.1,
            max_response_tokens=BUDGET,
        )

    def write_data(self) -> None:
        """Reviews from the seeded generator, as the files a user would bring."""
        config, data = self.config, self.folder / "data"
        data.mkdir()
        corpus = grammar.reviews(config.reviews, CORPUS_SEED)
        shown = grammar.reviews(config.demonstrations, DEMONSTRATION_SEED)
        write_jsonl(data / "corpus.jsonl", ({"text": r.prompt + r.completion} for r in corpus))
        write_jsonl(
            data / "demonstrations.jsonl",
            ({"prompt": r.prompt, "completion": r.completion} for r in shown),
        )
        for name, seed in (("prompts", PROMPT_SEED), ("held_out_prompts", HELD_OUT_SEED)):
            prompts = grammar.prompts(config.prompts, seed)
            write_jsonl(data / f"{name}.jsonl", ({"prompt": prompt} for prompt in prompts))

    def pretrain(self) -> PretrainResult:
        """A language model of two layers from nothing."""
        self._announce("pretrain", "a language model learns to write reviews")
        return pretrain(
            PretrainConfig(
                corpus=(self._path("data/corpus.jsonl"),),
                output=self._path("lm"),
                size="tiny",
                tokenizer="word",
                vocab_size=1024,
                context=64,
                epochs=4,
                learning_rate=4e-3,
                seed=self.config.seed,
            )
        )

    def sft(self) -> SFTResult:
        """It learns to complete openings, and to stop."""
        self._announce("sft", "it learns to complete an opening, and to stop")
        return sft(
            SFTConfig(
                model=self._path("lm"),
                data=(self._path("data/demonstrations.jsonl"),),
                output=self._path("sft"),
                epochs=2,
                learning_rate=1e-3,
                batch_size=32,
                seed=self.config.seed,
            )
        )

    def collect(self) -> CollectResult:
        """Four completions of each opening; an oracle ranks them by sentiment."""
        self._announce("collect", "it completes openings; an oracle ranks the reviews by sentiment")
        return collect(
            CollectConfig(
                environment=EnvironmentConfig(
                    model=self._path("sft"),
                    prompts=self._path("data/prompts.jsonl"),
                    gold=GOLD,
                    max_response_tokens=BUDGET,
                ),
                output=self._path("data/feedback.jsonl"),
                prompts=self.config.prompts,
                completions=4,
                labeler="oracle",
                seed=self.config.seed,
            )
        )

    def reward_model(self) -> RewardModelResult:
        """A reward model learns what the oracle likes from the rankings alone."""
        self._announce("reward-model", "a reward model learns from the rankings alone")
        return train_reward_model(
            RewardModelConfig(
                model=self._path("sft"),
                data=(self._path("data/feedback.jsonl"),),
                output=self._path("reward_model"),
                epochs=3,
                learning_rate=1e-3,
                batch_size=16,
                seed=self.config.seed,
            )
        )

    def train(self) -> TrainResult:
        """PPO against the reward model, with a KL penalty to the fine-tuned model."""
        self._announce("train", "PPO pleases the reward model, and pays for leaving the reference")
        return train(
            TrainConfig(
                environment=self.task,
                output=self._path("ppo"),
                total_timesteps=self.config.timesteps,
                ppo=PPOConfig(learning_rate=3e-4),
                seed=self.config.seed,
            )
        )

    def evaluate(self) -> Evaluation:
        """Policy and reference on openings that no stage has seen."""
        self._announce("evaluate", "openings that no stage has seen")
        unseen = dataclasses.replace(self.task, prompts=self._path("data/held_out_prompts.jsonl"))
        return evaluate(
            EvaluateConfig(
                environment=unseen,
                policy=self._path("ppo/policy"),
                output=self._path("evaluation"),
                episodes=512,
                seed=self.config.seed,
            )
        )

    def show(self, evaluation: Evaluation, seconds: float) -> None:
        """Samples, a table, a picture, and where to look next."""
        pairs = zip(evaluation.reference_samples, evaluation.samples, strict=True)
        for before, after in list(pairs)[:SAMPLES]:
            self.console.print(f"[dim]{escape(before.prompt)}[/dim]")
            self.console.print(f"  before {escape(before.completion.strip())}")
            self.console.print(f"  [bold]after[/bold]  {escape(after.completion.strip())}")
        assert evaluation.reference is not None
        before_numbers, after_numbers = _numbers(evaluation.reference), _numbers(evaluation.policy)
        table = Table("", "before", "after", title="512 unseen openings")
        for name, value in after_numbers.items():
            table.add_row(name, before_numbers[name], value)
        table.add_row("judged better than before", "", f"{evaluation.win_rate}")
        picture = draw_training(self.folder / "ppo", self.folder / "training.png")
        self.console.print(table)
        self.console.print(f"{seconds:.0f} seconds. All of it is in {self.folder}", markup=False)
        self.console.print(f"  curves       {picture}", markup=False)
        self.console.print(f"  samples      {self.folder}/evaluation/samples.md", markup=False)
        self.console.print(f"  TensorBoard  tensorboard --logdir {self.folder}", markup=False)

    def _path(self, name: str) -> str:
        return str(self.folder / name)

    def _announce(self, stage: str, what: str) -> None:
        self.console.rule(f"[bold]{stage}[/bold]  {escape(what)}", align="left")


def _numbers(report: TextReport) -> dict[str, str]:
    return {
        "reward model's score": str(report.score),
        "gold sentiment, by the oracle": str(report.gold),
        "KL to the reference, nats": str(report.kl),
        "perplexity under the reference": f"{report.perplexity:.2f}",
        "different 2-grams": f"{report.distinct[2]:.3f}",
        "length, tokens": str(report.length),
        "ended by itself": f"{report.finish.get('stop', 0.0):.1%}",
    }


COMMAND = Command(DemoConfig, demo)
