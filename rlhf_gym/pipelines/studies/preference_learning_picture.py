"""Gold returns of the study of preferences as one picture: a panel for each task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhf_gym.pipelines.studies.results import over_seeds


def draw_returns(
    cells: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]], picture: Path
) -> Path:
    """Draw mean gold returns with their 95 % intervals, and every seed as a dot.

    Args:
        cells: results with `gold` by task and by what pays, one per seed.
        picture: where the PNG goes.

    Returns:
        `picture`.
    """
    # The object-oriented interface: no global figure, no display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.0 * len(cells) + 1.2, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(cells), squeeze=False)[0]
    for axes, (task, by_pay) in zip(panels, cells.items(), strict=True):
        for place, ones in enumerate(by_pay.values()):
            returns = [one["gold"] for one in ones]
            level = over_seeds(returns)
            axes.bar(place, level.mean, color=f"C{place}", alpha=0.35)
            bars = [[level.mean - level.low], [level.high - level.mean]]
            axes.errorbar(place, level.mean, bars, color=f"C{place}", capsize=4)
            axes.plot([place] * len(returns), returns, ".", color=f"C{place}", markersize=4)
        axes.axhline(0, color="0.5", linewidth=0.8)
        axes.set_xticks(range(len(by_pay)), list(by_pay), rotation=35, ha="right", fontsize=8)
        axes.set_title(f"{task}: gold return", loc="left", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=120)
    return picture
