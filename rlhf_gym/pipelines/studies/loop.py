"""Labels in rounds: does gold rise each round, and what are rounds and disagreement worth?

rlhf-gym study loop --seeds 5
rlhf-gym study loop --seeds 5 --tasks pizza

With the oracle, on a task of writing and one of acting. Three ways to spend the same labels, each
once per seed:

- rounds, disagreement: pairs of each round's behaviour that the reward models dispute;
- rounds, uniform: pairs of each round's behaviour, drawn at random;
- at the start: all pairs before any training, drawn at random; training goes on for as long.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rlhf_gym.pipelines.studies import loop_control, loop_text
from rlhf_gym.pipelines.studies.loop_ways import AT_ONCE, DISPUTED, ROUNDS, UNIFORM, WAYS, Way
from rlhf_gym.pipelines.studies.results import StudyReport, over_seeds

if TYPE_CHECKING:
    from rlhf_gym.pipelines.studies import StudyConfig

Cell = Mapping[str, Any]


class Task(NamedTuple):
    """A task of the study.

    Attributes:
        title: of the report.
        cell: what one way comes to with one seed, kept in a folder.
        labels: in each round.
        note: how it was done.
    """

    title: str
    cell: Callable[[Way, Path, int], Cell]
    labels: int
    note: str


TASKS: Mapping[str, Task] = {
    "sentiment": Task(
        "Sentiment-v0",
        loop_text.cell,
        loop_text.LABELS,
        f"{loop_text.TOKENS} response tokens of PPO in each round, from the policy of the round "
        f"before, {loop_text.EPISODES} responses to judge by.",
    ),
    "pizza": Task(
        "Pizza-v0",
        loop_control.cell,
        loop_control.LABELS,
        f"One agent, {loop_control.TASK.timesteps} steps of PPO, judged without chance in "
        f"{loop_control.EPISODES} episodes after each third of them.",
    ),
}


def run(config: StudyConfig) -> None:
    """Every way once per seed, and a report of each task, of the seeds that are complete so far."""
    for name in config.chosen_tasks(TASKS):
        task, folder = TASKS[name], config.output / "loop" / name
        cells: dict[str, list[Cell]] = {way.name: [] for way in WAYS}
        for number, seed in enumerate(config.seed_numbers, 1):
            for way in WAYS:
                cells[way.name].append(task.cell(way, folder, seed))
            publish(task, cells, folder, config.seed_numbers[:number])


def publish(
    task: Task, cells: Mapping[str, Sequence[Cell]], folder: Path, seeds: Sequence[int]
) -> None:
    """The report: gold by round, and differences paired by seed.

    Args:
        task: what was learned.
        cells: by the name of the way, one of each seed.
        folder: where it goes.
        seeds: which.
    """
    report = StudyReport(
        f"{ROUNDS * task.labels} labels of the oracle on {task.title}: in rounds, or at the start",
        ["way", "round", "labels", "gold", "before training", "KL, nats"],
    )
    for way in WAYS:
        found = cells[way.name]
        for number in range(len(found[0]["gold"])):
            asked = min(number + 1, way.rounds) * task.labels * ROUNDS // way.rounds
            columns = (
                over_seeds([one[metric][number] for one in found]) if found[0][metric] else ""
                for metric in ("gold", "reference", "kl")
            )
            report.add(way.name, number + 1, asked, *columns)
    differences = {
        "disagreement in rounds over labels at the start": _difference(cells, DISPUTED, AT_ONCE),
        "uniform in rounds over labels at the start": _difference(cells, UNIFORM, AT_ONCE),
        "disagreement over uniform": _difference(cells, DISPUTED, UNIFORM),
    }
    for name, values in differences.items():
        report.notes += [f"Gold at the end, {name}, paired by seed: {over_seeds(values)}.", ""]
    stopped = _stopped(cells)
    for name, by_round in stopped.items():
        words = ", ".join(f"round {n} {over_seeds(over)}" for n, over in enumerate(by_round, 1))
        report.notes += [
            f"Gold at the end, {name}, over labels at the start stopped before the end: {words}.",
            "",
        ]
    rises = {way.name: _rises(cells[way.name]) for way in WAYS}
    for name, by_round in rises.items():
        words = ", ".join(f"round {n} {over_seeds(rise)}" for n, rise in enumerate(by_round, 1))
        report.notes += [f"Rise of gold, {name} (the first over before): {words}.", ""]
    report.notes.append(f"Seeds {', '.join(map(str, seeds))}; {task.note}")
    report.raw = {
        "cells": cells,
        "differences": differences,
        "stopped": stopped,
        "rises": rises,
    }
    report.publish(folder)


def _difference(cells: Mapping[str, Sequence[Cell]], first: Way, second: Way) -> list[float]:
    pairs = zip(cells[first.name], cells[second.name], strict=True)
    return [float(a["gold"][-1] - b["gold"][-1]) for a, b in pairs]


def _stopped(cells: Mapping[str, Sequence[Cell]]) -> dict[str, list[list[float]]]:
    """How far the ways of rounds end above labels at the start, had these stopped earlier.

    Returns:
        By way, one list of seeds for each round of labels at the start but the last.
    """
    early = [one["gold"][:-1] for one in cells[AT_ONCE.name]]
    return {
        way.name: [
            [float(end["gold"][-1] - at) for end, at in zip(cells[way.name], column, strict=True)]
            for column in zip(*early, strict=True)
        ]
        for way in (DISPUTED, UNIFORM)
        if early[0]
    }


def _rises(found: Sequence[Cell]) -> list[list[float]]:
    """How much gold rises in each round, one list of seeds a round."""
    levels = [[one["reference"][0], *one["gold"]] for one in found]
    rounds = len(found[0]["gold"])
    return [[float(level[n + 1] - level[n]) for level in levels] for n in range(rounds)]
