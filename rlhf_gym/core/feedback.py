"""What raters are shown, and what becomes of their answers, for text and control alike.

A `Segment` is a stretch of an episode, a `Query` shows segments and asks something about them, a
label (rlhf_gym.core.labels) answers it. Whoever labels (a person, a synthetic teacher, another
model), the same classes come out; `preference_records` turns them into what the reward-model stage
reads, `demonstration_records` into what SFT reads.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from rlhf_gym.core.errors import InvalidArgument, InvalidData
from rlhf_gym.core.labels import (
    Accept,
    Best,
    Choice,
    Demonstration,
    Edit,
    Flag,
    Label,
    Likert,
    Ranking,
    Rating,
    Skip,
    Thumb,
)

Question = Literal[
    "ranking", "best", "thumb", "likert", "rating", "choice", "edit", "demonstration", "review"
]
"""What a query asks; a pair is a ranking of two, a review asks whether a demonstration is good."""

_COMPARES = ("ranking", "best")


@dataclass(frozen=True)
class TextSegment:
    """A prompt and one completion of it.

    Attributes:
        prompt: what was completed; the same in all segments of a query.
        completion: the response; empty where a demonstration is asked for.
    """

    prompt: str
    completion: str


@dataclass(frozen=True, eq=False)
class ControlSegment:
    """Consecutive steps of an episode.

    Attributes:
        observations: what the agent saw before each step, shape (steps, ...).
        actions: what it did, shape (steps, ...).
        rewards: the task's own reward of each step, for synthetic teachers only, shape (steps,).
        frames: what a person is shown of each step, RGB, uint8, shape (steps, height, width, 3).

    Raises:
        InvalidData: no steps, or arrays of different lengths.
    """

    observations: NDArray[Any]
    actions: NDArray[Any]
    rewards: NDArray[np.floating] | None = None
    frames: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        arrays = (self.observations, self.actions, self.rewards, self.frames)
        lengths = {len(array) for array in arrays if array is not None}
        if len(lengths) > 1 or 0 in lengths:
            raise InvalidData(
                "segment",
                sorted(lengths),
                "arrays of these lengths",
                "Give each one entry per step",
            )

    def __len__(self) -> int:
        """Steps."""
        return len(self.actions)


Segment = TextSegment | ControlSegment


@dataclass(frozen=True)
class Query:
    """Segments, and a question about them.

    Attributes:
        segments: two or more to compare, one for every other question.
        question: what is asked.
        levels: of a Likert scale.
        choices: what a choice is between.

    Raises:
        InvalidData: too few or too many segments for the question, or of different prompts.
        InvalidArgument: an unknown question, a scale with fewer than two levels, fewer than two
            choices, or choices for another question.
    """

    segments: tuple[Segment, ...]
    question: Question = "ranking"
    levels: int = 5
    choices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.question not in get_args(Question):
            raise InvalidArgument(
                "question",
                self.question,
                "no such question",
                f"Choose one of {', '.join(get_args(Question))}",
            )
        compares = self.question in _COMPARES
        if compares != (len(self.segments) > 1) or not self.segments:
            needed = "two or more segments" if compares else "one segment"
            raise InvalidData(
                "segments",
                len(self.segments),
                f"a {self.question} is about {needed}",
                f"Show {needed}",
            )
        if self.levels < 2:
            raise InvalidArgument("levels", self.levels, "no scale", "Give 2 or more")
        if (len(set(self.choices)) > 1) != (self.question == "choice"):
            raise InvalidArgument(
                "choices",
                self.choices,
                f"they do not fit a {self.question}",
                "Give two or more different choices with question='choice', none with another",
            )
        prompts = {s.prompt if isinstance(s, TextSegment) else None for s in self.segments}
        if len(prompts) > 1:
            raise InvalidData(
                "segments",
                sorted(map(str, prompts)),
                "completions of different prompts cannot be compared",
                "Show completions of one prompt",
            )


_ANSWERS: dict[str, tuple[type, ...]] = {
    "ranking": (Ranking,),
    "best": (Best,),
    "thumb": (Thumb,),
    "likert": (Likert,),
    "rating": (Rating,),
    "choice": (Choice,),
    "edit": (Edit,),
    "demonstration": (Demonstration,),
    "review": (Accept, Edit, Flag),
}


def check_label(query: Query, label: Label) -> None:
    """Refuse a label that does not answer the query; a skip answers every query.

    Raises:
        InvalidData: a label of another kind, a segment or level that there is not, an order that
            leaves a segment out, a rating that is not finite.
    """
    if isinstance(label, Skip):
        return
    count = len(query.segments)
    problem = None
    if not isinstance(label, _ANSWERS[query.question]):
        problem = f"the query asks for a {query.question}"
    elif isinstance(label, Ranking) and sorted(label.order) != list(range(count)):
        problem = f"not an order of the segments 0 to {count - 1}"
    elif isinstance(label, Best) and not 0 <= label.index < count:
        problem = f"not one of the segments 0 to {count - 1}"
    elif isinstance(label, Likert) and not 0 <= label.level < query.levels:
        problem = f"not one of the levels 0 to {query.levels - 1}"
    elif isinstance(label, Choice) and not 0 <= label.index < len(query.choices):
        problem = f"not one of the choices 0 to {len(query.choices) - 1}"
    elif isinstance(label, Flag) and not label.reasons:
        problem = "no reason"
    elif isinstance(label, Demonstration) and not (label.completion or label.prompt):
        problem = "nothing is written"
    elif isinstance(label, Rating) and not np.isfinite(label.value):
        problem = "not a finite number"
    if problem:
        raise InvalidData("label", label, problem, "Answer what the query asks, or skip it")


def preference_records(query: Query, label: Label) -> list[dict[str, Any]]:
    """The records that the reward-model stage reads, in the columns the ecosystem uses.

    - a ranking of two: `prompt`, `chosen`, `rejected`, and `tie` if neither is better
    - a longer ranking: `prompt`, `ranking`; one in which all are equal: a tie for every pair
    - best of several: one pair for each of the others
    - a thumb: `prompt`, `completion`, `label`
    - a level or a rating: `prompt`, `completion`, `rating`; levels with a `scale` that says of how
      many, for they are no marks of another scale
    - an edit: a pair, the edited text chosen
    - any other label, and a comparison of a text with itself: none

    Args:
        query: about text.
        label: an answer to it.

    Raises:
        InvalidData: a label that does not answer the query, or a query about control, whose
            segments are arrays.
    """
    prompt, texts = _texts(query, label)
    match label:
        case Ranking(order, tie=False) if len(order) > 2:
            return [{"prompt": prompt, "ranking": [texts[i] for i in order]}]
        case Ranking(order, tie):
            records = _pairs(prompt, combinations([texts[i] for i in order], 2))
            return [{**record, "tie": True} for record in records] if tie else records
        case Best(index):
            return _pairs(prompt, ((texts[index], t) for i, t in enumerate(texts) if i != index))
        case Edit(completion):
            return _pairs(prompt, [(completion, texts[0])])
        case Thumb(up):
            return [{"prompt": prompt, "completion": texts[0], "label": up}]
        case Likert(level):
            record = {"prompt": prompt, "completion": texts[0], "rating": float(level)}
            return [{**record, "scale": f"{query.levels} levels"}]
        case Rating(value):
            return [{"prompt": prompt, "completion": texts[0], "rating": value}]
        case _:
            return []


def demonstration_records(query: Query, label: Label) -> list[dict[str, Any]]:
    """The records that SFT reads, `prompt` and `completion`: what was written, edited or accepted.

    A prompt that was written alone is no demonstration yet.

    Args:
        query: about text.
        label: an answer to it.

    Raises:
        InvalidData: as `preference_records`.
    """
    prompt, texts = _texts(query, label)
    match label:
        case Demonstration(completion, own_prompt) if completion:
            prompt = prompt if own_prompt is None else own_prompt
        case Edit(completion):
            pass
        case Accept():
            completion = texts[0]
        case _:
            return []
    return [{"prompt": prompt, "completion": completion}]


def _texts(query: Query, label: Label) -> tuple[str, list[str]]:
    """Prompt and completions of a query about text that the label answers."""
    check_label(query, label)
    segments = [segment for segment in query.segments if isinstance(segment, TextSegment)]
    if not segments:
        raise InvalidData("segments", "control", "no text", "Train on the arrays themselves")
    return segments[0].prompt, [segment.completion for segment in segments]


def _pairs(prompt: str, pairs: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    return [
        {"prompt": prompt, "chosen": chosen, "rejected": rejected}
        for chosen, rejected in pairs
        if chosen != rejected
    ]
