"""Pictures of a training run, drawn from its TensorBoard events."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

Points = list[tuple[int, float]]
"""(response tokens, value) in order."""

PANELS: Mapping[str, tuple[str, ...]] = {
    "reward": ("reward/score",),
    "gold": ("reward/gold",),
    "KL to the reference, nats": ("kl/reference",),
}
"""Panel title -> the tags drawn in it."""


def read_scalars(folder: Path) -> dict[str, Points]:
    """All scalars that a run logged, by tag.

    Args:
        folder: holds event files, at any depth; a resumed run has several.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    scalars: dict[str, Points] = {}
    for events in sorted({path.parent for path in folder.rglob("events.out.tfevents.*")}):
        accumulator = EventAccumulator(str(events), size_guidance={"scalars": 0})
        accumulator.Reload()
        for tag in accumulator.Tags()["scalars"]:
            found = accumulator.Scalars(tag)
            scalars.setdefault(tag, []).extend((event.step, event.value) for event in found)
    return {tag: sorted(points) for tag, points in scalars.items()}


def draw_training(folder: Path, picture: Path) -> Path:
    """Reward, gold and KL over training as one PNG; panels without data are left out.

    Args:
        folder: of the run.
        picture: where the PNG goes.

    Returns:
        `picture`.
    """
    # The object-oriented interface: no global figure, no display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, MaxNLocator

    scalars = read_scalars(folder)
    panels = [
        (title, {tag: scalars[tag] for tag in tags if tag in scalars})
        for title, tags in PANELS.items()
    ]
    panels = [(title, lines) for title, lines in panels if lines]
    figure = Figure(figsize=(4.2 * max(len(panels), 1), 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    for number, (title, lines) in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), number)
        for points in lines.values():
            steps, values = zip(*points, strict=True)
            axes.plot(steps, values, color=f"C{number - 1}", linewidth=1.8)
        axes.set_title(title, loc="left", fontsize=11)
        axes.set_xlabel("response tokens")
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(picture, dpi=150)
    return picture
