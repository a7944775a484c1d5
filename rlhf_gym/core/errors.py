"""One exception class per mistake; each message names the field, the value and the remedy."""

from __future__ import annotations

import reprlib
from typing import Any

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80
_short.maxlist = _short.maxtuple = 8


class RLHFGymError(Exception):
    """Base class of every error this library raises on purpose."""


class InvalidArgument(RLHFGymError, ValueError):
    """An argument, a configuration field or an input value that cannot work.

    Args:
        field: name of the argument as the user wrote it.
        value: what was given.
        problem: what is wrong with it.
        remedy: what to do instead.
    """

    def __init__(self, field: str, value: Any, problem: str, remedy: str) -> None:
        self.field = field
        self.value = value
        super().__init__(f"{field}={_short.repr(value)}: {problem}. {remedy}.")


class InvalidAction(InvalidArgument):
    """An action outside the vocabulary, or of the wrong type or shape."""


class InvalidPrompt(InvalidArgument):
    """Prompts that are missing, empty or longer than the model or the environment takes."""


class InvalidReward(InvalidArgument):
    """A reward function returned the wrong number of values, a NaN or no numbers at all."""


class InvalidData(InvalidArgument):
    """A data file without the needed column, an empty file, a malformed line."""


class TokenizerMismatch(InvalidArgument):
    """A tokenizer that does not fit the model: vocabulary, PAD or stop tokens."""


class InvalidCheckpoint(InvalidArgument):
    """A checkpoint that is truncated, foreign or made by another configuration."""


class InvalidStore(InvalidArgument):
    """A feedback store that is damaged, another program's file, or of a newer version."""


class StoreUnavailable(InvalidArgument):
    """A feedback store that cannot be opened or written now: locked, full disk, no permission."""


class FolderNotWritable(InvalidArgument):
    """The run folder cannot be written to."""


class EpisodeEnded(RLHFGymError, RuntimeError):
    """`step` was called after the episode had ended, or before the first `reset`."""


class RewardWasWrapped(RLHFGymError, RuntimeError):
    """What `step` returned is not what the environment credited to tokens."""


class NonFiniteTraining(RLHFGymError, RuntimeError):
    """A loss, gradient or parameter became NaN or infinite; training stopped before the update."""
