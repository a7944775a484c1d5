"""Queries written while raters wait: a language model answers prompts, a few ahead of them."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from rlhf_gym.core.ai_models import ModelUnavailable
from rlhf_gym.core.errors import RLHFGymError, StoreUnavailable
from rlhf_gym.core.feedback import Query, Question, TextSegment
from rlhf_gym.core.store import FeedbackStore

ATTEMPTS = 4
"""Times as many answers as are wanted are asked for, before a prompt is given up: a model may give
the same one again."""


class Writer(Protocol):
    """A language model that answers prompts.

    Attributes:
        provenance: who it is and how it is sampled.
    """

    provenance: Mapping[str, Any]

    def write(self, prompt: str, count: int, seed: int) -> list[str]:
        """Answers to a prompt, sampled.

        Args:
            prompt: the text.
            count: how many.
            seed: of the sampling.

        Raises:
            ModelUnavailable: it does not answer now.
            RLHFGymError: it cannot answer this prompt.
        """


class Feed:
    """Keeps a few unanswered queries ahead of every rater, in a thread of its own.

    Args:
        path: of the store.
        prompts: each is answered once.
        writer: who answers them.
        question: what is asked about the answers.
        completions: answers shown together, where the question compares.
        ahead: queries to have ready for a rater.
        overlap: raters for each query.
        pause: seconds between attempts while the model does not answer.

    Attributes:
        problem: why there is nothing new, or which prompt could not be answered; else None.
        finished: every prompt has been used.
    """

    def __init__(
        self,
        path: str | Path,
        prompts: Sequence[str],
        writer: Writer,
        question: Question,
        *,
        completions: int = 2,
        ahead: int = 4,
        overlap: int = 1,
        pause: float = 2.0,
    ) -> None:
        self.problem: str | None = None
        self.finished = False
        self._store = FeedbackStore(path)
        self._prompts: Iterator[tuple[int, str]] = iter(enumerate(dict.fromkeys(prompts)))
        self._writer = writer
        self._question: Question = question
        self._count = completions if question in ("ranking", "best") else 1
        self._ahead = ahead
        self._overlap = overlap
        self._pause = pause
        self._raters: set[str] = set()
        self._wanted = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)
        self._thread.start()

    def look(self, rater: str) -> None:
        """A rater is at the desk: see whether enough is ready for them."""
        self._raters.add(rater)
        self._wanted.set()

    def close(self) -> None:
        """Stop after what is being written."""
        self._stopped.set()
        self._wanted.set()
        self._thread.join()
        self._store.close()

    def _run(self) -> None:
        waiting: tuple[int, str] | None = None
        while not self._stopped.is_set():
            self._wanted.wait()
            self._wanted.clear()
            while not self._stopped.is_set() and self._short():
                waiting = waiting or next(self._prompts, None)
                if waiting is None:
                    self.finished = True
                    return
                waiting = self._use(*waiting)

    def _use(self, number: int, prompt: str) -> tuple[int, str] | None:
        """Have a prompt answered; it comes back if it is to be tried again."""
        self.problem, again = None, None
        try:
            self._add(number, prompt)
        except (ModelUnavailable, StoreUnavailable) as error:
            self.problem, again = str(error), (number, prompt)
            self._stopped.wait(self._pause)
        except RLHFGymError as error:
            # Such as a prompt that is longer than the model takes: the others are not held up.
            self.problem = f"A prompt was left out. {error}"
        except Exception as error:
            # The thread ends with its traceback on the terminal, and raters are told why.
            self.problem, self.finished = f"{type(error).__name__}: {error}", True
            raise
        return again

    def _short(self) -> bool:
        return any(self._store.progress(rater).open < self._ahead for rater in tuple(self._raters))

    def _add(self, number: int, prompt: str) -> None:
        found: dict[str, None] = {}
        for attempt in itertools.count():
            if len(found) >= self._count or attempt == ATTEMPTS:
                break
            missing = self._count - len(found)
            seed = number * ATTEMPTS + attempt
            found |= dict.fromkeys(self._writer.write(prompt, missing, seed))
        texts = list(found)[: self._count]
        if len(texts) < min(self._count, 2):
            return  # the model has one answer to this prompt, there is nothing to compare
        segments = tuple(TextSegment(prompt, text) for text in texts)
        self._store.add(
            [Query(segments, self._question)],
            overlap=self._overlap,
            provenance=self._writer.provenance,
        )
