"""What the page can ask for: the next query, an answer kept or taken back, a text of one's own."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlhf_gym.core.calibration import Estimate
from rlhf_gym.core.errors import InvalidArgument, InvalidData, RLHFGymError
from rlhf_gym.core.feedback import Query, TextSegment
from rlhf_gym.core.labels import Demonstration
from rlhf_gym.core.store import FeedbackStore, StoredQuery
from rlhf_gym.core.store.rater_view import label_on, latest_label, revise, standing
from rlhf_gym.pipelines.labelling.answers import read_label, read_number, read_text
from rlhf_gym.pipelines.labelling.feed import Feed
from rlhf_gym.pipelines.labelling.shown import ENVIRONMENT, shown_query, strip

Json = dict[str, Any]

LONGEST_NAME = 100
SHOWN_LAST = 8
"""Queries kept in memory; one with two clips takes some 10 MB."""
PROMPT_OVERLAP = 2
"""A prompt that was written without an answer is shown to one more rater, for the answer."""


class AnsweredAlready(RLHFGymError):
    """The rater has answered this query, perhaps in another tab; the label in force stands."""


@dataclass(frozen=True)
class PageSettings:
    """How the page looks and asks.

    Attributes:
        guidelines: what raters are told; the page's own words if empty.
        lowest: of a rating.
        highest: of a rating.
        frames_per_second: of clips.
        supervised: the task whose agent may be taught live, if any.
    """

    guidelines: str = ""
    lowest: float = 0.0
    highest: float = 10.0
    frames_per_second: float = 6.0
    supervised: str | None = None


class Desk:
    """Serves raters from a store.

    Each method is one request of the page: JSON in, JSON out. It returns when what it says is on
    the disk.

    Args:
        path: of the store.
        settings: of the page.
        feed: writes queries while raters wait; None for those of the store alone.
        timeout: seconds to wait while another process writes to the store.

    Raises:
        InvalidStore: another program's file, a damaged one, or one from a newer version.
        StoreUnavailable: it cannot be opened.
    """

    def __init__(
        self,
        path: str | Path,
        settings: PageSettings,
        feed: Feed | None = None,
        *,
        timeout: float = 5.0,
    ) -> None:
        self.settings = settings
        self.feed = feed
        self.store = FeedbackStore(path, timeout=timeout)
        # Whoever only looks does not queue behind a label on its way to the disk.
        self.view = FeedbackStore(path, timeout=timeout)
        # What was shown last, as its pictures are asked for next. Queries never change.
        self._shown: OrderedDict[int, StoredQuery] = OrderedDict()

    def close(self) -> None:
        """Close the store."""
        self.store.close()
        self.view.close()

    def begin(self, request: Mapping[str, Any]) -> Json:
        """A rater sits down: a session, the page's settings, the first query."""
        rater = _rater(request)
        client = read_text(request.get("client", ""), "client")[:200]
        session = self.store.begin_session(rater, client)
        return {"session": session, "settings": asdict(self.settings), **self.next(request)}

    def end(self, request: Mapping[str, Any]) -> Json:
        """The rater leaves."""
        self.store.end_session(read_number(request.get("session"), "session"))
        return {}

    def next(self, request: Mapping[str, Any]) -> Json:
        """The query for a rater, or why there is none."""
        rater = _rater(request)
        if self.feed is not None:
            self.feed.look(rater)
        stored = self.store.next(rater)
        if stored is not None:
            return {"query": self._keep(stored, rater)}
        writing = self.feed is not None and not self.feed.finished
        problem = self.feed.problem if self.feed is not None else None
        return {"query": None, "writing": writing, "problem": problem}

    def answer(self, request: Mapping[str, Any]) -> Json:
        """Keep a label; the next query comes with the acknowledgement.

        Raises:
            AnsweredAlready: the rater has a label on this query, and `replace` was not sent.
            InvalidData: another query has this number now, as when the page outlived its store.
        """
        query_id = read_number(request.get("query"), "query")
        rater = _rater(request)
        label = read_label(request.get("label"))
        key = request.get("key")
        if key is not None and key != self._shown_query(query_id, rater)["key"]:
            raise InvalidData("key", key, "this is no longer that query", "Reload the page")
        keep: Callable[..., int] = self.store.answer
        if request.get("replace") is True:
            keep = _revising(self.store)
        try:
            number = keep(query_id, rater, label, **_circumstances(request))
        except InvalidData:
            if label_on(self.view, query_id, rater) is None:
                raise
            raise AnsweredAlready("You have answered this one already, and that counts.") from None
        return {"label": number, **self.next(request)}

    def undo(self, request: Mapping[str, Any]) -> Json:
        """Take the rater's last label back; its query is shown again, with what was said.

        Raises:
            InvalidArgument: there is none.
        """
        rater = _rater(request)
        # Neither what was imported under this name, nor a signal to an agent.
        last = latest_label(self.view, rater, without=ENVIRONMENT)
        if last is None:
            raise InvalidArgument("undo", rater, "there is no label of yours", "Answer first")
        stored = self.store.retract(last.id, rater)
        kind = type(last.label).__name__.lower()
        return {
            "query": self._keep(stored, rater),
            "undone": {"kind": kind, **asdict(last.label)},
        }

    def write(self, request: Mapping[str, Any]) -> Json:
        """Keep a demonstration that the rater thought of: prompt and answer, or a prompt alone.

        Raises:
            InvalidData: nothing is written.
            AnsweredAlready: the rater has written an answer to this very prompt.
        """
        rater = _rater(request)
        prompt = read_text(request.get("prompt"), "prompt")
        completion = read_text(request.get("completion", ""), "completion")
        if not prompt.strip():
            raise InvalidData("prompt", prompt, "nothing is written", "Write a prompt")
        (query_id,) = self.store.add(
            [Query((TextSegment(prompt, ""),), "demonstration")],
            overlap=1 if completion else PROMPT_OVERLAP,
            provenance={"prompt": "written by a rater", "rater": rater},
        )
        label = Demonstration(completion, None if completion else prompt)
        try:
            number = self.store.answer(query_id, rater, label, **_circumstances(request))
        except InvalidData:
            if label_on(self.view, query_id, rater) is None:
                raise
            raise AnsweredAlready("You have written something for this prompt already.") from None
        return {"label": number}

    def standing(self, request: Mapping[str, Any]) -> Json:
        """A rater's progress, agreement with others, and answers to gold questions."""
        rater = _rater(request)
        progress, own = self.view.progress(rater), standing(self.view, rater)
        return {
            "labels": progress.labels,
            "skips": progress.skips,
            "open": progress.open,
            "seconds": own.seconds,
            "agreement": _estimate(own.agreement),
            "gold": _estimate(own.gold),
        }

    def clip(self, query_id: int, place: int) -> bytes:
        """The pictures of a segment, WebP.

        Raises:
            InvalidArgument: no such segment, or no pictures.
        """
        stored = self._shown.get(query_id) or self.view.query(query_id)
        if not 0 <= place < len(stored.query.segments):
            raise InvalidArgument("place", place, "no such segment", "Give one of the query's")
        return strip(stored.query.segments[place])

    def _shown_query(self, query_id: int, rater: str) -> Json:
        return shown_query(self._shown.get(query_id) or self.view.query(query_id), rater)

    def _keep(self, stored: StoredQuery, rater: str) -> Json:
        self._shown[stored.id] = stored
        if len(self._shown) > SHOWN_LAST:
            self._shown.popitem(last=False)
        return shown_query(stored, rater)


def _rater(request: Mapping[str, Any]) -> str:
    rater = read_text(request.get("rater"), "rater").strip()
    if not rater or len(rater) > LONGEST_NAME:
        raise InvalidData("rater", rater, "no name", f"Give one of 1 to {LONGEST_NAME} characters")
    return rater


def _circumstances(request: Mapping[str, Any]) -> Json:
    """Time taken, session and ticket of a label."""
    seconds, session = request.get("seconds"), request.get("session")
    if seconds is not None and (
        isinstance(seconds, bool)
        or not isinstance(seconds, int | float)
        or not 0 <= seconds < math.inf
    ):
        raise InvalidData("seconds", seconds, "no time", "Send 0 or more, or null")
    return {
        "seconds": seconds,
        "session": None if session is None else read_number(session, "session"),
        # Without one, a request that is sent again could not be told from a second answer.
        "ticket": read_text(request.get("ticket"), "ticket"),
    }


def _revising(store: FeedbackStore) -> Callable[..., int]:
    def keep(query_id: int, rater: str, label: Any, **circumstances: Any) -> int:
        return revise(store, query_id, rater, label, **circumstances)

    return keep


def _estimate(estimate: Estimate | None) -> Json | None:
    return None if estimate is None else dict(estimate._asdict())
