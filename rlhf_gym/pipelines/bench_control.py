"""Steps per second of the control tasks: `rlhf-gym bench --parts control`, or this file alone.

Each task is stepped three ways with the same random actions: as a single environment, as its native
vector environment, and as Gymnasium's SyncVectorEnv of the single one. The ways take turns, and the
median of the rounds counts, so that a busy machine disturbs them alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import gymnasium as gym
import numpy as np
import tyro
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from rich.console import Console
from rich.table import Table

from rlhf_gym.envs.registration import CONTROL_ENVIRONMENTS, register_all
from rlhf_gym.pipelines.bench_timing import Measurement, now

TARGET = 20.0
"""How many times faster than the loop the native vector environment should be at 256 rows."""


@dataclass(frozen=True)
class BenchControl:
    """Measure the control tasks."""

    num_envs: int = 256
    """Rows of the vector environments."""
    rounds: int = 5
    """How often each way is measured."""
    seconds: float = 0.5
    """How long each time, at least."""
    tasks: tuple[str, ...] = tuple(CONTROL_ENVIRONMENTS)
    """Ids of the tasks."""


@dataclass(frozen=True)
class Speed:
    """Environment steps per second of one task."""

    env_id: str
    single: float
    native: float
    looped: float

    @property
    def ratio(self) -> float:
        """How many times faster the native vector environment is than the looped one."""
        return self.native / self.looped


def measure(env_id: str, config: BenchControl) -> Speed:
    """Measure one task the three ways."""
    single = gym.make(env_id).unwrapped
    native = gym.make_vec(env_id, num_envs=config.num_envs)
    looped = SyncVectorEnv(
        [lambda: gym.make(env_id).unwrapped] * config.num_envs,
        autoreset_mode=AutoresetMode.SAME_STEP,
    )
    ways = {
        "single": (_single_stepper(single), 1),
        "native": (_vector_stepper(native), config.num_envs),
        "looped": (_vector_stepper(looped), config.num_envs),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(config.rounds):
        for name, (step, rows) in ways.items():
            rates[name].append(rows * _calls_per_second(step, config.seconds))
    looped.close()
    return Speed(env_id, **{name: median(values) for name, values in rates.items()})


def control_measurements(config: BenchControl) -> Iterator[Measurement]:
    """A step of the native vector environment against one of the looped one, task by task."""
    register_all()
    for env_id in config.tasks:
        speed = measure(env_id, config)
        yield Measurement(
            f"{env_id}, {speed.native:,.0f} steps/s; alone {speed.single:,.0f}",
            "speed-up",
            1 / speed.looped,
            1 / speed.native,
            TARGET,
        )


def main(config: BenchControl) -> None:
    """Measure, and show a table."""
    register_all()
    table = Table(title=f"Environment steps per second, {config.num_envs} environments")
    for column in ("task", "single", "vector", "SyncVectorEnv", "ratio"):
        table.add_column(column, justify="left" if column == "task" else "right", no_wrap=True)
    for env_id in config.tasks:
        speed = measure(env_id, config)
        figures = (f"{rate:,.0f}" for rate in (speed.single, speed.native, speed.looped))
        table.add_row(env_id, *figures, f"{speed.ratio:.0f}")
    Console().print(table)


def _calls_per_second(step: Callable[[], None], seconds: float) -> float:
    calls, start = 0, now()
    # Once at least; and a clock that has not moved yet divides nothing.
    while (elapsed := now() - start) < seconds or not calls or not elapsed:
        step()
        calls += 1
    return calls / elapsed


def _single_stepper(env: gym.Env[Any, Any]) -> Callable[[], None]:
    rng = np.random.default_rng(0)
    env.reset(seed=0)
    actions = _random_actions(env.action_space, rng)

    def step() -> None:
        action = actions[int(rng.integers(len(actions)))]
        _, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            env.reset()

    return step


def _vector_stepper(env: VectorEnv[Any, Any, Any]) -> Callable[[], None]:
    rng = np.random.default_rng(0)
    env.reset(seed=0)
    actions = _random_actions(env.single_action_space, rng)

    def step() -> None:
        env.step(actions[rng.integers(len(actions), size=env.num_envs)])

    return step


def _random_actions(space: gym.Space[Any], rng: np.random.Generator) -> Any:
    """1,000 actions, drawn beforehand: sampling a space costs more than some steps."""
    space.seed(int(rng.integers(2**31)))
    return np.stack([np.asarray(space.sample()) for _ in range(1000)])


if __name__ == "__main__":
    main(tyro.cli(BenchControl))
