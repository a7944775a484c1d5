"""What makes TensorBoard show an experiment well without a setting.

TensorBoard shows no run at all, until each is ticked, where there are more than 40 of them, which
eight schemes with five seeds come to. So the folder `board` has one run for each scheme: means and
ranges over its seeds, and what its first seed wrote that has no mean, histograms and texts. The run
`overview` beside them holds the layout of the CUSTOM SCALARS tab, the columns of the HPARAMS tab
and a table of samples side by side.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import summary_v2 as hparams
from torch.utils.tensorboard import SummaryWriter

from rlhf_gym.core.data import read_records
from rlhf_gym.pipelines.evaluate import markdown_cell
from rlhf_gym.pipelines.experiments.cells import CLAIM, SAMPLES, Cell, Experiment
from rlhf_gym.pipelines.experiments.claims import claim
from rlhf_gym.pipelines.experiments.config import BOARD
from rlhf_gym.pipelines.experiments.curves import CURVES, Curve, Curves, scheme_curves
from rlhf_gym.pipelines.experiments.events import JUDGED, session, write_session
from rlhf_gym.pipelines.experiments.titles import TITLES, in_order

OVERVIEW = "overview"
OVER_SEEDS = "over_seeds/"
SIDE_BY_SIDE = 8
"""Prompts in the table of samples."""
TEXT_SUFFIX = "/text_summary"
"""What torch puts behind the tag of a text."""


def write_board(experiment: Experiment, curves: Curves | None = None) -> None:
    """Write the board anew, from the cells that are done.

    While another process does so, nothing is written.

    Args:
        experiment: as it lies on disk.
        curves: scheme -> quantity -> curve, if they were read already.
    """
    folder = experiment.folder / BOARD
    folder.mkdir(exist_ok=True)
    with claim(folder / CLAIM) as mine:
        if mine:
            _write_board(experiment, scheme_curves(experiment) if curves is None else curves)


def _write_board(experiment: Experiment, curves: Curves) -> None:
    folder = experiment.folder / BOARD
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
    for scheme in experiment.schemes:
        done = [cell for cell in experiment.cells if cell.scheme == scheme and cell.is_done]
        if done:
            _write_scheme(experiment, done, curves.get(scheme.name, {}))
    metrics = in_order({name for cell in experiment.cells for name in cell.metrics})
    shown = [name for name in CURVES if any(name in found for found in curves.values())]
    with SummaryWriter(log_dir=str(folder / OVERVIEW)) as writer:
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


def _write_scheme(
    experiment: Experiment, done: Sequence[Cell], curves: Mapping[str, Curve]
) -> None:
    """The run of one scheme, from its finished cells."""
    scheme = done[0].scheme
    # Whoever watches has read the points of before: the purge voids them.
    folder = experiment.folder / BOARD / scheme.name
    with SummaryWriter(log_dir=str(folder), purge_step=0) as writer:
        for name, curve in curves.items():
            for step, mean, low, high in zip(*curve, strict=True):
                writer.add_scalar(f"{OVER_SEEDS}{name}", mean, int(step))
                writer.add_scalar(f"{OVER_SEEDS}{name}/least", low, int(step))
                writer.add_scalar(f"{OVER_SEEDS}{name}/most", high, int(step))
        known = set.intersection(*(set(cell.metrics) for cell in done))
        means = {
            name: float(np.mean([cell.metrics[name] for cell in done])) for name in sorted(known)
        }
        write_session(writer, scheme.name, session(experiment.settings, scheme), means)
        _copy_what_has_no_mean(done[0], writer)


def _copy_what_has_no_mean(cell: Cell, writer: SummaryWriter) -> None:
    """Histograms and texts of one cell, as they are."""
    events = EventAccumulator(str(cell.folder), {"histograms": 0, "tensors": 0})
    tags = events.Reload().Tags()
    for tag in tags["histograms"]:
        for event in events.Histograms(tag):
            value = event.histogram_value
            writer.add_histogram_raw(
                tag,
                value.min,
                value.max,
                value.num,
                value.sum,
                value.sum_squares,
                value.bucket_limit,
                value.bucket,
                event.step,
            )
    for tag in tags["tensors"]:
        if tag.endswith(TEXT_SUFFIX):
            for event in events.Tensors(tag):
                text = event.tensor_proto.string_val[0].decode()
                writer.add_text(tag.removesuffix(TEXT_SUFFIX), text, event.step)


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
