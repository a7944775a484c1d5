"""Studies: each prints one published figure, over several seeds, and keeps it as a small file.

rlhf-gym study exact --seeds 5
RLHF_GYM_DATA=folder rlhf-gym study reviews
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from rlhf_gym.core.command import Command
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.registry import Registry
from rlhf_gym.core.seeds import check_seed

STUDIES = Registry(
    "study",
    {
        "exact": (
            "rlhf_gym.pipelines.studies.exact:run",
            "PPO on Exact-v0: share of the way to the exact optimum",
        ),
        "agents": (
            "rlhf_gym.pipelines.studies.agents:run",
            "every agent, ours and stock ones, on Exact-v0 and Sentiment-v0",
        ),
        "kl": (
            "rlhf_gym.pipelines.studies.kl:run",
            "KL estimators and placements: bias, variance, gradients, what PPO makes of them",
        ),
        "overoptimisation": (
            "rlhf_gym.pipelines.studies.overoptimisation:run",
            "proxies pressed too hard: gold over sqrt(KL), best of n and PPO, fitted",
        ),
        "reviews": (
            "rlhf_gym.pipelines.studies.reviews:run",
            "sentiment on real film reviews, judged by a classifier of other data",
        ),
        "stories": (
            "rlhf_gym.pipelines.studies.stories:run",
            "a real pretrained story model, with a Python reward and with a reward model",
        ),
        "preferences": (
            "rlhf_gym.pipelines.studies.preference_learning:run",
            "the toy tasks taught by comparisons: automated, 200, 700, mixture, gold",
        ),
        "mujoco": (
            "rlhf_gym.pipelines.studies.mujoco:run",
            "a MuJoCo task taught by comparisons: true return over the number of labels",
        ),
        "demonstrations": (
            "rlhf_gym.pipelines.studies.demonstrations:run",
            "Pizza learned from a cook who shows how: cloning, GAIL, feature matching",
        ),
        "noise": (
            "rlhf_gym.pipelines.studies.noise:run",
            "wrong labels: what rater noise in the likelihood is worth",
        ),
        "loop": (
            "rlhf_gym.pipelines.studies.loop:run",
            "labels in rounds against labels at the start; disagreement against uniform",
        ),
        "human-preferences": (
            "rlhf_gym.pipelines.studies.human_preferences:run",
            "a reward model of human preferences: accuracy on held-out pairs",
        ),
    },
)


@dataclass(frozen=True)
class StudyConfig:
    """Reproduce a published figure."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(help=f"One of {', '.join(STUDIES)}.")]
    """Which one."""
    seeds: int = 5
    """Independent repetitions of what is learned."""
    first_seed: int = 0
    """For the studies of preferences, noise and loop: the lowest of their seeds. Fresh ones show
    whether settings were fitted to chance."""
    data: Path | None = None
    """Folder of the real data sets; by default the environment variable RLHF_GYM_DATA."""
    agents: tuple[str, ...] = ()
    """For the study of agents: which of them, all by default."""
    tasks: tuple[str, ...] = ()
    """For the study of preferences: pizza, navigation, recommender, tutor, go. For the study of the
    loop: sentiment, pizza. All by default."""
    teachers: bool = False
    """For the study of preferences: Tutor taught by each of the six teachers instead."""
    strips: bool = False
    """For the study of preferences: draw each task before and after, from agents it has kept."""
    output: Path = Path("runs/studies")
    """Where models and results go; stages that are already there are not run again."""

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise InvalidArgument("seeds", self.seeds, "nothing would be run", "Give 1 or more")
        check_seed(self.first_seed, "first_seed")

    @property
    def seed_numbers(self) -> range:
        """Which seeds."""
        return range(self.first_seed, self.first_seed + self.seeds)

    def chosen_tasks(self, known: Collection[str]) -> list[str]:
        """The tasks to study, all of those that a study knows unless some are named.

        Raises:
            InvalidArgument: one that it does not know.
        """
        for name in self.tasks:
            if name not in known:
                raise InvalidArgument(
                    "tasks", name, "not in this study", f"Choose among {', '.join(known)}"
                )
        return list(self.tasks or known)

    @property
    def data_folder(self) -> Path:
        """The folder of the real data sets.

        Raises:
            InvalidArgument: none was given, or it does not exist.
        """
        given = self.data or os.environ.get("RLHF_GYM_DATA")
        if given is None or not Path(given).is_dir():
            raise InvalidArgument(
                "data",
                given,
                "this study needs real data",
                "Pass --data FOLDER or set RLHF_GYM_DATA",
            )
        return Path(given)


def run(config: StudyConfig) -> None:
    """Run the study that the configuration names."""
    STUDIES.load(config.name)(config)


COMMAND = Command(StudyConfig, run)
