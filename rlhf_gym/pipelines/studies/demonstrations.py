"""Pizza learned from a cook who shows how: cloning, an adversarial reward, matched features.

The cook is a rule of nine lines, so that there is someone to watch whose return does not depend on
a training run.

rlhf-gym study demonstrations --seeds 5
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rlhf_gym.agents.imitation import (
    Apprenticeship,
    Demonstrations,
    FeatureEncoding,
    behaviour_cloning,
    record_demonstrations,
)
from rlhf_gym.agents.sb3.control import CONTROL_AGENTS, ControlAgent
from rlhf_gym.core.preferences.encoding import Encoding
from rlhf_gym.envs.control.pizza.kitchen import ACTIONS, BASIL, CHEESE, MUSHROOMS, SALAMI, SAUCE
from rlhf_gym.envs.control.pizza.task import DISCRETE_STEPS, PORTIONS_SHOWN
from rlhf_gym.envs.sb3 import GymnasiumVecEnv
from rlhf_gym.envs.taught import TaughtVecEnv
from rlhf_gym.pipelines.control import EVALUATION_SEED, judge, make_control_environment
from rlhf_gym.pipelines.studies.kept import kept
from rlhf_gym.pipelines.studies.results import StudyReport, over_seeds
from rlhf_gym.rewards.learned import GoldReward

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

    from rlhf_gym.pipelines.studies import StudyConfig

Way = Callable[[Any, "Setup", int], "tuple[BaseAlgorithm, float]"]
"""Environment, setup and seed to a trained agent, and what the cook's own pizzas came to."""

PIZZA = "rlhf_gym/Pizza-v0"
FIRST_SEED = 10
"""Seeds from here on are reported; settings were tried out on seeds of 100 and more."""
EPISODES = 160
"""In which an agent is judged."""

PIZZAS = 20
"""That the cook makes where they teach more than a clone."""
CLONED = (1, 5, PIZZAS)
"""Pizzas that a clone has seen."""


@dataclass(frozen=True)
class Setup:
    """The agent, the same for every way to learn."""

    agent: str = "sb3.ppo"
    settings: Mapping[str, Any] = field(
        default_factory=lambda: {
            "n_steps": 56,  # two pizzas
            "batch_size": 448,
            "n_epochs": 6,
            "learning_rate": 1e-3,
            "gamma": 0.98,
            "ent_coef": 0.01,
        }
    )
    rows: int = 64
    timesteps: int = 150_000


def run(config: StudyConfig) -> None:
    """Train what is not there yet, and print the table; stopped early, of what is finished."""
    folder, setup = config.output / "demonstrations", Setup()
    cells: dict[str, list[dict[str, Any]]] = {name: [] for name in WAYS}
    try:
        for ways in (WAYS.keys() - ACTING, ACTING):  # what takes seconds goes first
            # Seed by seed, so that an unfinished study has whole ones.
            for seed in range(FIRST_SEED, FIRST_SEED + config.seeds):
                for name in sorted(ways):
                    cells[name].append(_kept_cell(name, setup, seed, folder))
    finally:
        if cells[f"cloning, {PIZZAS} shown"]:
            report(cells, setup).publish(folder)


def cook(observations: NDArray[np.float32]) -> NDArray[np.int64]:
    """What a cook does who makes a classic pizza, and looks before each move.

    Args:
        observations: of `Pizza-v0`, shape (n, 14).

    Returns:
        Discrete actions, shape (n,).
    """
    kneaded, crust = observations[:, 0] * 10, observations[:, 1] * 2.4
    portions = observations[:, 2:9] * PORTIONS_SHOWN
    degrees, browning, cooked = 150 + observations[:, 10] * 180, *observations[:, 11:13].T
    # What is missing, first things first.
    missing = {
        "knead": kneaded < 2.5,
        "roll": crust > 0.95,
        "sauce": portions[:, SAUCE] < 2.5,
        "cheese": portions[:, CHEESE] < 2.5,
        "mushrooms": portions[:, MUSHROOMS] < 0.5,
        "salami": portions[:, SALAMI] < 1.5,
        "hotter": degrees < 285,
        "bake": (browning < 0.5) | (cooked < 0.9),
        "basil": portions[:, BASIL] < 1.5,
        "wait": np.ones(len(observations), np.bool_),
    }
    first = np.stack(list(missing.values())).argmax(0)
    moves: NDArray[np.int64] = np.array([ACTIONS.index(move) for move in missing])[first]
    return moves


def cell(way: str, setup: Setup, seed: int) -> dict[str, float]:
    """Train an agent in one of `WAYS`, and judge it.

    Returns:
        `gold` and `automated` return of a pizza, of the policy without chance; `shown`, what the
        cook's own came to, NaN without; `seconds` of the training.
    """
    env = make_control_environment(PIZZA, setup.rows)
    started = time.perf_counter()
    agent, shown = WAYS[way](env, setup, seed)
    seconds = time.perf_counter() - started
    judges = make_control_environment(PIZZA, setup.rows)
    gold, automated = judge(agent, judges, EPISODES, seed=seed + EVALUATION_SEED)
    return {
        "gold": float(np.mean(gold)),
        "automated": float(np.mean(automated)),
        "shown": shown,
        "seconds": seconds,
    }


