"""What makes TensorBoard show an experiment well without a setting.

Each scheme gets a run of its own beside those of its seeds: means and ranges over the seeds. The
run `overview` holds the layout of the CUSTOM SCALARS tab, the columns of the HPARAMS tab and a
table of samples side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorboard.plugins.hparams import summary_v2 as hparams
from torch.utils.tensorboard import SummaryWriter

from rlhf_gym.core.data import read_records
from rlhf_gym.pipelines.evaluate import markdown_cell
from rlhf_gym.pipelines.experiments.cells import CLAIM, SAMPLES, Experiment
from rlhf_gym.pipelines.experiments.claims import claim
from rlhf_gym.pipelines.experiments.config import OVERVIEW
from rlhf_gym.pipelines.experiments.curves import CURVES, Curve, Curves, scheme_curves
from rlhf_gym.pipelines.experiments.events import JUDGED, remove_events
from rlhf_gym.pipelines.experiments.titles import TITLES, in_order

OVER_SEEDS = "over_seeds/"
SIDE_BY_SIDE = 8
"""Prompts in the table of samples."""


def write_board(experiment: Experiment, curves: Curves | None = None) -> None:
    """Write the runs of the schemes and the overview anew, from the cells that are done.

    While another process does so, nothing is written.

    Args:
        experiment: as it lies on disk.
        curves: scheme -> quantity -> curve, if they were read already.
    """
    folder = experiment.folder / OVERVIEW
    folder.mkdir(exist_ok=True)
    with claim(folder / CLAIM) as mine:
        if mine:
            _write_board(experiment, scheme_curves(experiment) if curves is None else curves)


def _write_board(experiment: Experiment, curves: Curves) -> None:
    for name, found in curves.items():
        _write_scheme(experiment.folder / name, found)
    metrics = in_order({name for cell in experiment.cells for name in cell.metrics})
    shown = [name for name in CURVES if any(name in found for found in curves.values())]
    folder = experiment.folder / OVERVIEW
    remove_events(folder)
    with SummaryWriter(log_dir=str(folder)) as writer:
        file = writer.file_writer
        assert file is not None
        file.add_summary(_columns(metrics))
        writer.add_custom_scalars(_layout(shown))
        table = side_by_side(experiment)
        if table:
            writer.add_text("samples/side_by_side", table, 0)


def side_by_side(experiment: Experiment) -> str:
    """What the first seed of each scheme answers to the same prompts, as a Markdown table."""
    columns: dict[str, list[dict[str, object]]] = {}
    for scheme in experiment.schemes:
        path = experiment.cell(scheme, experiment.seeds[0]).folder / SAMPLES
        if path.is_file() and path.stat().st_size:
            columns[scheme.name] = read_records(path)[:SIDE_BY_SIDE]
    if not columns:
        return ""
    lines = [["prompt", *columns], ["---"] * (1 + len(columns))]
    lines += [
        [_cell(rows[0]["prompt"]), *(_answer(row) for row in rows)]
        for rows in zip(*columns.values(), strict=False)
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _answer(row: Mapping[str, object]) -> str:
    numbers = [f"{name} {row[name]:.2f}" for name in ("gold", "kl") if name in row]
    return f"{_cell(row['completion'])} *({', '.join(numbers)})*"


def _cell(text: object) -> str:
    return markdown_cell(str(text))


def _write_scheme(folder: Path, curves: Mapping[str, Curve]) -> None:
    remove_events(folder)
    # Whoever watches has read the points of before: the purge voids them.
    with SummaryWriter(log_dir=str(folder), purge_step=0) as writer:
        for name, curve in curves.items():
            for step, mean, low, high in zip(*curve, strict=True):
                writer.add_scalar(f"{OVER_SEEDS}{name}", mean, int(step))
                writer.add_scalar(f"{OVER_SEEDS}{name}/least", low, int(step))
                writer.add_scalar(f"{OVER_SEEDS}{name}/most", high, int(step))


def _layout(names: Sequence[str]) -> dict[str, dict[str, list[object]]]:
    """One chart for each quantity, a line with its margin for each scheme."""
    charts: dict[str, list[object]] = {}
    for name in reversed(names):  # TensorBoard shows the last one first
        tag = f"{OVER_SEEDS}{name}"
        charts[TITLES[name]] = ["Margin", [tag, f"{tag}/least", f"{tag}/most"]]
    return {"schemes: mean and range over seeds": charts}


def _columns(metrics: Sequence[str]) -> Any:
    """The HPARAMS tab: what tells schemes apart, and all that they were judged by."""
    return hparams.hparams_config_pb(
        hparams=[hparams.HParam(name) for name in ("scheme", "reward")],
        metrics=[hparams.Metric(f"{JUDGED}{name}", display_name=name) for name in metrics],
    )
