"""Over-optimisation on Sentiment-v0: proxies, best-of-n and PPO over sqrt(KL), fitted as by Gao."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlhf_gym.pipelines.studies.kept import kept
from rlhf_gym.pipelines.studies.overoptimisation_cells import (
    HELD_OUT_PAIRS,
    HELD_OUT_SEED,
    MOST_PAIRS,
    PAIR_SEED,
    POOL_PROMPTS,
    POOL_SAMPLES,
    RL,
    SIZES,
    TOKENS,
    Proxy,
    bon_cell,
    rl_cell,
    sample_pool,
    train_proxy,
    write_pairs,
)
from rlhf_gym.pipelines.studies.overoptimisation_picture import draw
from rlhf_gym.pipelines.studies.overoptimisation_report import (
    Unit,
    advice,
    bon_curves,
    course_report,
    defence_report,
    fit_report,
    fits_of,
    rl_curves,
)
from rlhf_gym.pipelines.studies.results import StudyReport, over_seeds

if TYPE_CHECKING:
    from rlhf_gym.pipelines.studies import StudyConfig

BASE = Proxy("1x16", 1500)
SINGLES = (Proxy("1x16", 500), BASE, Proxy("1x32", 1500))
ENSEMBLES = (Proxy("1x16", 1500, "minimum"), Proxy("1x16", 1500, "deviations"))
BON = ((SINGLES[0],), (BASE, Proxy("1x16", 1500, "mean"), *ENSEMBLES), (SINGLES[2],))
"""Best-of-n curves; those of one group share their reward models, which score the pool once."""
PPO_CURVES = (BASE, SINGLES[0], SINGLES[2], Proxy("1x16", 1500, kl_coef=0.1), *ENSEMBLES)

Curves = dict[str, list[dict[str, Any]]]
"""By name of the proxy, one result per seed."""


def run(config: StudyConfig) -> None:
    """Compute what is not there yet, print the tables, draw the curves."""
    folder = config.output / "overoptimisation"
    bon_cells, rl_cells = compute(folder, config.seeds)
    gold = json.loads((folder / "pool.json").read_text(encoding="utf-8"))["result"]["gold"]
    unit = Unit(float(np.mean(gold)), float(np.std(gold)))
    bon, rl = bon_curves(bon_cells, unit), rl_curves(rl_cells, unit)
    proxy_report(folder, config.seeds).publish(folder / "proxies-judged")
    bon_fits, rl_fits = fits_of(bon), fits_of(rl)
    fits = fit_report(bon_fits, rl_fits, config.seeds)
    fits.notes.append(advice(rl_fits[BASE.name], BASE.name))
    fits.publish(folder / "fits")
    course_report(rl).publish(folder / "course")
    for by, curves, fitted in (("best-of-n", bon, bon_fits), ("ppo", rl, rl_fits)):
        defences = [name for name in curves if name.startswith(f"{BASE.name}, ")]
        defence_report(curves, BASE.name, defences).publish(folder / f"defences-{by}")
        draw(curves, fitted, folder / f"{by}.png")


def proxy_report(folder: Path, seeds: int) -> StudyReport:
    """How good the reward models are on pairs that none of them has seen."""
    report = StudyReport(
        "The proxies", ["proxy", "parameters", "pairs", "share of held-out pairs that are right"]
    )
    for proxy in SINGLES:
        summaries = [
            json.loads((train_proxy(folder, proxy, seed, 0) / "summary.json").read_text())["result"]
            for seed in range(seeds)
        ]
        accuracies = [summary["accuracy"] for summary in summaries]
        report.add(proxy.name, summaries[0]["parameters"], proxy.pairs, over_seeds(accuracies))
        report.raw[proxy.name] = accuracies
    return report


def compute(folder: Path, seeds: int) -> tuple[Curves, Curves]:
    """Best-of-n and PPO curves, each seed complete before the next begins.

    Args:
        folder: of the study; what is there is not computed again.
        seeds: each has its own pairs, first weights and run of PPO.
    """
    write_pairs(folder / "pairs" / "held-out", HELD_OUT_SEED, HELD_OUT_PAIRS, HELD_OUT_SEED)
    pool = kept(
        folder / "pool.json", {"prompts": POOL_PROMPTS, "samples": POOL_SAMPLES}, sample_pool
    )
    bon: Curves = {}
    rl: Curves = {}
    for seed in range(seeds):
        write_pairs(folder / "pairs" / str(seed), PAIR_SEED + seed, MOST_PAIRS, PAIR_SEED + seed)
        for proxy in PPO_CURVES:
            rl.setdefault(proxy.name, []).append(_rl_of_seed(folder, proxy, seed))
        for name, curve in _bon_of_seed(folder, pool, seed):
            bon.setdefault(name, []).append(curve)
    return bon, rl


def _bon_of_seed(
    folder: Path, pool: dict[str, Any], seed: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, group in enumerate(BON):
        settings = {"group": [asdict(proxy) for proxy in group], "seed": seed, "sizes": SIZES}
        path = folder / "bon" / f"{number}-{seed}.json"
        yield from kept(path, settings, lambda g=group: bon_cell(folder, pool, g, seed)).items()  # type: ignore[misc]


def _rl_of_seed(folder: Path, proxy: Proxy, seed: int) -> dict[str, Any]:
    settings = {"proxy": asdict(proxy), "seed": seed, "ppo": asdict(RL), "tokens": TOKENS}
    path = folder / "rl" / f"{proxy.name.replace(', ', '-').replace(' ', '-')}-{seed}.json"
    return kept(path, settings, lambda: rl_cell(folder, proxy, seed))
