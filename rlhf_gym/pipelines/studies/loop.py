"""Labels in rounds: does gold rise each round, and what are rounds and disagreement worth?

On `rlhf_gym/Sentiment-v0` with its oracle. Three ways to spend the same labels, each once per seed:

- rounds, disagreement: pairs of each round's policy that the reward models dispute;
- rounds, uniform: pairs of each round's policy, drawn at random;
- at the start: all pairs from the reference, drawn at random, and one round.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_gym.agents.ppo import PPOConfig
from rlhf_gym.core.calibration import Estimate
from rlhf_gym.pipelines.environment import EnvironmentConfig
from rlhf_gym.pipelines.rlhf import RLHFConfig, RLHFLoop
from rlhf_gym.pipelines.studies.kept import kept
from rlhf_gym.pipelines.studies.noise import write_base
from rlhf_gym.pipelines.studies.results import StudyReport, over_seeds

if TYPE_CHECKING:
    from rlhf_gym.pipelines.studies import StudyConfig

ROUNDS = 3
LABELS = 8
"""Pairs labelled in each round: few, for 16 already decide 87 % of other pairs as the oracle."""
TOKENS = 24_000
"""Response tokens of each policy's training: at 8,000, chance moves gold more than labels do."""
EPISODES = 256


@dataclass(frozen=True)
class Way:
    """One way to spend the labels.

    Attributes:
        name: of the row.
        rounds: how often they are asked for.
        selection: which pairs.
    """

    name: str
    rounds: int
    selection: str


DISPUTED = Way("rounds, disagreement", ROUNDS, "disagreement")
UNIFORM = Way("rounds, uniform", ROUNDS, "uniform")
AT_ONCE = Way("at the start", 1, "uniform")
WAYS = (DISPUTED, UNIFORM, AT_ONCE)

Cell = Mapping[str, Any]


def run(config: StudyConfig) -> None:
    """Every way once per seed, and one report, of the seeds that are complete so far."""
    folder = config.output / "loop"
    base = write_base(folder)
    cells: dict[str, list[Cell]] = {way.name: [] for way in WAYS}
    for seed in range(config.seeds):
        for way in WAYS:
            cells[way.name].append(cell(way, base, folder, seed))
        publish(cells, folder)


def cell(way: Way, base: Path, folder: Path, seed: int) -> dict[str, Any]:
    """One loop: gold, KL and accuracy of each round.

    Args:
        way: to spend the labels.
        base: what reward models begin with.
        folder: of the study.
        seed: of everything.
    """
    name = way.name.replace(", ", "-").replace(" ", "-")
    loop = loop_config(way, base, folder / f"seed-{seed}" / name, seed)

    def compute() -> dict[str, Any]:
        started = time.process_time()
        rounds = list(RLHFLoop(loop))
        return {
            "gold": [_value(one.gold) for one in rounds],
            "reference": [_value(one.reference_gold) for one in rounds],
            "kl": [_value(one.kl) for one in rounds],
            "accuracy": [one.accuracy for one in rounds],
            "labels": rounds[-1].labels,
            "seconds": time.process_time() - started,
        }

    return kept(folder / f"seed-{seed}" / f"{name}.json", {"loop": asdict(loop)}, compute)


def loop_config(way: Way, base: Path, output: Path, seed: int) -> RLHFConfig:
    """The same labels in all, the same reward models and the same training of each policy."""
    return RLHFConfig(
        environment=EnvironmentConfig(num_envs=64, kl_coef=0.05),
        rounds=way.rounds,
        labels=LABELS * ROUNDS // way.rounds,
        labeler="oracle",
        selection=way.selection,
        output=str(output),
        reward_base=str(base),
        members=2,
        reward_epochs=12.0,
        total_timesteps=TOKENS,
        ppo=PPOConfig(learning_rate=1e-3),
        evaluation_episodes=EPISODES,
        seed=seed,
        progress=False,
    )


def publish(cells: Mapping[str, Sequence[Cell]], folder: Path) -> None:
    """The report: gold by round, and differences paired by seed."""
    seeds = len(cells[AT_ONCE.name])
    report = StudyReport(
        f"{ROUNDS * LABELS} labels of the oracle on Sentiment-v0: in rounds, or at the start",
        ["way", "round", "labels", "gold", "reference", "KL, nats"],
    )
    for way in WAYS:
        for number in range(way.rounds):
            columns = (
                over_seeds([one[metric][number] for one in cells[way.name]])
                for metric in ("gold", "reference", "kl")
            )
            labels = LABELS * ROUNDS // way.rounds * (number + 1)
            report.add(way.name, number + 1, labels, *columns)
    differences = {
        "disagreement in rounds over labels at the start": _difference(cells, DISPUTED, AT_ONCE),
        "uniform in rounds over labels at the start": _difference(cells, UNIFORM, AT_ONCE),
        "disagreement over uniform": _difference(cells, DISPUTED, UNIFORM),
    }
    for name, values in differences.items():
        report.notes += [f"Gold at the end, {name}, paired by seed: {over_seeds(values)}.", ""]
    rises = {way.name: _rises(cells[way.name], way.rounds) for way in (DISPUTED, UNIFORM)}
    for name, by_round in rises.items():
        words = ", ".join(f"round {n} {over_seeds(rise)}" for n, rise in enumerate(by_round, 1))
        report.notes += [
            f"Rise of gold in each round, {name} (the first over the reference): {words}.",
            "",
        ]
    seconds = [one["seconds"] for found in cells.values() for one in found]
    report.notes.append(
        f"{seeds} seeds; {LABELS} labels a round, {TOKENS} response tokens of PPO from the "
        f"reference in each, {EPISODES} responses to judge by; {sum(seconds) / seeds:.0f} "
        "processor seconds a seed. Reward models begin with a trunk that has features of opinion, "
        "the packaged reward model's, and a fresh head: so few labels cannot teach a model this "
        "small to read."
    )
    report.raw = {"cells": cells, "differences": differences, "rises": rises}
    report.publish(folder)


def _difference(cells: Mapping[str, Sequence[Cell]], first: Way, second: Way) -> list[float]:
    pairs = zip(cells[first.name], cells[second.name], strict=True)
    return [float(a["gold"][-1] - b["gold"][-1]) for a, b in pairs]


def _rises(found: Sequence[Cell], rounds: int) -> list[list[float]]:
    """How much gold rises in each round, one list of seeds a round."""
    levels = [[one["reference"][0], *one["gold"]] for one in found]
    return [[float(level[n + 1] - level[n]) for level in levels] for n in range(rounds)]


def _value(estimate: Estimate | None) -> float:
    return float("nan") if estimate is None else estimate.value
