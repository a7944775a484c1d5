"""The study of KL in one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_gym.pipelines.studies.results import over_seeds

COLOURS = {"k1": "C0", "k2": "C1", "k3": "C2", "exact": "C3"}


def draw(
    errors: Mapping[float, Mapping[str, Any]],
    gradients: Mapping[float, Mapping[str, Any]],
    placements: Mapping[str, Sequence[Mapping[str, Any]]],
    picture: Path,
) -> Path:
    """Four panels: bias and deviation by distance, direction of the gradient, share of the way.

    Args:
        errors: by KL, use and estimator.
        gradients: likewise.
        placements: cells by variant.
        picture: where the PNG goes.

    Returns:
        `picture`.
    """
    # The object-oriented interface: no global figure, no display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.5, 7.6), layout="constrained")
    FigureCanvasAgg(figure)
    bias, deviation, direction, share = figure.subplots(2, 2).flat
    for name, colour in COLOURS.items():
        numbers = [table["response"][name] for table in errors.values()]
        relative = [e["bias"] / e["truth"] for e in numbers]
        bias.plot(list(errors), relative, "o-", color=colour, label=name)
        spread = [e["deviation"] / e["truth"] for e in numbers]
        deviation.plot(list(errors), spread, "o-", color=colour, label=name)
        for how, style in (("reward", "o-"), ("loss", "s--")):
            cosines = [table[how][name]["cosine"] for table in gradients.values()]
            if np.isnan(cosines).all():  # k1 in the loss has no gradient
                continue
            direction.plot(
                list(gradients), cosines, style, color=colour, label=f"{name} in the {how}"
            )
    titles = {
        bias: "bias of a response's KL, as a share of it",
        deviation: "deviation of one estimate, as a share of the KL",
        direction: "cosine of the expected gradient and that of KL",
    }
    for axes, title in titles.items():
        axes.set_title(title, loc="left", fontsize=11)
        axes.set_xscale("log")
        axes.set_xlabel("KL of a response, nats")
        axes.axhline(0.0, color="black", linewidth=0.8)
        axes.legend(fontsize=8, ncols=2 if axes is direction else 1)
    deviation.set_yscale("log")
    _bars(share, placements)
    for axes in (bias, deviation, direction, share):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=130)
    return picture


def _bars(axes: Any, placements: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    intervals = [over_seeds([cell["share"] for cell in cells]) for cells in placements.values()]
    means = [interval.mean for interval in intervals]
    errors = [[i.mean - i.low for i in intervals], [i.high - i.mean for i in intervals]]
    axes.barh(list(placements), means, xerr=errors, color="C0", alpha=0.8, capsize=3)
    axes.axvline(1.0, color="black", linewidth=0.8, linestyle=":")
    axes.axvline(0.0, color="black", linewidth=0.8)
    axes.invert_yaxis()
    axes.set_title("PPO on Exact-v0: share of the way", loc="left", fontsize=11)