def report(cells: Mapping[str, Sequence[Mapping[str, float]]], setup: Setup) -> StudyReport:
    """The table.

    Args:
        cells: results of `cell` by way, one per seed; ways without any are left out.
        setup: what they were made with.
    """
    table = StudyReport(
        "Pizza-v0, learned from a cook who shows how",
        ["learned from", "gold return", "automated return", "steps acted", "seeds"],
    )
    for name, found in cells.items():
        if found:
            acted = setup.timesteps if name in ACTING else 0
            returns = [over_seeds([one[kind] for one in found]) for kind in ("gold", "automated")]
            table.add(name, *returns, acted, len(found))
    shown = [one["shown"] for one in cells[f"cloning, {PIZZAS} shown"]]
    table.notes.append(
        f"The cook's own pizzas come to {over_seeds(shown)}. {setup.agent}; means over seeds "
        f"with 95 % bootstrap intervals, {EPISODES} pizzas each."
    )
    table.raw = {"setup": asdict(setup), "cells": cells}
    return table


def _kept_cell(way: str, setup: Setup, seed: int, folder: Path) -> dict[str, Any]:
    path = folder / "cells" / f"{way.replace(',', '').replace(' ', '-')}-{seed}.json"
    settings = {"way": way, "seed": seed, **asdict(setup)}
    return kept(path, settings, lambda: cell(way, setup, seed))


def _shown(pizzas: int, seed: int) -> Demonstrations:
    return record_demonstrations(make_control_environment(PIZZA, pizzas), cook, pizzas, seed=seed)


def _make(setup: Setup, env: Any, seed: int) -> BaseAlgorithm:
    kind: ControlAgent = CONTROL_AGENTS.load(setup.agent)
    return kind.make(env, seed=seed, **setup.settings)


def _untrained(env: Any, setup: Setup, seed: int) -> tuple[BaseAlgorithm, float]:
    return _make(setup, GymnasiumVecEnv(env), seed), np.nan


def _judged(env: Any, setup: Setup, seed: int) -> tuple[BaseAlgorithm, float]:
    """On the gold reward itself, which nobody but a study has."""
    agent = _make(setup, TaughtVecEnv(GymnasiumVecEnv(env), GoldReward()), seed)
    agent.learn(setup.timesteps)
    return agent, np.nan


def _clone_of(pizzas: int) -> Way:
    def way(env: Any, setup: Setup, seed: int) -> tuple[BaseAlgorithm, float]:
        shown = _shown(pizzas, seed)
        agent = _make(setup, GymnasiumVecEnv(env), seed)
        behaviour_cloning(agent, shown, seed=seed)
        return agent, float(shown.returns.mean())

    return way


def _adversarial(env: Any, setup: Setup, seed: int) -> tuple[BaseAlgorithm, float]:
    shown = _shown(PIZZAS, seed)
    learning = Apprenticeship.adversarial(env, shown, seed=seed)
    agent = _make(setup, learning.env, seed)
    learning.learn(agent, setup.timesteps)
    return agent, float(shown.returns.mean())


def what_is_done_when(env: Any) -> FeatureEncoding:
    """Features for Pizza: each move in each stretch of two steps, by name, such as "bake at 18"."""
    plain = Encoding(env.single_observation_space, env.single_action_space)
    stretches = DISCRETE_STEPS // 2
    names = [f"{move} at {2 * stretch}" for stretch in range(stretches) for move in ACTIONS]

    def features(observations: NDArray[Any], actions: NDArray[Any]) -> NDArray[np.floating]:
        # The last number seen is the share of the steps that are over.
        stretch = np.rint(observations[:, -1] * DISCRETE_STEPS).astype(np.int64) // 2
        shown: NDArray[np.floating] = np.eye(len(names), dtype=np.float32)[
            stretch * len(ACTIONS) + actions
        ]
        return shown

    return FeatureEncoding(plain, names, features)


def _features(env: Any, setup: Setup, seed: int) -> tuple[BaseAlgorithm, float]:
    shown = _shown(PIZZAS, seed)
    learning = Apprenticeship.features(env, shown, encoding=what_is_done_when(env))
    agent = _make(setup, learning.env, seed)
    learning.learn(agent, setup.timesteps)
    return agent, float(shown.returns.mean())


WAYS: Mapping[str, Way] = {
    "nothing": _untrained,
    **{f"cloning, {pizzas} shown": _clone_of(pizzas) for pizzas in CLONED},
    f"adversarial reward, {PIZZAS} shown": _adversarial,
    f"matched features, {PIZZAS} shown": _features,
    "the gold reward": _judged,
}
ACTING = frozenset(tuple(WAYS)[-3:])
"""Ways in which the agent acts while it learns."""
