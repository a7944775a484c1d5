"""The toy tasks taught by comparisons: what is measured, what is meant, and what can be learned.

rlhf-gym study preferences --seeds 5 --tasks navigation tutor
rlhf-gym study preferences --seeds 5 --first-seed 10 --tasks pizza
rlhf-gym study preferences --teachers
rlhf-gym study preferences --strips
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_gym.pipelines.studies.kept import kept
from rlhf_gym.pipelines.studies.preference_learning_cells import (
    AUTOMATED,
    GOLD,
    ORACLE,
    PAYS,
    STUDIED,
    TEACHERS,
    Pay,
    Task,
    cell,
    teaching,
)
from rlhf_gym.pipelines.studies.preference_learning_picture import draw_returns
from rlhf_gym.pipelines.studies.preference_learning_strips import draw_strip
from rlhf_gym.pipelines.studies.results import StudyReport, over_seeds, ratio_over_seeds

if TYPE_CHECKING:
    from rlhf_gym.pipelines.studies import StudyConfig

Cells = Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]
"""Results by task and by what pays, one per seed."""

SHOWN = Pay("700 comparisons", labels=700)
"""Whose agent of the first seed the strips show."""
TEACHERS_TASK = "tutor"
"""Where teachers who err are compared: its cells take a third of the time of Pizza's."""
HEADLINE = (AUTOMATED, SHOWN, GOLD)


def run(config: StudyConfig) -> None:
    """Train what is not there yet, and print the table; stopped early, of what is finished."""
    import rlhf_gym  # noqa: F401  registers the tasks

    folder = config.output / "preferences"
    names = config.chosen_tasks(STUDIED)
    if config.strips:
        for name in names:
            draw_strip(STUDIED[name], _agent_path(folder, name), folder / f"{name}.png")
        return
    pays = TEACHERS if config.teachers else PAYS
    if config.teachers:
        names = [TEACHERS_TASK]
    try:
        for name, pay, seed in _order(names, pays, config.seed_numbers):
            is_shown = seed == config.first_seed
            _kept_cell(folder, name, pay, seed, is_shown=is_shown)
    finally:
        found = _finished(folder, names, pays, config.seed_numbers)
        if found:
            target = folder / "teachers" if config.teachers else folder
            target.mkdir(parents=True, exist_ok=True)
            report(found, pays).publish(target)
            for name, by_pay in found.items():
                if STUDIED[name].opponents:
                    wins_report(name, by_pay).publish(target / f"{name}-wins")
            draw_returns(found, target / "returns.png")


def report(cells: Cells, pays: Sequence[Pay]) -> StudyReport:
    """The table: shares are of what gold leads to, or among teachers of what the oracle does.

    Args:
        cells: what is finished.
        pays: the rows that it is of.
    """
    best, share_of = (GOLD, "of gold's own") if GOLD in pays else (ORACLE, "of the oracle's")
    table = StudyReport(
        "Toy tasks taught by comparisons",
        (
            "task",
            "paid by",
            "seeds",
            "gold return",
            share_of,
            "automated return",
            "held-out accuracy",
            "seconds",
        ),
    )
    for name, by_pay in cells.items():
        ceiling = [one["gold"] for one in by_pay.get(best.name, ())]
        for pay, ones in by_pay.items():
            gold = over_seeds([one["gold"] for one in ones])
            table.add(
                name,
                pay,
                len(ones),
                gold,
                _share([one["gold"] for one in ones], ceiling) if pay != best.name else "",
                over_seeds([one["automated"] for one in ones]),
                _mean_of(ones, "held_out_accuracy"),
                _mean_of(ones, "seconds", ".0f"),
            )
    table.raw = {"cells": cells}
    return table


