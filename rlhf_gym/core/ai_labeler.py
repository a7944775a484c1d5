"""A language model as a rater (RLAIF): asked in both orders, and never guessed about.

Models prefer what stands first, or last. So every pair is shown in both orders: an answer that
stays with its text counts, one that stays with its place is a tie or a skip. What is not plainly
one of the answers asked for is a skip, and is counted.

Sources: Lee et al. (2023), "RLAIF: Scaling Reinforcement Learning from Human Feedback with AI
Feedback", section 2.1 (position bias, both orders); Zheng et al. (2023), "Judging LLM-as-a-Judge",
section 3.4 (a win is one in both orders).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rlhf_gym.core.ai_config import Disagreement
from rlhf_gym.core.ai_models import Writer
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.feedback import Query, TextSegment
from rlhf_gym.core.labels import Best, Label, Ranking, Rating, Skip, Thumb

Choice = Literal["A", "B", "tie"]

COMPARISON = """\
Two answers to one request are below. Choose {criterion}.

Request:
{prompt}

Answer A:
{first}

Answer B:
{second}

Reply with one letter, A or B, or with the word TIE if neither is better. Add nothing else."""

THUMB = """\
Below is an answer to a request. Say if it is good, that is, {criterion}.

Request:
{prompt}

Answer:
{first}

Reply with the word YES or the word NO. Add nothing else."""

RATING = """\
Below is an answer to a request. Rate it from 1 (worst) to 10 (best). Better is {criterion}.

Request:
{prompt}

Answer:
{first}

Reply with one whole number from 1 to 10. Add nothing else."""

_CHOICE = re.compile(r"\W*(?:(?i:answer)\W*)?(?:(?P<letter>[AB])|(?P<tie>(?i:tie)))\W*")
_THUMB = re.compile(r"\W*(yes|no)\W*", re.IGNORECASE)
_RATING = re.compile(r"(?:\s*rating:)?\s*(10|[1-9])\s*(?:/\s*10)?\s*\.?\s*", re.ASCII | re.I)


@dataclass
class Counts:
    """What happened so far.

    Attributes:
        asked: queries.
        unparsable: of these, skipped because a reply was none of the answers asked for.
        turned: of these, comparisons decided by the order of the two.
    """

    asked: int = 0
    unparsable: int = 0
    turned: int = 0


class AILabeler:
    """Answers comparisons of two, thumbs and ratings.

    Args:
        writer: replies to requests.
        criterion: what is better; completes "Choose ...".
        disagreement: what a comparison becomes that the order has decided.
        name: who it is, for provenance; the writer's by default.

    Attributes:
        counts: what happened so far.
    """

    def __init__(
        self,
        writer: Writer,
        *,
        criterion: str,
        disagreement: Disagreement = "tie",
        name: str | None = None,
    ) -> None:
        self.writer = writer
        self.criterion = criterion
        self.disagreement = disagreement
        self.name = name or f"model:{writer.name}"
        self.counts = Counts()

    def label(self, queries: Sequence[Query]) -> list[Label]:
        """Answer each query.

        Raises:
            InvalidArgument: a question that it does not answer, or a query about control.
            ModelUnavailable: no reply, after all tries.
        """
        requests = [self._requests(query) for query in queries]
        replies = iter(self.writer.reply([text for texts in requests for text in texts]))
        labels = [
            self._label(query, [next(replies) for _ in texts])
            for query, texts in zip(queries, requests, strict=True)
        ]
        self.counts.asked += len(queries)
        return labels

    def _requests(self, query: Query) -> list[str]:
        """What the model is asked: a comparison in both orders, else one question."""
        texts = [segment for segment in query.segments if isinstance(segment, TextSegment)]
        if len(texts) < len(query.segments):
            raise InvalidArgument("segments", "control", "it only reads", "Ask about text")
        form = {
            1: {"thumb": THUMB, "rating": RATING},
            2: dict.fromkeys(("ranking", "best"), COMPARISON),
        }
        template = form.get(len(texts), {}).get(query.question)
        if template is None:
            raise InvalidArgument(
                "question",
                query.question,
                f"the model is not asked this about {len(texts)} texts",
                "Ask it to compare two, for a thumb or for a rating",
            )
        orders = [texts, texts[::-1]] if len(texts) == 2 else [texts]
        # One pass over the template: braces in a text are text.
        return [
            template.format(
                criterion=self.criterion,
                prompt=order[0].prompt,
                first=order[0].completion,
                second=order[-1].completion,
            )
            for order in orders
        ]

    def _label(self, query: Query, replies: list[str]) -> Label:
        if query.question == "thumb":
            up = _THUMB.fullmatch(replies[0])
            return Thumb(up[1].lower() == "yes") if up else self._unparsable()
        if query.question == "rating":
            rated = _RATING.fullmatch(replies[0])
            return Rating(float(rated[1])) if rated else self._unparsable()
        straight, swapped = (parse_choice(reply) for reply in replies)
        if straight is None or swapped is None:
            return self._unparsable()
        back: dict[Choice, Choice] = {"A": "B", "B": "A", "tie": "tie"}
        choice = straight
        if straight != back[swapped]:
            self.counts.turned += 1
            if self.disagreement == "skip":
                return Skip("the choice changed with the order")
            choice = "tie"
        if query.question == "best":
            return Skip("a tie") if choice == "tie" else Best("AB".index(choice))
        return Ranking((1, 0) if choice == "B" else (0, 1), tie=choice == "tie")

    def _unparsable(self) -> Skip:
        self.counts.unparsable += 1
        return Skip("the reply was none of the answers")


def parse_choice(reply: str) -> Choice | None:
    """The choice in a reply that is a choice and nothing else: "B", "**A**", "Answer: B.", "tie".

    None for all others: in "A is good, but B is better" a search for letters would find an answer
    that was not given.
    """
    found = _CHOICE.fullmatch(reply)
    if found is None:
        return None
    if found["tie"]:
        return "tie"
    return "A" if found["letter"] == "A" else "B"
