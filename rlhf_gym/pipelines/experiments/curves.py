"""Curves of a scheme: the mean over its seeds, and the range of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlhf_gym.pipelines.curves import Points, read_scalars
from rlhf_gym.pipelines.experiments.cells import Cell, Experiment

Floats = NDArray[np.float64]

CURVES: Mapping[str, str] = {
    "share": "judged/share_so_far",
    "gold": "reward/gold",
    "score": "reward/score",
    "kl": "kl/reference",
    "length": "text/response_length",
    "entropy": "train/entropy",
    "automated": "reward/automated",
}
"""Name -> the tag under which a cell logs it."""

POINTS = 40
"""Of a curve; runs log at steps of their own, so that all are read off at common ones."""


class Curve(NamedTuple):
    """One quantity of one scheme over training.

    Attributes:
        steps: timesteps, shape (n,).
        mean: over the seeds, shape (n,).
        low: the least of the seeds, shape (n,).
        high: the largest, shape (n,).
    """

    steps: Floats
    mean: Floats
    low: Floats
    high: Floats


Curves = Mapping[str, Mapping[str, Curve]]
"""Scheme -> quantity -> curve."""


def scheme_curves(experiment: Experiment) -> Curves:
    """The curves of all schemes that have a finished seed."""
    found = {
        scheme.name: read_curves([cell for cell in experiment.cells if cell.scheme == scheme])
        for scheme in experiment.schemes
    }
    return {name: curves for name, curves in found.items() if curves}


def read_curves(cells: Sequence[Cell]) -> dict[str, Curve]:
    """The curves of one scheme from its cells' events, those that are not finished left out.

    Args:
        cells: of one scheme.

    Returns:
        Name -> curve; what no cell has logged is missing.
    """
    # What an interrupted run wrote too far is void, and need not be announced each time.
    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    scalars = [read_scalars(cell.folder) for cell in cells if cell.is_done]
    curves = {}
    for name, tag in CURVES.items():
        runs = [found[tag] for found in scalars if tag in found]
        if runs and len(runs) == len(scalars):
            curves[name] = over_seeds(runs)
    return curves


def over_seeds(runs: Sequence[Points]) -> Curve:
    """Mean and range of several runs, linearly interpolated at common steps.

    Args:
        runs: (step, value) points of each, in order of steps; of points at one step the last
            counts.
    """
    arrays = [np.array(sorted(dict(points).items()), dtype=np.float64) for points in runs]
    first = max(array[0, 0] for array in arrays)
    last = min(array[-1, 0] for array in arrays)
    steps = np.linspace(first, max(first, last), POINTS)
    values = np.stack([np.interp(steps, array[:, 0], array[:, 1]) for array in arrays])
    return Curve(steps, values.mean(0), values.min(0), values.max(0))
