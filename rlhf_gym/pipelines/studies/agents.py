"""Every agent on every task: the matrix of "Bring your own agent"."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import gymnasium as gym
import numpy as np

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.envs.exact import ExactVectorEnv
from rlhf_gym.pipelines.studies.agent_cells import (
    EXACT_ID,
    best_deterministic,
    exact_cell,
    sentiment_cell,
)
from rlhf_gym.pipelines.studies.agent_settings import EXACT, SENTIMENT, SOFT, Setup
from rlhf_gym.pipelines.studies.kept import kept
from rlhf_gym.pipelines.studies.results import StudyReport, over_seeds
from rlhf_gym.pipelines.studies.soft_form import stationary_policy, stop_or_go_on

if TYPE_CHECKING:
    from rlhf_gym.pipelines.studies import StudyConfig

Cell = Callable[[str, Setup, int], Mapping[str, Any]]

FIRST_SEED = 10
"""Seeds from here on are reported. Settings were tried out on others, and are not changed after."""

SENTIMENT_SEEDS = 3
"""Most seeds on Sentiment-v0, where a cell takes minutes."""


def run(config: StudyConfig) -> None:
    """Train what is not there yet, one process and one cell at a time, and print the matrix."""
    import rlhf_gym  # noqa: F401  registers the environments

    folder = config.output / "agents"
    names = chosen_agents(config.agents)
    on_exact = {name: _cells(exact_cell, name, EXACT, config.seeds, folder) for name in names}
    soft = {
        form: [
            _kept_cell(exact_cell, "sb3.ppo", setup, seed, folder / "soft" / f"{number}-{seed}")
            for seed in reported_seeds(config.seeds)
        ]
        for number, (form, setup) in enumerate(SOFT.items())
    }
    seeds = min(config.seeds, SENTIMENT_SEEDS)
    on_sentiment = {name: _cells(sentiment_cell, name, SENTIMENT, seeds, folder) for name in names}
    report(on_exact, on_sentiment, soft).publish(folder)


def reported_seeds(count: int) -> range:
    """The first seeds of those that settings were not tried out on."""
    return range(FIRST_SEED, FIRST_SEED + count)


def chosen_agents(names: Sequence[str]) -> list[str]:
    """The agents to run, all without names.

    Raises:
        InvalidArgument: no such agent in the matrix.
    """
    for name in names:
        if name not in EXACT:
            raise InvalidArgument(
                "agents", name, "not in the matrix", f"Choose among {', '.join(EXACT)}"
            )
    return list(names) or list(EXACT)


def report(
    on_exact: Mapping[str, Sequence[Mapping[str, Any]]],
    on_sentiment: Mapping[str, Sequence[Mapping[str, Any]]],
    soft: Mapping[str, Sequence[Mapping[str, Any]]],
) -> StudyReport:
    """The matrix.

    Args:
        on_exact: results of `exact_cell` for each agent, one per seed.
        on_sentiment: results of `sentiment_cell` likewise.
        soft: results of `exact_cell` for each use of the soft form of KL.
    """
    table = StudyReport(
        "Every agent on Exact-v0 and Sentiment-v0",
        [
            "agent",
            "Exact-v0: share of the way",
            "tokens",
            "seconds",
            "tokens/s",
            "Sentiment-v0: gold over the reference",
            "tokens",
            "seconds",
            "tokens/s",
        ],
    )
    for name, cells in on_exact.items():
        gain = over_seeds([cell["gain"] for cell in on_sentiment[name]])
        table.add(
            name,
            over_seeds([cell["share"] for cell in cells]),
            *_costs(cells),
            f"{gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]",
            *_costs(on_sentiment[name]),
        )
    for form, cells in soft.items():
        shares = over_seeds([cell["share"] for cell in cells])
        table.notes.append(f"SB3's PPO with KL in the soft form, {form}: {shares} of the way.")
    table.notes += _by_enumeration()
    table.raw = {"exact": on_exact, "sentiment": on_sentiment, "soft": soft}
    return table


def _by_enumeration() -> list[str]:
    """What is known of Exact-v0 without training: where greedy and soft agents could come to."""
    task = cast(ExactVectorEnv, gym.make_vec(EXACT_ID, num_envs=1).unwrapped)
    coef = task.kl_coef
    assert coef is not None
    ceiling = best_deterministic(task.judge, coef)
    biased = task.share_of_the_way(stationary_policy(task.judge, coef, coef))
    forms = zip(("sampled", "soft"), (0.0, coef), strict=True)
    paid = {form: stop_or_go_on(task.judge, charged) for form, charged in forms}
    return [
        "The best policy without chance, which is all that sb3.dqn, contrib.qrdqn and contrib.ars "
        f"can be, reaches {ceiling:.3f} of the way on Exact-v0.",
        f"The optimum of the soft form with an entropy bonus of kl_coef reaches {biased:.4f}.",
        *(
            f"At the start, in the {form} form, stopping at once earns {stop:.2f} and going on as "
            f"the reference does {going_on:.2f}."
            for form, (stop, going_on) in paid.items()
        ),
    ]


def _costs(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """Tokens, seconds and tokens per second, means over seeds."""
    names = ("tokens", "seconds", "tokens_per_second")
    return [f"{np.mean([cell[name] for cell in cells]):.0f}" for name in names]


def _cells(
    cell: Cell, name: str, setups: Mapping[str, Setup], seeds: int, folder: Path
) -> list[Mapping[str, Any]]:
    task = "exact" if cell is exact_cell else "sentiment"
    return [
        _kept_cell(cell, name, setups[name], seed, folder / task / f"{name}-{seed}")
        for seed in reported_seeds(seeds)
    ]


def _kept_cell(cell: Cell, name: str, setup: Setup, seed: int, path: Path) -> Mapping[str, Any]:
    settings = {"agent": name, "seed": seed, **asdict(setup)}
    return kept(Path(f"{path}.json"), settings, lambda: cell(name, setup, seed))
