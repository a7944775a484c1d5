"""`rlhf-gym collect`: a policy answers prompts, a labeler judges, records are written.

The labelers are synthetic: they know the environment's gold reward (or its score, where there is no
gold) and err as raters do; or a language model is asked. What is written, `reward-model` reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tyro

from rlhf_gym.core.ai_config import AIConfig
from rlhf_gym.core.command import Command
from rlhf_gym.core.data import write_jsonl
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.feedback import Query, TextSegment, preference_records
from rlhf_gym.core.labelers import MODEL, TEACHERS, Labeler, make_teacher, text_rewards
from rlhf_gym.core.labels import Skip
from rlhf_gym.core.seeds import check_seed
from rlhf_gym.core.supervised.common import check_writable
from rlhf_gym.core.tokenizers import check_same_tokens
from rlhf_gym.pipelines.counting import counting
from rlhf_gym.pipelines.environment import EnvironmentConfig, make_environment

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from rlhf_gym.envs.text.vector import TextGenerationVectorEnv
    from rlhf_gym.pipelines.generation import Generation

Judge = Literal["gold", "score"]
Asked = Literal["ranking", "best", "thumb", "rating"]
Truth = Mapping[tuple[str, str], float]
"""What a response to a prompt is really worth."""


@dataclass(frozen=True)
class CollectConfig:
    """Sample completions and label them."""

    environment: Annotated[EnvironmentConfig, tyro.conf.arg(name="")] = field(
        default_factory=EnvironmentConfig
    )
    policy: str | None = None
    """Who writes: a directory or hub name; by default the environment's reference."""
    output: str = "runs/collect/feedback.jsonl"
    """File of records; .jsonl or .jsonl.gz."""
    prompts: Annotated[int, tyro.conf.arg(name="num-prompts")] = 256
    """How many prompts are answered."""
    completions: int = 2
    """Answers to each prompt; two make pairs."""
    question: Asked = "ranking"
    """What the labeler is asked: to rank the answers, to name the best, or for a thumb or a rating
    of each."""
    labeler: str = "oracle"
    """Who answers: oracle, mistake, stochastic, skip, myopic or equal (B-Pref's teachers); or
    model, a language model."""
    ai: AIConfig = field(default_factory=AIConfig)
    """The language model that answers, with --labeler model."""
    judge: Judge | None = None
    """What the labeler knows: the gold reward or the score; by default gold if there is one."""
    seed: int = 0
    """Of prompts, sampling and labeler."""
    progress: bool = True
    """Show a progress bar."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        fewest = 2 if self.question in ("ranking", "best") else 1
        for name, least in (("prompts", 1), ("completions", fewest)):
            if getattr(self, name) < least:
                raise InvalidArgument(
                    name, getattr(self, name), f"too few for a {self.question}", f"Give {least}"
                )
        known = (*TEACHERS, MODEL)
        if self.labeler not in known:
            raise InvalidArgument(
                "labeler", self.labeler, "no such labeler", f"Choose one of {', '.join(known)}"
            )
        if not self.output.endswith((".jsonl", ".jsonl.gz")):
            raise InvalidArgument(
                "output", self.output, "records are written as JSON lines", "Name a .jsonl file"
            )


@dataclass(frozen=True)
class CollectResult:
    """What was collected."""

    output: Path
    """The file."""
    completions: int
    """Responses that were sampled."""
    queries: int
    """Questions to the labeler; none about a prompt whose answers are all the same."""
    records: int
    """Records that were written; none for a question that the labeler skipped."""
    mean_score: float
    """Of the responses, by the gold reward or the score."""
    skipped: int
    """Questions without an answer; a model's, where its reply was none of the answers."""


