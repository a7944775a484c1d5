"""`rlhf-gym rlhf`: sample, ask, learn the reward, improve the policy, and again.

rlhf-gym rlhf --rounds 3 --labeler oracle --output runs/loop
rlhf-gym rlhf --rounds 3 --labeler human --store feedback.db --output runs/loop

Every round is a folder, and every step in it leaves a file: run the same command again, and it goes
on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from rlhf_gym.agents.ppo_config import PPOConfig
from rlhf_gym.core.ai_config import AIConfig
from rlhf_gym.core.command import Command
from rlhf_gym.core.errors import InvalidArgument, InvalidCheckpoint
from rlhf_gym.core.labelers import MODEL, Labeler
from rlhf_gym.core.preferences.selection_names import methods_named
from rlhf_gym.core.seeds import check_seed
from rlhf_gym.core.store import FeedbackStore
from rlhf_gym.core.supervised.common import check_writable, to_json, write_json
from rlhf_gym.core.supervised.noise_setting import NoiseSetting
from rlhf_gym.pipelines.collect import Judge
from rlhf_gym.pipelines.environment import EnvironmentConfig, is_control, make_environment
from rlhf_gym.pipelines.rlhf_labels import LABELERS, Waiting, Watch
from rlhf_gym.pipelines.rlhf_round import Round, RoundResult, sampling_environment

_FREE_TO_CHANGE = ("rounds", "wait", "poll", "progress", "ai")
"""Fields that may differ when a loop goes on; they do not change what a round is."""


@dataclass(frozen=True)
class RLHFConfig:
    """Sample, ask, learn the reward, improve the policy, and again."""

    environment: Annotated[EnvironmentConfig, tyro.conf.arg(name="")] = field(
        default_factory=EnvironmentConfig
    )
    rounds: int = 3
    """How often."""
    labels: int = 256
    """Pairs asked about in each round."""
    asking: int | None = None
    """How many rounds ask; the later ones go on training by the reward models there are. None: all
    of them."""
    labeler: str = "oracle"
    """Who answers: human (waits for them at `rlhf-gym label --store FILE`), model (a language model
    is asked), or a synthetic teacher: oracle, mistake, stochastic, skip, myopic, equal."""
    store: str | None = None
    """The feedback store; by default feedback.db in the output folder. What is in it already is
    learned from, too."""
    output: str = "runs/loop"
    """Folder of the rounds."""
    selection: str = "disagreement"
    """Which pairs: uniform, disagreement of the reward models, entropy of their mean, or two of
    these joined by +."""
    ancestors: bool = True
    """Let the second response of a pair be an ancestor's as often as the newest policy's;
    --no-ancestors asks about pairs of the newest policy alone."""
    candidates: int = 4
    """Pairs to choose from for each that is asked about."""
    overlap: int = 1
    """How many people answer each pair."""
    wait: bool = True
    """Wait for people; --no-wait ends with what is missing, and goes on when run again."""
    poll: float = 2.0
    """Seconds between looks into the store while waiting."""
    judge: Judge | None = None
    """What a synthetic teacher knows: the gold reward or the score; by default gold if there is
    one."""
    reward_base: str | None = None
    """What reward models begin with: a directory or hub name of a language model; by default the
    reference."""
    members: int = 3
    """Reward models, whose mean is paid and whose disagreement chooses."""
    noise: float | str = 0.0
    """Of the labels, as for `rlhf-gym reward-model`: share=0.1, flipped=0.3, learned or raters."""
    reward_epochs: float = 3.0
    """Passes over all labels so far."""
    reward_learning_rate: float = 1e-3
    """Of the reward models."""
    reward_token_loss: float = 0.0
    """Share of the reward models' loss that is taken at the mean of a response's tokens."""
    reward_batch_size: int = 16
    """Judgements for each update of a reward model."""
    agent: str = "ppo"
    """Which algorithm improves the policy; one whose policy is a language model."""
    begin: Literal["reference", "newest"] = "reference"
    """Where each round's training begins: at the reference, or at the policy of the round before.
    KL is to the reference all the same."""
    total_timesteps: int = 30_000
    """Response tokens of each round's training."""
    ppo: PPOConfig = field(default_factory=lambda: PPOConfig(learning_rate=3e-4))
    """Settings of PPO."""
    ai: AIConfig = field(default_factory=AIConfig)
    """The language model that answers, with --labeler model."""
    evaluation_episodes: int = 256
    """Responses by which each round's policy is judged."""
    seed: int = 0
    """Of everything."""
    progress: bool = True
    """Show progress bars."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        for name in ("rounds", "labels", "candidates", "overlap", "members", "total_timesteps"):
            if getattr(self, name) < 1:
                raise InvalidArgument(name, getattr(self, name), "not a count", "Give 1 or more")
        if self.asking is not None and self.asking < 1:
            raise InvalidArgument(
                "asking", self.asking, "nothing to learn a reward from", "Give 1 or more"
            )
        if self.labeler not in LABELERS:
            raise InvalidArgument(
                "labeler", self.labeler, "nobody of this name", f"Choose from {', '.join(LABELERS)}"
            )
        methods_named(self.selection)
        if "kcenter" in self.selection:
            raise InvalidArgument(
                "selection", self.selection, "texts have no features", "Choose disagreement"
            )
        if self.selection != "uniform" and self.members < 2:
            raise InvalidArgument(
                "members",
                self.members,
                "one model never disagrees",
                "Give 2 or --selection uniform",
            )
        NoiseSetting.parse(self.noise)


@dataclass(frozen=True)
class RLHFResult:
    """What the loop came to; gold is the newest policy's, before is the reference's."""

    output: Path
    """The folder."""
    policy: Path
    """The newest policy, a Hugging Face directory."""
    labels: int
    """Records learned from."""
    rounds: list[RoundResult] = field(default_factory=list)
    """Each of them."""


class RLHFLoop:
    """The loop as an object.

    ```
    loop = RLHFLoop(RLHFConfig(rounds=3, labeler="oracle", output="runs/loop"))
    for result in loop:
        print(result.number, result.gold)
    ```

    Args:
        config: how; its `rounds` may grow when a loop goes on.
        watch: told how far people are, each time something has changed.

    Raises:
        InvalidArgument: a task of acting, which `PreferenceLearning` teaches.
        InvalidCheckpoint: the folder holds a loop of another configuration.
        FolderNotWritable: before any work is done.
    """

    def __init__(self, config: RLHFConfig, watch: Watch = lambda _: None) -> None:
        if config.environment.model is None and is_control(config.environment.env):
            raise InvalidArgument(
                "env",
                config.environment.env,
                "a task of acting, whose loop is `rlhf-gym train --reward preferences`",
                "Run that, or PreferenceLearning in Python",
            )
        self.config = config
        self.watch = watch
        self.folder = Path(config.output)
        check_writable(self.folder)
        self._check_same_loop()
        self.model: Labeler | None = config.ai.labeler() if config.labeler == MODEL else None

    @property
    def store(self) -> Path:
        """File of the labels."""
        return Path(self.config.store or self.folder / "feedback.db")

    def __iter__(self) -> Iterator[RoundResult]:
        """Each round in turn; those that are complete are read from their folders."""
        self._save_base()
        with FeedbackStore(self.store) as store:
            for number in range(1, self.config.rounds + 1):
                yield Round(self.config, number).run(store, self.model, self.watch)

    def run(self) -> RLHFResult:
        """All rounds.

        Raises:
            LabelsMissing: people have not answered everything, and `wait` is off.
        """
        rounds = list(self)
        write_json(self.folder / "summary.json", {"rounds": rounds})
        newest = Round(self.config, rounds[-1].number)
        return RLHFResult(self.folder, newest.policy, rounds[-1].labels, rounds)

    def _save_base(self) -> None:
        """The reference as a directory, for reward models to begin with."""
        base = self.folder / "base"
        if self.config.reward_base is not None or (base / "config.json").exists():
            return
        from transformers import PreTrainedModel

        from rlhf_gym.core.models import save_model
        from rlhf_gym.pipelines.generation import text_task

        task = text_task(make_environment(sampling_environment(self.config.environment)))
        if not isinstance(task.reference, PreTrainedModel):
            raise InvalidArgument(
                "env",
                self.config.environment.env,
                "it has no reference that reward models could begin with",
                "Add --model, or --reward-base",
            )
        save_model(task.reference, task.tokenizer, base)

    def _check_same_loop(self) -> None:
        file = self.folder / "config.json"
        ours = to_json(asdict(self.config))
        if file.exists():
            theirs = json.loads(file.read_text(encoding="utf-8"))
            differing = sorted(
                name
                for name in ours.keys() | theirs.keys()
                if name not in _FREE_TO_CHANGE and ours.get(name) != theirs.get(name)
            )
            if differing:
                raise InvalidCheckpoint(
                    "output",
                    str(self.folder),
                    f"it holds a loop that differs in {', '.join(differing)}",
                    "Give another folder, or the settings of that loop",
                )
        write_json(file, ours)


def run(config: RLHFConfig) -> RLHFResult:
    """The loop as a command: people are told what is missing, and every round is shown."""
    from rich.console import Console
    from rich.table import Table

    console = Console()

    def tell(waiting: Waiting) -> None:
        missing = waiting.asked - waiting.answered
        if missing:
            console.print(
                f"round {waiting.round}: {waiting.answered} of {waiting.asked} pairs answered, "
                f"{missing} missing: rlhf-gym label --store {loop.store}",
                markup=False,
            )

    loop = RLHFLoop(config, tell)
    result = loop.run()
    columns = ("round", "labels", "accuracy", "score", "gold", "gold before", "KL, nats", "wins")
    table = Table(*columns, title="rlhf-gym rlhf")
    for one in result.rounds:
        estimates = (one.score, one.gold, one.reference_gold, one.kl, one.win_rate)
        shown = ("" if estimate is None else str(estimate) for estimate in estimates)
        table.add_row(str(one.number), str(one.labels), f"{one.accuracy:.3f}", *shown)
    console.print(table)
    return result


COMMAND = Command(RLHFConfig, run)
