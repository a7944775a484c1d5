"""What a rater may answer: one small class per kind of label.

Numbers of segments are places in the query's own order, however a page arranged them on the screen.
"""

from __future__ import annotations

from dataclasses import dataclass


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
class Choice:
    """One of the query's choices, such as "polite" or "rude".

    Attributes:
        index: number of the choice.
    """

    index: int


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
        completion: the text; empty where a prompt alone was written.
        prompt: the prompt, where the rater wrote it too; None for the query's own.
    """

    completion: str
    prompt: str | None = None


@dataclass(frozen=True)
class Accept:
    """A demonstration under review is good as it is."""


@dataclass(frozen=True)
class Flag:
    """A demonstration under review must not be used.

    Attributes:
        reasons: such as "inaccurate", "toxic", "biased"; one at least.
    """

    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Skip:
    """No answer.

    Attributes:
        reason: why, if the rater said.
    """

    reason: str = ""


Label = (
    Ranking | Best | Thumb | Likert | Rating | Choice | Edit | Demonstration | Accept | Flag | Skip
)
