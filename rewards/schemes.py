"""Reward schemes by name, and how a user writes others: `score - 0.5 * length(0.02)`.

A scheme is an expression over the terms of `rlhf_gym.rewards.registry`. `score` in it is the task's
own reward without its KL penalty, which is subtracted from every scheme that has no `kl(...)`.
Where the task is to act its own reward is `automated`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

from rlhf_gym.core.errors import InvalidArgument

Effect = Literal["no", "trade", "batch", "yes"]
"""Whether a scheme moves the optimum, as docs/reward-schemes.md defines these words."""


class Preset(NamedTuple):
    """A scheme that has a name.

    Attributes:
        expression: what it stands for.
        moves: whether its optimum is another than that of `score`.
        summary: one line for `rlhf-gym list`.
    """

    expression: str
    moves: Effect
    summary: str


PRESETS = {
    "score": Preset("score", "no", "the task's own reward, as it pays it"),
    "lump": Preset("lump(score)", "no", "all of it with the last token"),
    "spread": Preset("uniform(score)", "no", "all of it, in equal shares to all tokens"),
    "dense": Preset("dense(score)", "no", "what each token adds to the score so far"),
    "potential": Preset(
        "score + 0.5 * shaping(score)", "no", "shaping by half the score of the text so far"
    ),
    "attention": Preset("attention(score)", "no", "spread as the reward model attends"),
    "centred": Preset("centred(score, 0.5)", "no", "less a constant"),
    "scaled": Preset("0.5 * score", "trade", "half of it, at the same price of KL"),
    "clipped": Preset("clipped(score, -1, 1)", "yes", "nothing beyond -1 and 1"),
    "running": Preset("running(score)", "batch", "on the scale of all scores so far"),
    "whitened": Preset("whitened(score)", "batch", "on the scale of its batch"),
    "group": Preset("group(score)", "batch", "on the scale of the responses to its prompt"),
    "length": Preset("score - length(0.02)", "yes", "and a price for every token"),
    "missing_stop": Preset("score - missing_stop(0.5)", "yes", "and a price for not ending"),
    "repetition": Preset("score - repetition(n=2)", "yes", "and a price for repeated pairs"),
    "kl_k2": Preset("score - kl(estimator='k2')", "yes", "with KL by estimator k2"),
    "kl_k3": Preset("score - kl(estimator='k3')", "no", "with KL by estimator k3"),
    "kl_exact": Preset("score - kl(estimator='exact')", "no", "with KL over the whole vocabulary"),
    "kl_sequence": Preset("score - kl(placement='sequence')", "no", "with KL at the last token"),
    "kl_adaptive": Preset("score - kl(target=3)", "yes", "with KL steered to 3 nats a response"),
    "no_kl": Preset("score - kl(0)", "yes", "without a price of KL"),
}
"""Schemes for tasks of writing that need no argument; any term of the registry can be written."""

CONTROL_PRESETS = {
    "automated": Preset("automated", "yes", "the task's own reward, as it pays it"),
    "gold": Preset("gold", "no", "what the judge says, step by step"),
    "preferences": Preset("preferences", "yes", "learned from comparisons"),
    "mixture": Preset("preferences + 0.5 * automated", "yes", "half of what is measured on top"),
    "potential": Preset(
        "automated + shaping(preferences)", "yes", "shaping by what comparisons taught"
    ),
    "scaled": Preset("0.5 * automated", "yes", "half of it"),
    "clipped": Preset("clipped(automated, -1, 1)", "yes", "nothing beyond -1 and 1 a step"),
    "running": Preset("running(automated)", "yes", "on the scale of all returns so far"),
    "timed": Preset("automated - time(0.05)", "yes", "and a price for every step"),
}
"""Schemes for tasks of acting; whether they move the optimum is told beside that of `gold`."""


@dataclass(frozen=True)
class Scheme:
    """One scheme of a comparison.

    Attributes:
        name: its group in TensorBoard and its folder.
        expression: what is paid.
    """

    name: str
    expression: str

    @property
    def moves(self) -> Effect | None:
        """Whether it moves the optimum; None for what is no preset for tasks of writing."""
        found = [p.moves for p in PRESETS.values() if p.expression == self.expression]
        return found[0] if found else None


def parse_schemes(text: str, presets: Mapping[str, Preset] | None = None) -> tuple[Scheme, ...]:
    """Schemes from `score,whitened,short=score-length(0.05)`.

    Commas and the equals sign behind a name count outside of brackets and quotes only.

    Args:
        text: names of presets, expressions, or `name=expression`.
        presets: schemes with a name; those of tasks of writing by default.

    Raises:
        InvalidArgument: nothing, an empty entry, a name that is no folder's, or one given twice.
    """
    known = PRESETS if presets is None else presets
    schemes = [_scheme(entry, known) for entry in _split(text, ",")]
    names = [scheme.name for scheme in schemes]
    for name in names:
        if names.count(name) > 1:
            raise InvalidArgument(
                "schemes",
                text,
                f"two schemes are called {name!r}",
                "Name one of them: other=score-length(0.05)",
            )
    return tuple(schemes)


def _scheme(entry: str, presets: Mapping[str, Preset]) -> Scheme:
    name, expression = _named(entry)
    if not expression or (name is not None and not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", name)):
        raise InvalidArgument(
            "schemes",
            entry,
            "not a scheme",
            "Write a name such as whitened, or short=score-length(0.05)",
        )
    if expression in presets:
        return Scheme(name or expression, presets[expression].expression)
    # What file systems and TensorBoard's filters stumble over is left out of the folder's name.
    written = re.sub(r"[^\w.+-]+", "_", expression.replace("*", "x").replace(" ", "")).strip("_.-+")
    return Scheme(name or written, expression)


def _named(entry: str) -> tuple[str | None, str]:
    name, *rest = _split(entry, "=")
    return (name, "=".join(rest)) if rest else (None, name)


def _split(text: str, separator: str) -> list[str]:
    """Parts between separators that stand outside of brackets and quotes, blanks around cut off."""
    edges = [-1, *_outside(text, separator), len(text)]
    return [text[a + 1 : b].strip() for a, b in pairwise(edges)]


def _outside(text: str, separator: str) -> Iterator[int]:
    depth, quote = 0, ""
    for place, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif character == separator and depth == 0:
            yield place
