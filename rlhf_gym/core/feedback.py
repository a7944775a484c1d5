"""What raters are shown and what they answer, for text and control alike.

A `Segment` is a stretch of an episode, a `Query` shows segments and asks something about them, a
label answers it. Whoever labels (a person, a synthetic teacher, another model), the same classes
come out, and `training_records` turns them into the records that the reward-model and SFT stages
read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from rlhf_gym.core.errors import InvalidArgument, InvalidData

Question = Literal["ranking", "best", "thumb", "likert", "rating", "edit", "demonstration"]
"""What a query asks; a pair is a ranking of two."""

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

    Raises:
        InvalidData: no steps, or arrays of different lengths.
    """

    observations: NDArray[Any]
    actions: NDArray[Any]
    rewards: NDArray[np.floating] | None = None

    def __post_init__(self) -> None:
        lengths = {len(self.observations), len(self.actions)}
        if self.rewards is not None:
            lengths.add(len(self.rewards))
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

    Raises:
        InvalidData: too few or too many segments for the question, or of different prompts.
        InvalidArgument: an unknown question, or a scale with fewer than two levels.
    """

    segments: tuple[Segment, ...]
    question: Question = "ranking"
    levels: int = 5

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
        prompts = {s.prompt if isinstance(s, TextSegment) else None for s in self.segments}
        if len(prompts) > 1:
            raise InvalidData(
                "segments",
                sorted(map(str, prompts)),
                "completions of different prompts cannot be compared",
                "Show completions of one prompt",
            )


@dataclass(frozen=True)
class Ranking:
    """The segments from best to worst; a pair is a ranking of two.

    Attributes:
        order: numbers of the segments, best first.
        tie: all of them are equally good, and the order means nothing.
    """

    order: tuple[int, ...]
    tie: bool = False


@dataclass(frozen=True)
class Best:
    """The best of several.

    Attributes:
        index: number of the segment.
    """

    index: int


@dataclass(frozen=True)
class Thumb:
    """Good or bad.

    Attributes:
        up: True for good.
    """

    up: bool


@dataclass(frozen=True)
class Likert:
    """A level on the query's scale.

    Attributes:
        level: 0 (worst) to levels - 1 (best).
    """

    level: int


@dataclass(frozen=True)
class Rating:
    """A number on a scale of the rater's own.

    Attributes:
        value: higher is better.
    """

    value: float


@dataclass(frozen=True)
class Edit:
    """The completion as it should have been.

    Attributes:
        completion: the rewritten text.
    """

    completion: str


@dataclass(frozen=True)
class Demonstration:
    """What the rater would have written.

    Attributes:
        completion: the text.
    """

    completion: str


@dataclass(frozen=True)
class Skip:
    """No answer.

    Attributes:
        reason: why, if the rater said.
    """

    reason: str = ""


Label = Ranking | Best | Thumb | Likert | Rating | Edit | Demonstration | Skip

_ANSWERS: dict[str, type] = {
    "ranking": Ranking,
    "best": Best,
    "thumb": Thumb,
    "likert": Likert,
    "rating": Rating,
    "edit": Edit,
    "demonstration": Demonstration,
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
    elif isinstance(label, Rating) and not np.isfinite(label.value):
        problem = "not a finite number"
    if problem:
        raise InvalidData("label", label, problem, "Answer what the query asks, or skip it")


def training_records(query: Query, label: Label) -> list[dict[str, Any]]:
    """The records that the next stage reads, in the columns the ecosystem uses.

    - a ranking of two: `prompt`, `chosen`, `rejected`, and `tie` if neither is better
    - a longer ranking: `prompt`, `ranking`; one in which all are equal: a tie for every pair
    - best of several: one pair for each of the others
    - a thumb: `prompt`, `completion`, `label`
    - a level or a rating: `prompt`, `completion`, `rating`
    - an edit: a pair, the edited text chosen
    - a demonstration: `prompt`, `completion`
    - a skip, and a comparison of a text with itself: none

    Args:
        query: about text.
        label: an answer to it.

    Raises:
        InvalidData: a label that does not answer the query, or a query about control, whose
            segments are arrays.
    """
    check_label(query, label)
    segments = [segment for segment in query.segments if isinstance(segment, TextSegment)]
    if not segments:
        raise InvalidData("segments", "control", "no text", "Train on the arrays themselves")
    prompt, texts = segments[0].prompt, [segment.completion for segment in segments]
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
            return [{"prompt": prompt, "completion": texts[0], "rating": float(level)}]
        case Rating(value):
            return [{"prompt": prompt, "completion": texts[0], "rating": value}]
        case Demonstration(completion):
            return [{"prompt": prompt, "completion": completion}]
        case Skip():
            return []


def _pairs(prompt: str, pairs: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    return [
        {"prompt": prompt, "chosen": chosen, "rejected": rejected}
        for chosen, rejected in pairs
        if chosen != rejected
    ]
