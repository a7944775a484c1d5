"""Queries from files and from tasks of acting, into the store before the page opens."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from rlhf_gym.core.data import PathLike, located_records
from rlhf_gym.core.errors import InvalidArgument, InvalidData
from rlhf_gym.core.feedback import ControlSegment, Query, Question, TextSegment, check_label
from rlhf_gym.core.labels import Best, Choice, Label, Likert, Ranking, Rating, Thumb
from rlhf_gym.core.preferences.encoding import Encoding
from rlhf_gym.core.store import EVERYONE, FeedbackStore
from rlhf_gym.pipelines.labelling.supervision import (
    allowed_actions,
    kept_observation,
    make_supervised,
)

SCORED = ("ranking", "best", "thumb", "likert", "rating", "choice")
"""Questions with an answer that can be right."""


class AddedQueries(NamedTuple):
    """What came out of a file.

    Attributes:
        queries: in the file.
        gold: of these, with the right answer.
        problems: what is wrong with each record that was left out.
    """

    queries: int
    gold: int
    problems: list[InvalidData]


def add_queries(
    store: FeedbackStore, path: PathLike, *, question: Question | None = None, overlap: int = 1
) -> AddedQueries:
    """Read queries from a file: prompts, and completions to judge.

    Columns: `prompt`; `completions` (a list), or `chosen` and `rejected`, or `ranking`, or
    `completion`, or none for a demonstration; and, if wanted, `question`, `levels`, `choices`,
    `gold` (the right answer), `overlap`. A label that is in the file is not shown.

    Args:
        store: where to.
        path: a file or folder, as `read_records` takes it.
        question: what is asked where the record does not say; by default a ranking of several
            texts, a thumb for one, a demonstration where there is a prompt alone.
        overlap: raters for each query; gold questions are for everyone.

    Raises:
        InvalidData: no such path, or not one record of it can be read.
    """
    problems: list[InvalidData] = []
    source = os.fspath(path)
    count = golden = 0
    for where, record in located_records(path, malformed=problems):
        try:
            query = query_of(record, where, question)
            gold = gold_of(query, record.get("gold"), where)
            wanted = record.get("overlap") or (EVERYONE if gold is not None else overlap)
            if isinstance(wanted, bool) or not isinstance(wanted, int):
                raise InvalidData("overlap", wanted, f"{where}: not a count", "Give 1 or more")
            details = {"source": os.path.basename(source), "where": where}
            store.add([query], overlap=wanted, gold=[gold], provenance=details)
        except InvalidArgument as error:
            if not isinstance(error, InvalidData) or where not in str(error):
                error = InvalidData("record", where, str(error).rstrip("."), "Correct it")
            problems.append(error)
            continue
        count += 1
        golden += gold is not None
    if not count:
        first = str(problems[0]).rstrip(".") if problems else "it is empty"
        raise InvalidData("path", source, f"no query could be read: {first}", "See the columns")
    return AddedQueries(count, golden, problems)


def query_of(record: Mapping[str, Any], where: str, question: Question | None = None) -> Query:
    """One record as a query.

    Args:
        record: see `add_queries`.
        where: where it stands, for messages.
        question: what is asked where the record does not say.

    Raises:
        InvalidData: no text where one is needed, or a number of texts that does not fit.
        InvalidArgument: an unknown question, or a scale that is none.
    """
    prompt = record.get("prompt")
    texts = _texts(record)
    if not isinstance(prompt, str) or not all(isinstance(text, str) for text in texts):
        raise InvalidData("record", dict(record), f"{where}: not texts", "Give strings")
    usual: Question = "demonstration" if not texts else "thumb" if len(texts) == 1 else "ranking"
    asked: Question = record.get("question") or question or usual
    segments = tuple(TextSegment(prompt, text) for text in dict.fromkeys(texts or [""]))
    levels = record.get("levels") or 5
    if isinstance(levels, bool) or not isinstance(levels, int):
        raise InvalidData("levels", levels, f"{where}: not a number of levels", "Give such as 5")
    choices = tuple(record.get("choices") or ())
    if not all(isinstance(choice, str) for choice in choices):
        raise InvalidData("choices", choices, f"{where}: not texts", "Give strings")
    return Query(segments, asked, levels, choices)


def gold_of(query: Query, answer: Any, where: str) -> Label | None:
    """The right answer, in short: an order or its first, a number, true or false.

    Args:
        query: what it answers.
        answer: a list of places, best first, or the best one's place, for a ranking; a place for
            best; a number for likert (from 0), rating and choice; true or false for a thumb.
        where: where it stands, for messages.

    Raises:
        InvalidData: it does not answer the query.
    """
    if answer is None:
        return None
    label: Label | None = None
    is_number = isinstance(answer, int | float) and not isinstance(answer, bool)
    match query.question:
        case "ranking" if isinstance(answer, list | tuple | np.ndarray):
            label = Ranking(tuple(answer))
        case "ranking" if is_number and len(query.segments) == 2:
            label = Ranking((answer, 1 - answer))
        case "best" if is_number:
            label = Best(answer)
        case "likert" if is_number:
            label = Likert(answer)
        case "choice" if is_number:
            label = Choice(answer)
        case "rating" if is_number:
            label = Rating(float(answer))
        case "thumb" if isinstance(answer, bool):
            label = Thumb(answer)
    if label is None:
        raise InvalidData(
            "gold", answer, f"{where}: it does not answer a {query.question}", "Correct it"
        )
    check_label(query, label)
    return label


def add_prompts(store: FeedbackStore, prompts: Sequence[str], overlap: int = 1) -> int:
    """Ask for a demonstration of each prompt; returns how many queries there are."""
    queries = [Query((TextSegment(prompt, ""),), "demonstration") for prompt in prompts]
    return len(store.add(queries, overlap=overlap))


def add_clips(
    store: FeedbackStore, env_id: str, pairs: int, length: int, *, seed: int = 0, overlap: int = 1
) -> int:
    """Pairs of clips of random behaviour in a task, to be compared.

    Args:
        store: where to.
        env_id: the task; it must draw rgb_array.
        pairs: how many.
        length: steps of each clip; one that ends earlier is shorter.
        seed: of the episodes and the actions.
        overlap: raters for each query.

    Raises:
        InvalidArgument: no such task, one that cannot be shown, or no length.
    """
    if pairs < 1 or length < 1:
        raise InvalidArgument("clips", (pairs, length), "nothing to show", "Give 1 or more")
    env = make_supervised(env_id)
    rng = np.random.default_rng(seed)
    clips = [_clip(env, length, rng) for _ in range(2 * pairs)]
    env.close()
    queries = [Query((clips[2 * pair], clips[2 * pair + 1])) for pair in range(pairs)]
    details = {"environment": env_id, "policy": "random", "seed": seed}
    return len(store.add(queries, overlap=overlap, provenance=details))


def _clip(env: gym.Env[Any, Any], length: int, rng: np.random.Generator) -> ControlSegment:
    encoding = Encoding(env.observation_space, env.action_space)
    observation, _ = env.reset(seed=int(rng.integers(2**31)))
    env.action_space.seed(int(rng.integers(2**31)))
    observations, actions, frames, rewards = [], [], [], []
    for _ in range(length):
        allowed = allowed_actions(env)
        action = env.action_space.sample()
        if allowed is not None:
            action = rng.choice(np.flatnonzero(allowed))
        observations.append(kept_observation(encoding, observation))
        actions.append(np.asarray(action))
        observation, reward, terminated, truncated, info = env.step(action)
        # What the action did is what a rater judges.
        frames.append(np.asarray(env.render(), np.uint8))
        rewards.append(float(info.get("gold_reward", reward)))
        if terminated or truncated:
            break
    return ControlSegment(
        np.stack(observations),
        encoding.actions(np.stack(actions)),
        np.array(rewards),
        np.stack(frames),
    )


def _texts(record: Mapping[str, Any]) -> list[Any]:
    """Completions of a record, in whichever columns they are."""
    for column in ("completions", "ranking"):
        if record.get(column) is not None:
            return list(record[column])
    if "chosen" in record:
        return [record["chosen"], record.get("rejected")]
    return [] if record.get("completion") is None else [record["completion"]]
