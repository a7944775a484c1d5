"""`rlhf-gym evaluate`: a policy beside its reference, on the same prompts.

Reward and gold score, KL to the reference, perplexity under it, variety, length, endings, and how
often the policy's response is judged better; each mean with its 95 % interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro
from gymnasium.vector import VectorEnv

from rlhf_gym.core.calibration import Estimate, mean_interval
from rlhf_gym.core.command import Command
from rlhf_gym.core.data import write_jsonl
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.seeds import check_seed
from rlhf_gym.core.supervised.common import check_writable, write_json
from rlhf_gym.pipelines.collect import Judge, check_judge, judged, policy_model
from rlhf_gym.pipelines.counting import counting
from rlhf_gym.pipelines.environment import EnvironmentConfig, make_environment
from rlhf_gym.pipelines.text_metrics import (
    distinct_n,
    duplicates,
    finish_shares,
    repetition,
    win_rate,
)

if TYPE_CHECKING:
    from torch import nn

    from rlhf_gym.pipelines.generation import Generation


@dataclass(frozen=True)
class EvaluateConfig:
    """Judge a policy beside its reference."""

    environment: Annotated[EnvironmentConfig, tyro.conf.arg(name="")] = field(
        default_factory=EnvironmentConfig
    )
    policy: str | None = None
    """The policy: a directory or hub name; by default the environment's reference itself."""
    output: str = "runs/evaluate"
    """Folder of summary.json, samples.jsonl and samples.md."""
    episodes: int = 256
    """Responses of policy and reference each; prompts are drawn at random, each once if it can."""
    judge: Judge | None = None
    """What decides who wins: the gold reward or the score; by default gold if there is one."""
    deterministic: bool = False
    """Take the most probable token instead of sampling."""
    examples: int = 16
    """Prompts in the table of samples."""
    seed: int = 0
    """Of prompts and sampling."""
    progress: bool = True
    """Show a progress bar."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        for name, least in (("episodes", 1), ("examples", 0)):
            if getattr(self, name) < least:
                raise InvalidArgument(name, getattr(self, name), "too few", f"Give {least} or more")


@dataclass(frozen=True)
class TextReport:
    """What a policy writes, in numbers; estimates are (value, low, high) with 95 % intervals.

    Attributes:
        score: mean of the environment's reward without the KL penalty.
        gold: mean of the gold reward; None if there is none.
        terms: mean of each reward term by name, weights applied.
        kl: KL to the reference of a response in nats, from samples; None without a reference.
        perplexity: of the responses under the reference, a token; None without a reference.
        length: mean tokens of a response, the stop token included.
        finish: share of each finish reason.
        distinct: share of different n-grams by n; falls with the number of responses.
        repetition: share of 4-grams that the same response had before.
        duplicates: share of responses that repeat another one.
    """

    score: Estimate
    gold: Estimate | None
    terms: dict[str, float]
    kl: Estimate | None
    perplexity: float | None
    length: Estimate
    finish: dict[str, float]
    distinct: dict[int, float]
    repetition: float
    duplicates: float


@dataclass(frozen=True)
class Evaluation:
    """A policy beside its reference.

    Attributes:
        policy: what the policy writes.
        reference: what the reference writes to the same prompts; None if there is none.
        win_rate: how often the policy's response is judged better, ties half; None likewise.
        samples: the policy's responses.
        reference_samples: the reference's, in the same order.
    """

    policy: TextReport
    reference: TextReport | None
    win_rate: Estimate | None
    samples: list[Generation]
    reference_samples: list[Generation]


def evaluate(config: EvaluateConfig) -> Evaluation:
    """Evaluate and write `summary.json`, `samples.jsonl`, `samples.md`.

    Raises:
        FolderNotWritable: before any work is done.
        InvalidCheckpoint: the policy cannot be loaded.
        TokenizerMismatch: its token ids are not the environment's.
        InvalidArgument: no gold reward where one is asked for, or no policy at all.
    """
    from rlhf_gym.pipelines.generation import text_task

    folder = Path(config.output)
    check_writable(folder)
    env = make_environment(config.environment)
    task = text_task(env)
    model = policy_model(config.policy, task.reference, task.tokenizer)
    evaluation = evaluate_policy(
        model,
        env,
        episodes=config.episodes,
        judge=config.judge,
        deterministic=config.deterministic,
        seed=config.seed,
        progress=config.progress,
    )
    summary = {"policy": evaluation.policy, "reference": evaluation.reference}
    write_json(
        folder / "summary.json",
        {"config": asdict(config), **summary, "win_rate": evaluation.win_rate},
    )
    write_jsonl(folder / "samples.jsonl", _sample_rows(evaluation))
    (folder / "samples.md").write_text(sample_table(evaluation, config.examples), encoding="utf-8")
    return evaluation


def evaluate_policy(
    model: nn.Module,
    env: VectorEnv[Any, Any, Any],
    *,
    episodes: int = 256,
    judge: Judge | None = None,
    deterministic: bool = False,
    seed: int = 0,
    progress: bool = False,
) -> Evaluation:
    """Evaluate a language model in an environment.

    Args:
        model: a Hugging Face causal language model; of an LM agent `agent.policy.model`.
        env: a text environment; its reference answers the same prompts.
        episodes: responses of each.
        judge: what decides who wins; the gold reward if there is one, else the score.
        deterministic: take the most probable token instead of sampling.
        seed: of prompts and sampling; the two models draw from generators of the same seed.
        progress: show a bar of the responses of both.

    Raises:
        InvalidArgument: no gold reward where one is asked for.
    """
    from rlhf_gym.pipelines.generation import draw_prompts, generate, text_task

    task = text_task(env)
    check_judge(judge, task)
    prompts = draw_prompts(task, episodes, seed)
    writers = [model]
    if task.reference is not None and task.reference is not model:
        writers.append(task.reference)
    with counting("evaluate", len(writers) * len(prompts), shown=progress) as advance:
        written = [
            generate(writer, env, prompts, seed=seed, deterministic=deterministic, advance=advance)
            for writer in writers
        ]
    samples, others = written[0], written[-1]
    values = judged(samples, judge)
    if task.reference is None:
        return Evaluation(describe(samples), None, None, samples, [])
    return Evaluation(
        policy=describe(samples),
        reference=describe(others),
        win_rate=win_rate(values, judged(others, judge)),
        samples=samples,
        reference_samples=others,
    )


def describe(samples: Sequence[Generation]) -> TextReport:
    """All numbers about some responses."""
    tokens = [sample.tokens for sample in samples]
    gold = [sample.gold for sample in samples if sample.gold is not None]
    kl = [sample.kl for sample in samples if sample.kl is not None]
    names = samples[0].terms
    return TextReport(
        score=mean_interval([sample.score for sample in samples]),
        gold=mean_interval(gold) if gold else None,
        terms={name: float(np.mean([s.terms[name] for s in samples])) for name in names},
        kl=mean_interval(kl) if kl else None,
        perplexity=_reference_perplexity(samples) if len(kl) == len(samples) else None,
        length=mean_interval([sample.length for sample in samples]),
        finish=finish_shares(sample.finish_reason for sample in samples),
        distinct={n: distinct_n(tokens, n) for n in (1, 2, 3)},
        repetition=repetition(tokens),
        duplicates=duplicates(tokens),
    )


def _reference_perplexity(samples: Sequence[Generation]) -> float:
    """Perplexity a token of responses under the reference.

    log pi_ref of a response is log pi minus its log-ratio: no pass of the reference is needed.
    """
    nats = sum((sample.kl or 0.0) - sample.log_prob for sample in samples)
    return math.exp(min(nats / sum(sample.length for sample in samples), 700.0))


def sample_table(evaluation: Evaluation, count: int) -> str:
    """The first responses as a Markdown table, the reference's beside them."""
    rows = list(_sample_rows(evaluation))[:count]
    beside = bool(evaluation.reference_samples)
    header = ["prompt", *(["reference"] if beside else []), "policy", "score", "gold", "kl"]
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    for row in rows:
        reference = [markdown_cell(row["reference"]["completion"])] if beside else []
        numbers = [f"{row[name]:z.2f}" if name in row else "" for name in ("score", "gold", "kl")]
        cells = [
            markdown_cell(row["prompt"]),
            *reference,
            markdown_cell(row["completion"]),
            *numbers,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _sample_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    rows = [sample.record() for sample in evaluation.samples]
    for row, other in zip(rows, evaluation.reference_samples, strict=False):
        row["reference"] = other.record()
    return rows


def markdown_cell(text: str) -> str:
    """A text that cannot break a Markdown table, nor be taken for its markup."""
    escaped = "".join("\\" + c if c in "|\\`*_<[" else c for c in text)
    return " ".join(escaped.split()) or "&nbsp;"


def show(config: EvaluateConfig) -> None:
    """Evaluate and print policy and reference side by side."""
    from rich.console import Console
    from rich.table import Table

    evaluation = evaluate(config)
    table = Table(title="rlhf-gym evaluate", caption=f"samples: {config.output}/samples.md")
    table.add_column("")
    table.add_column("policy")
    policy = _lines(evaluation.policy)
    reference = {} if evaluation.reference is None else _lines(evaluation.reference)
    if reference:
        table.add_column("reference")
    for name, value in policy.items():
        table.add_row(name, value, *([reference.get(name, "")] if reference else []))
    if evaluation.win_rate is not None:
        table.add_row("win rate", str(evaluation.win_rate))
    Console().print(table)


def _lines(report: TextReport) -> dict[str, str]:
    lines = {"score": str(report.score), "gold score": str(report.gold or "")}
    lines |= {f"reward: {name}": f"{value:z.3f}" for name, value in report.terms.items()}
    lines["KL to the reference, nats"] = str(report.kl or "")
    if report.perplexity is not None:
        lines["perplexity under the reference"] = f"{report.perplexity:.2f}"
    lines["length, tokens"] = str(report.length)
    lines |= {f"ended by {reason}": f"{share:.1%}" for reason, share in report.finish.items()}
    lines |= {f"distinct {n}-grams": f"{share:.3f}" for n, share in report.distinct.items()}
    lines["repeated 4-grams"] = f"{report.repetition:.3f}"
    lines["duplicate responses"] = f"{report.duplicates:.1%}"
    return {name: value for name, value in lines.items() if value}


COMMAND = Command(EvaluateConfig, show)
