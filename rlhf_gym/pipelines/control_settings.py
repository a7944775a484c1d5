"""What suits the toy tasks: settings found by trying them on seeds that no table reports.

One set of settings for the agent, whatever pays it, and one for learning what to pay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rlhf_gym.agents.preference_config import PreferenceConfig
from rlhf_gym.agents.sb3.falling_entropy import FallingEntropy
from rlhf_gym.core.preferences import FitConfig, LabelSchedule, RewardLearnerConfig
from rlhf_gym.core.preferences.learner_config import Judges


@dataclass(frozen=True)
class TaskSettings:
    """What suits one task.

    Attributes:
        judges: see `RewardLearnerConfig`.
        segment_length: see `RewardLearnerConfig`.
        agents: arguments of the algorithm, by the agent's name; the same whatever pays it.
        schedule: when the labels are asked for.
        rounds: see `PreferenceConfig`.
        l2: see `FitConfig`.
        fit: other arguments of `FitConfig`.
        learner: other arguments of `RewardLearnerConfig`.
        explore: see `PreferenceConfig`.
        detours: see `PreferenceConfig`.
        detour_length: see `PreferenceConfig`.
    """

    judges: Judges
    segment_length: int
    agents: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    # Clips of what the agent does by now say most about what it does next, and clips of random acts
    # next to nothing about what a good agent does.
    schedule: LabelSchedule = field(
        default_factory=lambda: LabelSchedule(initial=0.1, rate="uniform", until=0.7)
    )
    rounds: int = 20
    l2: float = 1e-3
    fit: Mapping[str, Any] = field(default_factory=dict)
    learner: Mapping[str, Any] = field(default_factory=dict)
    explore: int = 4000
    detours: int = 0
    detour_length: int = 8

    def preferences(self) -> PreferenceConfig:
        """Learning from comparisons, with 700 labels."""
        return PreferenceConfig(
            schedule=self.schedule,
            rounds=self.rounds,
            explore=self.explore,
            detours=self.detours,
            detour_length=self.detour_length,
            learner=RewardLearnerConfig(
                judges=self.judges,
                segment_length=self.segment_length,
                # Few labels and small networks: learning anew is cheap, and forgets no answer.
                fit=FitConfig(
                    **{"anew": True, "learning_rate": 3e-3, "overfit": FIXED_L2, **self.fit},
                    l2=self.l2,
                ),
                **{**SMALL, **self.learner},
            ),
        )


SETTINGS = ("schedule", "learner", "rounds", "explore", "detours", "detour_length")
"""Fields of `PreferenceConfig` that a task may have found its own values for."""

SMALL: Mapping[str, Any] = {
    "selection": "uniform", "members": 5, "memory": 20_000, "hidden": (32,), "bins": 10,
}  # fmt: skip
"""A reward learner for a few hundred labels."""

DISPUTED: Mapping[str, Any] = {"selection": "disagreement", "candidates": 4}
"""For clips with detours: about what is missing in its own clips an agent's networks agree, about
detours they do not."""

FIXED_L2 = (1e-9, 1e9)
"""A band that is never left: the penalty stays as it is. A moving one rose to 0.1 within a few
rounds, and the networks forgot the finer half of what they had been told."""

CURIOUS = {
    "ent_coef": FallingEntropy(0.2, 0.03, begin=0.5),
    "learning_rate": 1e-3, "vf_coef": 0.1, "gamma": 1.0,
}  # fmt: skip
"""PPO that tries everything while the reward is still being learned: about moves that nobody makes
nobody is asked. Episodes are short and all of one length: what comes late counts as much."""
BY_THEN = LabelSchedule(initial=0.1, rate="uniform", until=0.9)
"""Labels until near the end: what the agent does once its bonus falls is new to the reward."""
BIG_STEPS = {"learning_rate": 1e-2, "batch_size": 256}
"""The same fit in a third of the time."""

DRIVING = {
    "n_steps": 60, "batch_size": 960, "n_epochs": 10, "learning_rate": 1e-3,
    "gamma": 0.99, "gae_lambda": 0.95, "ent_coef": 0.01,
}  # fmt: skip
"""PPO that crosses the hall with 128 environments: a rollout is an episode. Who looks four seconds
ahead drives through puddles (gold 3.5), and who learns from half as many episodes at a time may
stand still even if paid by gold: the first thing to be learned is that driving at random hurts."""
PLAYING = {
    "n_steps": 64, "batch_size": 256, "n_epochs": 6, "learning_rate": 1e-3,
    "gamma": 0.97, "gae_lambda": 0.95, "ent_coef": 0.01,
}  # fmt: skip
"""MaskablePPO that plays a game of some ten moves."""
DRIVEN_FIRST = LabelSchedule(initial=0.4, rate="uniform", until=0.9)
"""Driving at random is worse than standing still, and after a hundred answers about it so is all
driving: an agent that is paid by them stands, and shows nothing new. After three hundred the reward
tells driving to the goal from driving."""

TASKS: Mapping[str, TaskSettings] = {
    # The guest judges what stands on the table at the end. But what was done in the wrong order
    # (dough that was kneaded with the sauce on it) is tasted, and no observation tells it.
    # Few bins, and wide ones, carry what was said of one amount over to the next.
    "rlhf_gym/Pizza-v0": TaskSettings(
        "both",
        28,
        {"sb3.ppo": CURIOUS},
        BY_THEN,
        30,
        3e-3,
        fit=BIG_STEPS,
        learner={
            "members": 8,
            "bins": 5,
            "memory": 10_000,
            **DISPUTED,
            "candidates": 8,
        },
        # Most of the clips. Dough is kneaded and rolled first or not at all, basil laid on last.
        detours=7168,
    ),
    # Whether an item was clicked is seen after it was shown; what it leaves behind does not last.
    "rlhf_gym/Recommender-v0": TaskSettings(
        "outcome",
        20,
        {"sb3.ppo": {**CURIOUS, "gamma": 0.9}},
        BY_THEN,
        15,
        3e-2,
        fit=BIG_STEPS,
        learner={"bins": 5, "memory": 10_000, **DISPUTED},
        detours=3584,
        detour_length=4,
    ),
    # What a lesson is good for shows in how the student's memory changed; the measured score does
    # not. Clips are whole lessons: errors of the reward that are small in ten steps add up over 60,
    # and only who compares lessons tells of that. For the agent 30 steps ahead are far enough. A
    # potential and acts ("both") fit ten times as fast, and lead a little less far.
    "rlhf_gym/Tutor-v0": TaskSettings(
        "outcome",
        60,
        {"sb3.ppo": {**CURIOUS, "gamma": 0.97}},
        BY_THEN,
        15,
        fit=BIG_STEPS,
        learner={"bins": 5, "memory": 10_000, **DISPUTED},
        detours=3840,  # a lesson in each of 64 environments
    ),
    # Clips are whole episodes, as in Tutor. Whether a puddle is near is a matter of one number: a
    # line through its soft bins errs less about driving that nobody has seen than a network does.
    "rlhf_gym/Navigation-v0": TaskSettings(
        "outcome",
        60,
        {"sb3.ppo": DRIVING},
        DRIVEN_FIRST,
        15,
        fit=BIG_STEPS,
        learner={"hidden": (), "bins": 5, "memory": 32_000},
        explore=15_360,
    ),
    # Who has more on the board is a sum over points, and no more is to be learned from 700 answers:
    # a linear potential of plain numbers (they are 0 or 1).
    "rlhf_gym/Go-v0": TaskSettings(
        "change",
        6,
        {"contrib.maskable_ppo": PLAYING},
        LabelSchedule(initial=0.2, rate="uniform", until=0.7),
        8,
        0.03,
        learner={"hidden": (), "bins": 0, "memory": 16_000},
    ),
}
"""By environment id."""

CONTINUOUS: Mapping[str, TaskSettings] = {
    # Pizzas of 12 steps. Who tries everything for long, as with one move at a time, cooks badly
    # here even if paid by gold; the plain agent does not.
    "rlhf_gym/Pizza-v0": replace(
        TASKS["rlhf_gym/Pizza-v0"], segment_length=12, agents={}, detours=3072
    ),
}
"""The same tasks with `continuous=True`."""


def settings_for(env_id: str, env_kwargs: Mapping[str, Any]) -> TaskSettings | None:
    """What suits a task as its arguments make it, None where nothing was tried.

    Another taste or board is taught with the same.
    """
    found = TASKS.get(env_id)
    return CONTINUOUS.get(env_id, found) if env_kwargs.get("continuous") else found
