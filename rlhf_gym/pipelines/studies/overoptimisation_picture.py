"""Gold and proxy over sqrt(KL), drawn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_gym.pipelines.studies.overoptimisation_fits import FitWithRanges, Floats
from rlhf_gym.pipelines.studies.overoptimisation_report import Curve


def draw(curves: Mapping[str, Curve], fits: Mapping[str, FitWithRanges], picture: Path) -> Path:
    """One panel per proxy: the proxy's score, gold, and the curve that was fitted to gold.

    Args:
        curves: by name, all of one form.
        fits: by the same names.
        picture: where the PNG goes.

    Returns:
        `picture`.
    """
    # The object-oriented interface: no global figure, no display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(3, len(curves))
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(4.4 * columns, 3.4 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = np.atleast_1d(figure.subplots(rows, columns, squeeze=False).ravel())
    for axes, (name, curve) in zip(panels, curves.items(), strict=False):
        _panel(axes, name, curve, fits[name])
    for axes in panels[len(curves) :]:
        axes.set_visible(False)
    # One for all: a legend in a panel would lie on its points.
    drawn = {line.get_label(): line for axes in figure.axes for line in axes.get_lines()}
    named = [line for label, line in drawn.items() if not str(label).startswith("_")]
    figure.legend(handles=named, loc="outside upper center", ncols=len(named), frameon=False)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=130)
    return picture


def _panel(axes: Any, name: str, curve: Curve, fit: FitWithRanges) -> None:
    if curve.form == "bon":
        proxy, gold = curve.proxy.mean(1), curve.gold.mean(1)  # over prompts: (seeds, points)
    else:
        proxy, gold = curve.proxy, curve.gold
    right = axes.twinx()  # a proxy can rise ten times as far as gold
    for side, values, colour, label in (
        (right, proxy, "C1", "proxy, right"),
        (axes, gold, "C0", "gold, left"),
    ):
        if curve.form == "bon":
            for row in values:
                side.plot(curve.d[0], row, color=colour, alpha=0.25, linewidth=1)
            side.plot(curve.d[0], values.mean(0), color=colour, linewidth=2, label=label)
        else:
            side.plot(curve.d.ravel(), values.ravel(), ".", color=colour, alpha=0.5, label=label)
        side.tick_params(axis="y", colors=colour)
        side.spines["top"].set_visible(False)
    d: Floats = np.linspace(0.0, float(np.nanmax(curve.d)), 200)
    axes.plot(d, fit.fit.gain(d), color="black", linewidth=1.6, label="fit to gold")
    if fit.fit.peak < d[-1]:
        axes.axvline(fit.fit.peak, color="black", linewidth=0.8, linestyle=":")
    axes.axhline(0.0, color="black", linewidth=0.6)
    axes.set_title(name, loc="left", fontsize=10)
    axes.set_xlabel("sqrt(KL), nats")
    axes.set_ylabel("deviations of the reference's own", fontsize=9)
    axes.grid(alpha=0.3)
