"""Every agent on every task: the matrix of "Bring your own agent"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
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

FIRST_SEED = 10
"""Seeds from here on are reported. Settings were tried out on others, and are not changed after."""

SENTIMENT_SEEDS = 3
"""Most seeds on Sentiment-v0, where a cell takes minutes."""

Results = dict[str, list[Mapping[str, Any]]]
"""What was measured, one entry per seed, by agent or by form of KL."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One agent on one task from one seed.

    Attributes:
        part: "exact", "sentiment" or "soft", a folder of results.
        row: what it is called in the matrix.
        agent: its name in the registry.
        setup: its settings.
        seed: of everything.
        file: name of its result.
    """

    part: str
    row: str
    agent: str
    setup: Setup
    seed: int
    file: str

    def result(self, folder: Path, *, trains: bool) -> Mapping[str, Any] | None:
        """What it gave, from its file or else by training; None if that is not wanted."""
        settings = {"agent": self.agent, "seed": self.seed, **asdict(self.setup)}
        path = folder / self.part / f"{self.file}.json"
        try:
            return kept(path, settings, self._train if trains else _refuse)
        except _NotThere:
            return None

    def _train(self) -> Mapping[str, Any]:
        cell = sentiment_cell if self.part == "sentiment" else exact_cell
        return cell(self.agent, self.setup, self.seed)


class _NotThere(Exception):
    """A result that has not been computed yet."""


def _refuse() -> Mapping[str, Any]:
    raise _NotThere


def run(config: StudyConfig) -> None:
    """Train what is not there yet, one process and one cell at a time, and print the matrix.

    Stopped, it prints what there is.
    """
    import rlhf_gym  # noqa: F401  registers the environments

    folder = config.output / "agents"
    cells = matrix_cells(chosen_agents(config.agents), config.seeds)
    results = {cell: cell.result(folder, trains=False) for cell in cells}
    try:
        for cell, found in results.items():
            results[cell] = found or cell.result(folder, trains=True)
    finally:
        there = {cell: found for cell, found in results.items() if found is not None}
        report(*(_of_part(there, part) for part in ("exact", "sentiment", "soft"))).publish(folder)


def matrix_cells(names: Sequence[str], count: int) -> list[Cell]:
    """All cells of some agents, from so many seeds, in the order in which they are trained."""
    seeds = reported_seeds(count)
    exact = [
        Cell("exact", name, name, EXACT[name], seed, f"{name}-{seed}")
        for name in names
        for seed in seeds
    ]
    sentiment = [
        Cell("sentiment", name, name, SENTIMENT[name], seed, f"{name}-{seed}")
        for name in names
        for seed in seeds[:SENTIMENT_SEEDS]
    ]
    soft = [
        Cell("soft", form, "sb3.ppo", setup, seed, f"{number}-{seed}")
        for number, (form, setup) in enumerate(SOFT.items())
        for seed in seeds
    ]
    return exact + soft + sentiment


def _of_part(results: Mapping[Cell, Mapping[str, Any]], part: str) -> Results:
    rows: Results = {}
    for cell, found in results.items():
        if cell.part == part:
            rows.setdefault(cell.row, []).append(found)
    return rows


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


def report(on_exact: Results, on_sentiment: Results, soft: Results) -> StudyReport:
    """The matrix, with gaps where nothing has been measured yet.

    Args:
        on_exact: results of `exact_cell` by agent.
        on_sentiment: results of `sentiment_cell` by agent.
        soft: results of `exact_cell` by use of the soft form of KL.
    """
    costs = ["seeds", "tokens", "seconds", "tokens/s"]
    exact, sentiment = "Exact-v0: share of the way", "Sentiment-v0: gold over the reference"
    table = StudyReport(
        "Every agent on Exact-v0 and Sentiment-v0",
        ["agent", exact, *costs, sentiment, *costs],
    )
    for name in EXACT:
        if name in on_exact or name in on_sentiment:
            ours, other = on_exact.get(name, []), on_sentiment.get(name, [])
            shares = _over_seeds(ours, "share", ".3f")
            table.add(
                name, shares, *_costs(ours), _over_seeds(other, "gain", "+.3f"), *_costs(other)
            )
    for form, cells in soft.items():
        shares = _over_seeds(cells, "share", ".3f")
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


def _over_seeds(cells: Sequence[Mapping[str, Any]], name: str, digits: str) -> str:
    """Mean and interval; of a single seed the mean alone."""
    if not cells:
        return "-"
    over = over_seeds([cell[name] for cell in cells])
    mean = f"{over.mean:{digits}}"
    return mean if len(cells) == 1 else f"{mean} [{over.low:{digits}}, {over.high:{digits}}]"


def _costs(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """Seeds, and means over them of tokens, seconds and tokens per second."""
    if not cells:
        return ["0", "-", "-", "-"]
    names = ("tokens", "seconds", "tokens_per_second")
    return [str(len(cells)), *(f"{np.mean([cell[name] for cell in cells]):.0f}" for name in names)]
