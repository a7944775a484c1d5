"""An experiment as it lies on disk: one folder for each scheme and seed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from rlhf_gym.core.errors import InvalidArgument, InvalidData
from rlhf_gym.core.supervised.common import check_writable, write_json
from rlhf_gym.pipelines.experiments.claims import claim, holder
from rlhf_gym.pipelines.experiments.config import CompareConfig
from rlhf_gym.rewards.schemes import Scheme

EXPERIMENT, SUMMARY, CONFIG = "experiment.json", "summary.json", "config.json"
PROGRESS, CLAIM, FAILURE = "progress.json", ".claim", "failure.txt"
SAMPLES, TRAINING = "samples.jsonl", "training"
PATIENCE = 10.0
"""Seconds to wait for another process that is opening the same experiment."""


@dataclass(frozen=True)
class Cell:
    """One scheme with one seed.

    Attributes:
        scheme: what is paid.
        seed: of everything.
        folder: where it lives.
    """

    scheme: Scheme
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        """As TensorBoard shows it."""
        return f"{self.scheme.name}/{self.folder.name}"

    @property
    def claim_file(self) -> Path:
        """Locked by the process that works on it."""
        return self.folder / CLAIM

    @property
    def is_done(self) -> bool:
        """Whether its summary, which is written last, is there."""
        return (self.folder / SUMMARY).is_file()

    @property
    def is_running(self) -> bool:
        """Whether some process of this machine seems to work on it."""
        return not self.is_done and holder(self.claim_file) is not None

    def read(self, name: str) -> dict[str, Any]:
        """One of its JSON files, empty if it is not there."""
        try:
            return dict(json.loads((self.folder / name).read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return {}

    @property
    def metrics(self) -> dict[str, float]:
        """What it was judged to be, empty while it is not done; what is unknown is left out."""
        found = self.read(SUMMARY).get("metrics", {})
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True)
class Experiment:
    """A folder of cells.

    Attributes:
        folder: the experiment's.
        settings: what all cells have in common.
        schemes: what is compared, in order.
        seeds: of each scheme.
    """

    folder: Path
    settings: Mapping[str, Any]
    schemes: Sequence[Scheme]
    seeds: Sequence[int]

    @cached_property
    def cells(self) -> list[Cell]:
        """All cells, seed by seed, so that a part of them is a comparison already."""
        return [self.cell(scheme, seed) for seed in self.seeds for scheme in self.schemes]

    def cell(self, scheme: Scheme, seed: int) -> Cell:
        """One of them."""
        return Cell(scheme, seed, self.folder / scheme.name / f"seed-{seed}")

    @property
    def is_control(self) -> bool:
        """Whether the task is one of acting."""
        return "teaching" in self.settings

    @classmethod
    def open(cls, config: CompareConfig) -> Self:
        """Begin an experiment, or go on with one of the same settings.

        More schemes and more seeds may join later.

        Raises:
            FolderNotWritable: before any work is done.
            InvalidArgument: the folder holds an experiment with other settings, or another scheme
                of the same name.
        """
        folder, settings = config.folder, config.settings()
        check_writable(folder)
        waited_until = time.monotonic() + PATIENCE
        while True:
            with claim(folder / CLAIM) as mine:
                if mine:
                    return cls._opened(folder, settings, config)
            if time.monotonic() > waited_until:
                raise InvalidArgument(
                    "output", os.fspath(folder), "another process is opening it", "Try again"
                )
            time.sleep(0.05)

    @classmethod
    def _opened(cls, folder: Path, settings: dict[str, Any], config: CompareConfig) -> Self:
        schemes, seeds = config.parsed_schemes(), range(config.seeds)
        wanted = [config.first_seed + number for number in seeds]
        expressions = {scheme.name: scheme.expression for scheme in schemes}
        known: dict[str, Any] = {"settings": settings, "schemes": {}, "seeds": []}
        if (folder / EXPERIMENT).is_file():
            known = _read(folder)
        _refuse_other(folder, known["settings"], settings)
        _refuse_other(folder, known["schemes"], {**known["schemes"], **expressions})
        record = {
            "settings": settings,
            "schemes": {**known["schemes"], **expressions},
            "seeds": sorted({*known["seeds"], *wanted}),
        }
        write_json(folder / EXPERIMENT, record)
        return cls(folder, settings, schemes, wanted)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """An experiment as it was begun, all schemes and seeds that were ever asked for.

        Raises:
            InvalidData: there is none in the folder.
        """
        known = _read(folder)
        schemes = [Scheme(name, expression) for name, expression in known["schemes"].items()]
        return cls(folder, known["settings"], schemes, known["seeds"])


def _read(folder: Path) -> dict[str, Any]:
    try:
        known = json.loads((folder / EXPERIMENT).read_text(encoding="utf-8"))
        return {name: known[name] for name in ("settings", "schemes", "seeds")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidData(
            "experiment",
            os.fspath(folder),
            f"there is no experiment in it ({type(error).__name__})",
            "Give the folder that `rlhf-gym compare` wrote to",
        ) from error


def _refuse_other(folder: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    changed = [
        f"{name} from {old.get(name)!r} to {new.get(name)!r}"
        for name in {**old, **new}
        if name in old and old.get(name) != new.get(name)
    ]
    if changed:
        raise InvalidArgument(
            "output",
            os.fspath(folder),
            f"it holds an experiment of other settings; changed: {', '.join(changed)}",
            "Give another --output, or the settings as they were",
        )
