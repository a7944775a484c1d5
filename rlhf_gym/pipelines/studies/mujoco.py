"""A MuJoCo robot taught by comparisons: its true return over the number of labels.

HalfCheetah-v5 in episodes of 200 steps (10 s), 64,000 steps of PPO: what fits two cores, some 20 s
a run. The clips that are compared are a second long; the teacher goes by the task's own reward,
which the agent does not see. Reacher-v5 fits less well: what its clips are worth is mostly where
the target happens to lie, which says nothing about the arm.

rlhf-gym study mujoco --seeds 5
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_gym.agents.preference_learning import PreferenceConfig, PreferenceLearning
from rlhf_gym.agents.sb3.control import CONTROL_AGENTS
from rlhf_gym.core.preferences import FitConfig, LabelSchedule, RewardLearnerConfig
from rlhf_gym.envs.sb3 import GymnasiumVecEnv
from rlhf_gym.envs.taught import TaughtVecEnv
from rlhf_gym.pipelines.control import EVALUATION_SEED, judge, make_control_environment
from rlhf_gym.pipelines.studies.kept import kept
from rlhf_gym.pipelines.studies.label_curve import draw_label_curve
from rlhf_gym.pipelines.studies.results import StudyReport, over_seeds
from rlhf_gym.rewards.learned import GoldReward

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

    from rlhf_gym.pipelines.studies import StudyConfig

FIRST_SEED = 10
"""Seeds from here on are reported; settings were tried out on seeds of 100 and more."""
LABELS = (50, 100, 200, 350, 700, 1400)
SELECTIONS = ("uniform", "disagreement")


@dataclass(frozen=True)
class Lesson:
    """What an agent is trained on.

    Attributes:
        labels: comparisons; 0 for the task's own reward.
        selection: how their clips are chosen, see `Selection`; "" without comparisons.
    """

    labels: int = 0
    selection: str = ""

    @property
    def name(self) -> str:
        """For tables and files."""
        return f"{self.labels}-{self.selection}" if self.labels else "true-reward"


TRUTH = Lesson()
HEADLINE = (TRUTH, *(Lesson(labels, way) for labels in LABELS[-2:] for way in SELECTIONS))
"""Run first, for all seeds: what the study is about."""
CURVE = tuple(Lesson(labels, way) for labels in LABELS[:-2] for way in SELECTIONS)


@dataclass(frozen=True)
class Setup:
    """The task and the agent, the same for every lesson."""

    env: str = "HalfCheetah-v5"
    env_kwargs: Mapping[str, Any] = field(default_factory=lambda: {"max_episode_steps": 200})
    agent: str = "sb3.ppo"
    settings: Mapping[str, Any] = field(
        default_factory=lambda: {
            "n_steps": 50,
            "batch_size": 200,
            "n_epochs": 6,
            "learning_rate": 1e-3,
            # Its reward is immediate: a second ahead is far enough.
            "gamma": 0.95,
            "gae_lambda": 0.9,
            "ent_coef": 0.0,
            "policy_kwargs": {"log_std_init": -0.7},
        }
    )
    rows: int = 16
    timesteps: int = 64_000
    rounds: int = 5
    explore: int = 3200
    segment_length: int = 20
    memory: int = 20_000
    epochs: int = 10
    episodes: int = 64

    def teaching(self, lesson: Lesson) -> PreferenceConfig:
        """How a lesson is given."""
        return PreferenceConfig(
            schedule=LabelSchedule(total=lesson.labels),
            learner=RewardLearnerConfig(
                segment_length=self.segment_length,
                selection=lesson.selection,
                memory=self.memory,
                fit=FitConfig(epochs=self.epochs),
            ),
            rounds=self.rounds,
            explore=self.explore,
        )


def run(config: StudyConfig) -> None:
    """Train what is not there yet, and print the table; stopped early, of what is finished."""
    folder, setup = config.output / "mujoco", Setup()
    cells: dict[str, list[dict[str, Any]]] = {one.name: [] for one in HEADLINE + CURVE}
    try:
        for lessons in (HEADLINE, CURVE):
            # Seed by seed, so that an unfinished study has whole ones.
            for seed in range(FIRST_SEED, FIRST_SEED + config.seeds):
                for lesson in lessons:
                    cells[lesson.name].append(_kept_cell(lesson, setup, seed, folder))
    finally:
        if cells[TRUTH.name]:
            report(cells, setup).publish(folder)
            draw_label_curve(cells, LABELS, SELECTIONS, TRUTH.name, folder / "curve.png")


def cell(lesson: Lesson, setup: Setup, seed: int) -> dict[str, float]:
    """Train an agent by one lesson, and judge it by the true return.

    Returns:
        `before` and `after`: mean true return of an episode, of the policy without chance;
        `seconds` of the training; with comparisons `correlation` of learned and true return of a
        clip, and `held_out_accuracy`.
    """
    kind = CONTROL_AGENTS.load(setup.agent)
    settings = {**setup.settings, "seed": seed}
    venv = GymnasiumVecEnv(make_control_environment(setup.env, setup.rows, **setup.env_kwargs))
    started, last = time.perf_counter(), {}
    if lesson.labels:
        with tempfile.TemporaryDirectory() as folder:
            learning = PreferenceLearning(venv, folder, "oracle", setup.teaching(lesson), seed=seed)
            agent = kind.make(learning.env, **settings)
            before = _true_return(agent, setup, seed)
            last = learning.learn(agent, setup.timesteps)
            learning.learner.store.close()
    else:
        agent = kind.make(TaughtVecEnv(venv, GoldReward()), **settings)
        before = _true_return(agent, setup, seed)
        agent.learn(setup.timesteps)
    seconds = time.perf_counter() - started
    venv.close()
    return {
        "before": before,
        "after": _true_return(agent, setup, seed),
        "seconds": seconds,
        **{name: last[name] for name in ("correlation", "held_out_accuracy") if name in last},
    }


def report(cells: Mapping[str, Sequence[Mapping[str, float]]], setup: Setup) -> StudyReport:
    """The table.

    Args:
        cells: results of `cell` by name of the lesson, one per seed; lessons without any are left
            out.
        setup: what they were made with.
    """
    table = StudyReport(
        f"{setup.env}, taught by comparisons: true return of an episode",
        ["taught by", "labels", "true return", "correlation", "held-out accuracy", "seeds"],
    )
    untrained = [one["before"] for one in cells[TRUTH.name]]
    table.add("nothing: untrained", 0, over_seeds(untrained), "", "", len(untrained))
    ordered = sorted(HEADLINE + CURVE, key=lambda lesson: (lesson.selection, lesson.labels))
    for lesson in ordered:
        found = cells[lesson.name]
        if not found:
            continue
        measures = [
            f"{sum(one[name] for one in found) / len(found):.2f}" if lesson.labels else ""
            for name in ("correlation", "held_out_accuracy")
        ]
        taught_by = f"comparisons, {lesson.selection}" if lesson.labels else "the true reward"
        after = over_seeds([one["after"] for one in found])
        table.add(taught_by, lesson.labels, after, *measures, len(found))
    table.notes.append(
        f"{setup.agent}, {setup.timesteps:,} steps, clips of {setup.segment_length} steps, teacher "
        f"oracle; means over seeds with 95 % bootstrap intervals, {setup.episodes} episodes each."
    )
    table.raw = {"setup": asdict(setup), "cells": cells}
    return table


def _kept_cell(lesson: Lesson, setup: Setup, seed: int, folder: Path) -> dict[str, Any]:
    settings = {"seed": seed, **asdict(lesson), **asdict(setup)}
    path = folder / "cells" / f"{lesson.name}-{seed}.json"
    return kept(path, settings, lambda: cell(lesson, setup, seed))


def _true_return(agent: BaseAlgorithm, setup: Setup, seed: int) -> float:
    env = make_control_environment(setup.env, setup.rows, **setup.env_kwargs)
    returns, _ = judge(agent, env, setup.episodes, seed=seed + EVALUATION_SEED)
    return sum(returns) / len(returns)
