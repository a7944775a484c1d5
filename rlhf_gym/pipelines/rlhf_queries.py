"""What to ask in a round: responses of the policy and its ancestors, the pairs worth a label."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor, nn

from rlhf_gym.core.feedback import Query, TextSegment
from rlhf_gym.core.models import load_reward_model, load_tokenizer
from rlhf_gym.core.preferences.selection import Candidates, Selection
from rlhf_gym.core.supervised.preference_data import Judgement, encode
from rlhf_gym.core.supervised.reward_evaluation import score_sequences
from rlhf_gym.pipelines.collect import make_queries
from rlhf_gym.pipelines.generation import Generation, draw_prompts, generate, text_task


@dataclass(frozen=True)
class Sampled:
    """Responses, several to each prompt.

    Attributes:
        generations: those to one prompt next to each other.
        writers: who wrote each, shape (responses,): 0 for the reference, then round by round.
    """

    generations: list[Generation]
    writers: list[int]


def sample(
    writers: Sequence[nn.Module],
    env: VectorEnv[Any, Any, Any],
    *,
    prompts: int,
    completions: int,
    seed: int,
    ancestors: bool = True,
) -> Sampled:
    """Let the newest policy answer, beside itself or an ancestor.

    The first response to a prompt is the newest policy's; who writes each other one is drawn, all
    with equal chance, so that the reward model also knows what the policy has moved away from.

    Args:
        writers: language models from the reference to the newest policy.
        env: a text environment.
        prompts: how many are answered.
        completions: responses to each.
        seed: of prompts, writers and sampling.
        ancestors: without them the newest policy writes all, and the labels are about what it still
            has to choose between.

    Source: Bai et al. (2022), "Training a Helpful and Harmless Assistant with RLHF", section 4.5,
        whose online data come from several snapshots too.
    """
    indices = np.repeat(draw_prompts(text_task(env), prompts, seed), completions)
    rng = np.random.default_rng(seed)
    oldest = 0 if ancestors else len(writers) - 1
    drawn = rng.integers(oldest, len(writers), size=(prompts, completions))
    drawn[:, 0] = len(writers) - 1
    by = drawn.ravel()
    generations: list[Generation | None] = [None] * len(by)
    for number, writer in enumerate(writers):
        rows = np.flatnonzero(by == number)
        if len(rows):
            written = generate(writer, env, indices[rows], seed=seed + number)
            for row, generation in zip(rows.tolist(), written, strict=True):
                generations[row] = generation
    return Sampled([one for one in generations if one is not None], by.tolist())


def candidates(
    sampled: Sampled, completions: int, known: set[frozenset[TextSegment]]
) -> list[Query]:
    """One query for each prompt, but none of equal responses, and none that was asked before.

    Args:
        sampled: the responses.
        completions: responses to each prompt.
        known: segments of every query that was asked.
    """
    groups = [
        sampled.generations[i : i + completions]
        for i in range(0, len(sampled.generations), completions)
    ]
    found: dict[frozenset[TextSegment], Query] = {}
    for query in (query for group in groups for query in make_queries(group, "ranking")):
        segments = frozenset(s for s in query.segments if isinstance(s, TextSegment))
        if segments not in known:
            found.setdefault(segments, query)
    return list(found.values())


def select(
    queries: Sequence[Query], members: Sequence[Path], method: str, count: int, seed: int
) -> list[Query]:
    """The queries that are asked.

    Args:
        queries: those one might ask.
        members: folders of the reward models of the round before; without any the choice is
            uniform, for there is nobody to disagree.
        method: a name of `Selection`.
        count: how many to ask; all if there are fewer.
        seed: of a choice by chance.
    """
    wanted = min(count, len(queries))
    generator = torch.Generator().manual_seed(seed)
    if not members or method == "uniform":
        order = torch.randperm(len(queries), generator=generator)[:wanted]
    else:
        probabilities = first_is_better([pair_margins(path, queries) for path in members])
        nothing = torch.zeros(len(queries), 0)
        offered = Candidates(probabilities, nothing, nothing[:0])
        order = Selection(method).choose(offered, wanted, generator)
    return [queries[index] for index in order.tolist()]


def first_is_better(margins: Sequence[Tensor]) -> Tensor:
    """Members' probabilities, shape (members, pairs), from their margins in nats."""
    return torch.sigmoid(torch.stack(list(margins)))


def pair_margins(folder: Path, queries: Sequence[Query]) -> Tensor:
    """How far a reward model puts the first of each pair above the second, in nats.

    Args:
        folder: of the reward-model stage, whose summary knows the scale it was trained on.
        queries: pairs.

    Returns:
        Shape (pairs,).
    """
    model, tokenizer = load_reward_model(folder), load_tokenizer(folder)
    model.eval()  # type: ignore[no-untyped-call]
    pairs = [[s for s in query.segments if isinstance(s, TextSegment)] for query in queries]
    judged = [
        Judgement("comparison", pair[0].prompt, tuple(s.completion for s in pair)) for pair in pairs
    ]
    sequences = [ids for example in encode(judged, tokenizer) for ids in example.sequences]
    scores = score_sequences(model, sequences, int(tokenizer.pad_token_id or 0)).reshape(-1, 2)
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return (scores[:, 0] - scores[:, 1]) * float(summary["result"]["score_std"])
