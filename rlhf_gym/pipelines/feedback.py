"""`rlhf-gym feedback`: files into a store, files out of it, and what the labels say."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from rlhf_gym.core.calibration import Estimate
from rlhf_gym.core.command import Command
from rlhf_gym.core.errors import InvalidData
from rlhf_gym.core.store import FeedbackStore
from rlhf_gym.core.store.report import FeedbackReport, summarise
from rlhf_gym.core.store.transfer import Kind, export_feedback, import_feedback

SHOWN = 10
"""Problems of an import that are printed one by one, unless all are wanted."""


@dataclass(frozen=True)
class ImportConfig:
    """Read labels from files into a store."""

    files: tyro.conf.Positional[tuple[str, ...]]
    """Files or folders with pairs, rankings, thumbs, ratings or demonstrations."""
    store: str = "feedback.db"
    """The store; made if it is not there."""
    rater: str | None = None
    """Who gave the labels; each file's name by default."""
    columns: dict[str, str] = field(default_factory=dict)
    """Columns to rename: name in the file, name wanted."""
    overlap: int = 1
    """How many raters shall answer each query, this one included."""
    all_problems: bool = False
    """Print every record that is left out, not the first ten alone."""


@dataclass(frozen=True)
class ExportConfig:
    """Write the labels of a store to a file."""

    output: tyro.conf.Positional[str]
    """.jsonl, .jsonl.gz or .parquet."""
    store: str = "feedback.db"
    """The store."""
    kind: Kind = "preferences"
    """What the reward-model stage reads, or what SFT reads."""
    raters: tuple[str, ...] = ()
    """Only labels by these; all by default."""


@dataclass(frozen=True)
class ReportConfig:
    """Show how far raters agree."""

    store: str = "feedback.db"
    """The store."""


FeedbackConfig = (
    Annotated[ImportConfig, tyro.conf.subcommand("import")]
    | Annotated[ExportConfig, tyro.conf.subcommand("export")]
    | Annotated[ReportConfig, tyro.conf.subcommand("report")]
)


def run(config: ImportConfig | ExportConfig | ReportConfig) -> None:
    """Do what was asked, and say what was done.

    Raises:
        InvalidData: a store that is not there, or files without labels.
    """
    if isinstance(config, ImportConfig):
        _import(config)
        return
    if not Path(config.store).exists():
        raise InvalidData(
            "store",
            config.store,
            "there is no such file",
            "Make one with `rlhf-gym feedback import`",
        )
    with FeedbackStore(config.store) as store:
        if isinstance(config, ExportConfig):
            count = export_feedback(store, config.output, kind=config.kind, raters=config.raters)
            Console().print(f"{count} records written to {config.output}")
        else:
            show(summarise(store.feedback()), Console())


def _import(config: ImportConfig) -> None:
    console = Console()
    with FeedbackStore(config.store) as store:
        for file in config.files:
            report = import_feedback(
                store, file, rater=config.rater, columns=config.columns, overlap=config.overlap
            )
            console.print(
                f"{file}: {report.labels} labels stored, {report.known} known already, "
                f"{len(report.problems)} records left out"
            )
            shown = report.problems if config.all_problems else report.problems[:SHOWN]
            for problem in shown:
                console.print(f"  {problem}", markup=False)
            if more := len(report.problems) - len(shown):
                console.print(
                    f"  and {more} more. Import it again with --all-problems to see them; labels "
                    "that are stored already are not stored twice"
                )


def show(report: FeedbackReport, console: Console) -> None:
    """Print a report as tables.

    Args:
        report: what `summarise` gives.
        console: where to.
    """
    questions = Table("question", "labels", "shared queries", "Krippendorff's alpha", "kappas")
    for agreement in report.agreements:
        kappas = [kappa for kappa in agreement.kappas.values() if not math.isnan(kappa)]
        spread = f"{min(kappas):.2f} to {max(kappas):.2f}" if kappas else ""
        questions.add_row(
            agreement.question,
            str(agreement.labels),
            str(agreement.shared),
            _number(agreement.alpha, ".3f"),
            spread,
        )
    raters = Table("rater", "labels", "skips", "median seconds", "agrees with others", "gold right")
    for rater in report.raters:
        raters.add_row(
            rater.name,
            str(rater.labels),
            str(rater.skips),
            _number(rater.seconds, ".1f"),
            _estimate(rater.agreement),
            _estimate(rater.gold),
        )
    console.print(questions, raters)
    if report.longer_wins is not None:
        console.print(f"The longer text was preferred: {report.longer_wins}")


def _number(value: float, form: str) -> str:
    return "" if math.isnan(value) else f"{value:{form}}"


def _estimate(estimate: Estimate | None) -> str:
    return "" if estimate is None else str(estimate)


COMMAND = Command(FeedbackConfig, run)
