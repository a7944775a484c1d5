"""Pictures of an experiment: curves with bands, the frontier of gold over KL, the intervals."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from rlhf_gym.core.calibration import Estimate
from rlhf_gym.pipelines.experiments.curves import Curves

PER_LINE = 3
"""Panels beside each other."""
FEW = 10
"""Colours that one can tell apart; more schemes are told apart by their dashes too."""
DASHES = ("-", "--", ":")


def draw_curves(curves: Curves, titles: Mapping[str, str], picture: Path) -> Path:
    """One panel for each quantity: mean over seeds, and the range of the seeds as a band.

    Args:
        curves: of each scheme.
        titles: quantity -> title of its panel, in order; those without curves are left out.
        picture: where the PNG goes.
    """
    shown = [name for name in titles if any(name in found for found in curves.values())]
    figure = _figure(max(len(shown), 1))
    for number, name in enumerate(shown, start=1):
        axes = _panel(figure, len(shown), number, titles[name], "timesteps")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        for style, found in zip(_styles(curves), curves.values(), strict=True):
            if name in found:
                curve = found[name]
                axes.plot(curve.steps, curve.mean, **style)
                axes.fill_between(
                    curve.steps, curve.low, curve.high, color=style["color"], alpha=0.12, lw=0
                )
    return _save(figure, picture)


def draw_frontier(curves: Curves, picture: Path) -> Path | None:
    """Gold over KL while training goes on, a dot where it ends; None without both.

    Args:
        curves: of each scheme.
        picture: where the PNG goes.
    """
    known = {name: found for name, found in curves.items() if {"gold", "kl"} <= set(found)}
    if not known:
        return None
    figure = _figure(1)
    axes = _panel(figure, 1, 1, "gold score over KL", "KL to the reference, nats")
    styles = dict(zip(curves, _styles(curves), strict=True))
    for name, found in known.items():
        kl, gold = found["kl"].mean, found["gold"].mean
        axes.plot(kl, gold, **styles[name])
        axes.plot(kl[-1], gold[-1], "o", color=styles[name]["color"], markersize=5)
    return _save(figure, picture)


def draw_intervals(estimates: Mapping[str, Estimate], title: str, picture: Path) -> Path:
    """Interquartile means with their intervals, a line for each scheme, the best on top.

    Args:
        estimates: scheme -> estimate.
        title: what is estimated.
        picture: where the PNG goes.
    """
    ordered = sorted(estimates.items(), key=lambda item: item[1].value)
    figure = Figure(figsize=(5.5, 0.9 + 0.28 * len(ordered)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for place, (_, (value, low, high)) in enumerate(ordered):
        axes.plot([low, high], [place, place], color="C0", linewidth=6, alpha=0.35)
        axes.plot(value, place, "|", color="C0", markersize=12, markeredgewidth=2.5)
    axes.set_ylim(-0.6, len(ordered) - 0.4)
    axes.set_yticks(range(len(ordered)), [name for name, _ in ordered])
    axes.set_title(f"{title}: interquartile mean, 95 % interval", loc="left", fontsize=10)
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right", "left"]].set_visible(False)
    return _save(figure, picture)


def _figure(panels: int) -> Figure:
    # The object-oriented interface: no global figure, no display.
    lines, columns = -(-panels // PER_LINE), min(panels, PER_LINE)
    figure = Figure(figsize=(4.2 * columns + 1.9, 3.4 * lines + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _panel(figure: Figure, panels: int, number: int, title: str, x: str) -> Any:
    axes = figure.add_subplot(-(-panels // PER_LINE), min(panels, PER_LINE), number)
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel(x)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def _styles(curves: Curves) -> list[dict[str, Any]]:
    colours = colormaps["tab10"].colors  # type: ignore[attr-defined]
    return [
        {
            "label": name,
            "color": colours[number % FEW],
            "linestyle": DASHES[number // FEW % len(DASHES)],
            "linewidth": 1.7,
        }
        for number, name in enumerate(curves)
    ]


def _save(figure: Figure, picture: Path) -> Path:
    lines = {line.get_label(): line for axes in figure.axes for line in axes.get_lines()}
    named = {label: line for label, line in lines.items() if not str(label).startswith("_")}
    if named:
        figure.legend(
            list(named.values()),
            list(map(str, named)),
            loc="outside right upper",
            fontsize=8,
            frameon=False,
        )
    figure.savefig(picture, dpi=130)
    return picture