def collect(config: CollectConfig) -> CollectResult:
    """Sample, label and write.

    Raises:
        FolderNotWritable: before any work is done.
        InvalidCheckpoint: the policy cannot be loaded.
        TokenizerMismatch: its token ids are not the environment's.
        InvalidArgument: no gold reward where one is asked for, or nothing to write with.
    """
    from rlhf_gym.pipelines.generation import draw_prompts, generate, text_task

    output = Path(config.output)
    check_writable(output.parent)
    env = make_environment(config.environment)
    task = text_task(env)
    check_judge(config.judge, task)
    model = policy_model(config.policy, task.reference, task.tokenizer)
    prompts = np.repeat(draw_prompts(task, config.prompts, config.seed), config.completions)
    with counting("collect", len(prompts), shown=config.progress) as advance:
        generations = generate(model, env, prompts, seed=config.seed, advance=advance)
    values = judged(generations, config.judge)
    truth = {(g.prompt, g.completion): v for g, v in zip(generations, values, strict=True)}
    rater = config.ai.labeler() if config.labeler == MODEL else _teacher(config, truth, values)
    answers = [
        generations[i : i + config.completions]
        for i in range(0, len(generations), config.completions)
    ]
    queries = [query for answer in answers for query in make_queries(answer, config.question)]
    provenance = {
        "labeler": rater.name,
        "policy": config.policy or "reference",
        "task": config.environment.model or config.environment.env,
    }
    labels = rater.label(queries)
    records = [r for q, a in zip(queries, labels, strict=True) for r in preference_records(q, a)]
    finished = {(g.prompt, g.completion): g.stopped for g in generations}
    count = write_jsonl(
        output, ({**r, **_evidence(r, truth, finished), **provenance} for r in records)
    )
    return CollectResult(
        output=output,
        completions=len(generations),
        queries=len(queries),
        records=count,
        mean_score=float(np.mean(values)),
        skipped=sum(isinstance(answer, Skip) for answer in labels),
    )


def _teacher(config: CollectConfig, truth: Truth, values: Sequence[float]) -> Labeler:
    return make_teacher(
        config.labeler,
        text_rewards(lambda p, c: [truth[pair] for pair in zip(p, c, strict=True)]),
        seed=config.seed,
        # A teacher's thresholds are meant for rewards whose typical size is 1.
        scale=float(np.std(values)) or 1.0,
    )


def policy_model(
    source: str | None,
    reference: nn.Module | None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> nn.Module:
    """The language model that writes: a directory or hub name, or else the reference.

    Args:
        source: which; None for the reference.
        reference: of the environment.
        tokenizer: of the environment, whose token ids the model has to mean; None is not compared.

    Raises:
        InvalidCheckpoint: it cannot be loaded.
        TokenizerMismatch: its token ids are not the environment's.
        InvalidArgument: neither is given.
    """
    if source is not None:
        from rlhf_gym.core.models import load_causal_lm

        where = "auto" if reference is None else next(reference.parameters()).device
        model = load_causal_lm(source, device=where)
        if tokenizer is not None:
            check_same_tokens("policy", source, tokenizer, model)
        return model
    if reference is None:
        raise InvalidArgument(
            "policy", None, "the environment has no reference to write with", "Add --policy DIR"
        )
    return reference


def check_judge(judge: Judge | None, task: TextGenerationVectorEnv) -> None:
    """Refuse, before anything is written, a judge that the environment does not have.

    Raises:
        InvalidArgument: `gold` is asked for, and the environment has none.
    """
    if judge == "gold" and task.gold is None:
        raise InvalidArgument(
            "judge", judge, "the environment has no gold reward", "Add --gold, or judge by score"
        )


def judged(generations: Sequence[Generation], judge: Judge | None) -> list[float]:
    """What each response is worth: its gold reward, or its score where there is no gold."""
    gold = [g.gold for g in generations if g.gold is not None]
    if judge == "score" or len(gold) < len(generations):
        return [g.score for g in generations]
    return gold


def make_queries(answers: Sequence[Generation], question: Asked) -> list[Query]:
    """What is asked about the answers to one prompt; the same answer twice is one answer."""
    segments = tuple(
        TextSegment(*pair) for pair in {(g.prompt, g.completion): None for g in answers}
    )
    if question in ("ranking", "best"):
        return [Query(segments, question)] if len(segments) > 1 else []
    return [Query((segment,), question) for segment in segments]


def label_queries(queries: Sequence[Query], labeler: Labeler) -> list[dict[str, Any]]:
    """Let a labeler answer queries about text; the records that the next stage reads."""
    labels = labeler.label(queries)
    return [
        record
        for query, label in zip(queries, labels, strict=True)
        for record in preference_records(query, label)
    ]


def _evidence(
    record: Mapping[str, Any], truth: Truth, finished: Mapping[tuple[str, str], bool]
) -> dict[str, Any]:
    """What the labeler knew of the record's responses, best first, and which of them had ended."""
    names = [name for name in ("chosen", "rejected", "completion") if name in record]
    texts = record["ranking"] if "ranking" in record else [record[name] for name in names]
    pairs = [(record["prompt"], text) for text in texts]
    return {
        "scores": [truth[pair] for pair in pairs],
        "stopped": [finished[pair] for pair in pairs],
    }


COMMAND = Command(CollectConfig, collect)