def wins_report(name: str, by_pay: Mapping[str, Sequence[Mapping[str, Any]]]) -> StudyReport:
    """Games won against each opponent, before the training and after it, of a task of games."""
    opponents = STUDIED[name].opponents
    table = StudyReport(
        f"{name}: share of games won against each opponent", ["paid by", "seeds", *opponents]
    )
    # Whatever pays, a seed's agents begin alike.
    untrained = next(iter(by_pay.values()))
    rows = [("nothing: untrained", untrained, "wins_before")]
    rows += [(pay, ones, "wins") for pay, ones in by_pay.items()]
    for paid_by, ones, field in rows:
        shares = [over_seeds([one[field][opponent] for one in ones]) for opponent in opponents]
        table.add(paid_by, len(ones), *shares)
    table.raw = {"cells": by_pay}
    return table


def _share(returns: Sequence[float], ceiling: Sequence[float]) -> str:
    """Of what the gold reward leads to, two digits; nothing where that is not known yet."""
    if not ceiling:
        return ""
    share = ratio_over_seeds(returns, ceiling)
    interval = f" [{share.low:.2f}, {share.high:.2f}]" if share.count > 1 else ""
    return f"{share.mean:.2f}{interval}"


def _mean_of(ones: Sequence[Mapping[str, Any]], field: str, form: str = ".2f") -> str:
    values = [one[field] for one in ones if one.get(field) is not None]
    return format(sum(values) / len(values), form) if values else ""


def _order(
    names: Sequence[str], pays: Sequence[Pay], seeds: Sequence[int]
) -> Iterator[tuple[str, Pay, int]]:
    """The headline of every task first, and seed by seed: so an unfinished study has whole rows."""
    first = [pay for pay in pays if pay in HEADLINE]
    for part in (first, [pay for pay in pays if pay not in HEADLINE]):
        for name in names:
            for seed in seeds:
                for pay in part:
                    yield name, pay, seed


def _finished(
    folder: Path, names: Sequence[str], pays: Sequence[Pay], seeds: Sequence[int]
) -> dict[str, dict[str, list[Mapping[str, Any]]]]:
    """What is there by now, in the order of the table; no empty rows."""
    found: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for name in names:
        for pay in pays:
            for seed in seeds:
                try:
                    one = _kept_cell(folder, name, pay, seed, train=_not_there)
                except FileNotFoundError:
                    continue
                found.setdefault(name, {}).setdefault(pay.name, []).append(one)
    return found


def _not_there(*_: object) -> dict[str, Any]:
    raise FileNotFoundError


def _kept_cell(
    folder: Path,
    name: str,
    pay: Pay,
    seed: int,
    train: Callable[..., dict[str, Any]] | None = None,
    *,
    is_shown: bool = False,
) -> dict[str, Any]:
    """A cell from its file, or trained now by `cell`, or by what is given.

    Where `is_shown`, the agent is kept too if it is the one for the strips.
    """
    if pay.labels and pay.teacher == "oracle" and not pay.automated_weight:
        pay = Pay(f"{pay.labels} comparisons", labels=pay.labels)  # one cell in both tables
    task = STUDIED[name]
    place = folder / "cells" / name / f"{pay.name.replace(' ', '-')}-{seed}.json"
    kept_agent = _agent_path(folder, name) if is_shown and pay == SHOWN else None
    settings = _settings(task, pay, seed)
    return kept(place, settings, lambda: (train or cell)(task, pay, seed, kept_agent))


def _settings(task: Task, pay: Pay, seed: int) -> dict[str, Any]:
    """All that a cell depends on."""
    from rlhf_gym.pipelines.control_settings import TASKS

    taught = asdict(teaching(task, pay)) if pay.labels else {}
    agent = dict(TASKS[task.env].agents.get(task.agent, {}))
    return {
        "task": asdict(task),
        "pay": asdict(pay),
        "seed": seed,
        "taught": taught,
        "agent": agent,
    }


def _agent_path(folder: Path, name: str) -> Path:
    return folder / "agents" / f"{name}.zip"
