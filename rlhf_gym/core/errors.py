"""One exception class per mistake; each message names the field, the value and the remedy."""

from __future__ import annotations

import reprlib
from typing import Any, overload

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

    With one argument that is the whole message: so pickle makes an error anew in another process,
    and `gymnasium.make` when it adds which environment could not be made.
    """

    @overload
    def __init__(self, message: str, /) -> None: ...
    @overload
    def __init__(self, field: str, value: Any, problem: str, remedy: str) -> None: ...
    def __init__(
        self, field: str, value: Any = None, problem: str | None = None, remedy: str | None = None
    ) -> None:
        self.field = field if problem else ""
        self.value = value
        end = "" if problem and problem.endswith(("?", "!", ".")) else "."
        shown = f"{field}={_short.repr(value)}: {problem}{end} {remedy}."
        super().__init__(shown if problem else field)

    def __reduce__(self) -> tuple[Any, ...]:
        # Without the value, which may be anything: a model, a lambda that cannot be pickled.
        return type(self), self.args, {"field": self.field}


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
