"""Return over the number of labels, as one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rlhf_gym.pipelines.studies.results import over_seeds

Cells = Mapping[str, Sequence[Mapping[str, float]]]


def draw_label_curve(
    cells: Cells, labels: Sequence[int], selections: Sequence[str], truth: str, picture: Path
) -> Path:
    """Draw a line for each way to choose clips, and bands for the true reward and for no training.

    Args:
        cells: results with `before` and `after`, one per seed, by `"{labels}-{selection}"`.
        labels: numbers of them, in any order.
        selections: ways to choose clips.
        truth: name of the cells that were trained on the true reward.
        picture: where the PNG goes.

    Returns:
        `picture`.
    """
    # The object-oriented interface: no global figure, no display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import ScalarFormatter

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, field, color in (("true reward", "after", "C2"), ("untrained", "before", "0.5")):
        level = over_seeds([one[field] for one in cells[truth]])
        axes.axhspan(level.low, level.high, color=color, alpha=0.2, linewidth=0)
        axes.axhline(level.mean, color=color, linewidth=1.5, label=name)
    for number, selection in enumerate(selections):
        counts = [count for count in sorted(labels) if cells[f"{count}-{selection}"]]
        levels = [
            over_seeds([one["after"] for one in cells[f"{count}-{selection}"]]) for count in counts
        ]
        # A step aside, or the bars of one count would hide each other.
        places = [count * 1.03**number for count in counts]
        bars = [
            [level.mean - level.low for level in levels],
            [level.high - level.mean for level in levels],
        ]
        means = [level.mean for level in levels]
        axes.errorbar(places, means, bars, fmt="o-", capsize=3, color=f"C{number}", label=selection)
    axes.set_xscale("log")
    axes.set_xticks(sorted(labels))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.minorticks_off()
    axes.set_xlabel("labels")
    axes.set_title("true return of an episode", loc="left", fontsize=11)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=150)
    return picture
