"""The syntax of regular expressions: a pattern becomes a tree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rlhf_gym.core.errors import InvalidArgument

CharacterSet = Callable[[str], bool]
"""True for the characters that are in it."""

_CLASSES: dict[str, CharacterSet] = {
    "d": str.isdecimal,
    "w": lambda char: char.isalnum() or char == "_",
    "s": str.isspace,
}
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v"}


@dataclass(frozen=True)
class Characters:
    """One character of a set."""

    holds: CharacterSet


@dataclass(frozen=True)
class Sequence:
    """One part after another."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Choice:
    """One of several."""

    options: tuple[Node, ...]


@dataclass(frozen=True)
class Repeat:
    """A part `low` to `high` times; None is without end."""

    part: Node
    low: int
    high: int | None


Node = Characters | Sequence | Choice | Repeat


def parse(pattern: str) -> Node:
    """Read a pattern in the syntax of `re`, as far as that is regular.

    Characters, `.`, sets such as `[^a-z]`, `\\d \\w \\s \\D \\W \\S`, groups `( )` and `(?: )`,
    `|`, `*`, `+`, `?`, `{m}`, `{m,}`, `{,n}`, `{m,n}`. No anchors (a whole text is matched), flags,
    references, look-arounds, lazy or possessive quantifiers.

    Raises:
        InvalidArgument: anything else.
    """
    return _Parser(pattern).whole()


class _Parser:
    """Recursive descent: alternatives of sequences of repeated atoms."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0

    def whole(self) -> Node:
        node = self._choice()
        if self._peek():
            raise self._error("a ) without its (")
        return node

    def _choice(self) -> Node:
        options = [self._sequence()]
        while self._take("|"):
            options.append(self._sequence())
        return options[0] if len(options) == 1 else Choice(tuple(options))

    def _sequence(self) -> Node:
        parts = []
        while self._peek() not in ("", "|", ")"):
            parts.append(self._repeated())
        return Sequence(tuple(parts))

    def _repeated(self) -> Node:
        atom = self._atom()
        counts = self._counts()
        if counts is None:
            return atom
        if self._peek() in ("*", "+", "?", "{"):
            raise self._error("a quantifier behind a quantifier")
        return Repeat(atom, *counts)

    def _counts(self) -> tuple[int, int | None] | None:
        simple: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
        for sign, counts in simple.items():
            if self._take(sign):
                return counts
        if not self._take("{"):
            return None
        text = ""
        while not self._take("}"):
            text += self._next()
        low, comma, high = text.partition(",")
        if not all(part.isdecimal() or (comma and not part) for part in (low, high or low)):
            raise self._error(f"no counts: {{{text}}}")
        least = int(low or 0)
        most = least if not comma else int(high) if high else None
        if most is not None and most < least:
            raise self._error(f"counts in the wrong order: {{{text}}}")
        return least, most

    def _atom(self) -> Node:
        char = self._next()
        if char == "(":
            if self._take("?") and not self._take(":"):
                raise self._error("only groups ( ) and (?: ) are known")
            node = self._choice()
            if not self._take(")"):
                raise self._error("a ( without its )")
            return node
        if char == ".":
            return Characters(lambda c: c != "\n")
        if char == "[":
            return Characters(self._set())
        if char == "\\":
            return Characters(_as_set(self._escaped()))
        if char in "*+?{^$":
            raise self._error(f"{char} is no character here; write \\{char} for one")
        return Characters(char.__eq__)

    def _set(self) -> CharacterSet:
        negated = self._take("^")
        members = [self._member()]  # even if it is a ]
        while not self._take("]"):
            members.append(self._member())
        return lambda char: any(holds(char) for holds in members) is not negated

    def _member(self) -> CharacterSet:
        low = self._one()
        ahead = self._pattern[self._at : self._at + 2]
        if not ahead.startswith("-") or ahead in ("-", "-]"):
            return _as_set(low)
        self._at += 1
        high = self._one()
        if not (isinstance(low, str) and isinstance(high, str) and low <= high):
            raise self._error("no range of characters")
        return lambda char: low <= char <= high

    def _one(self) -> str | CharacterSet:
        """What one place of a set holds: a character, or a class such as `\\d`."""
        char = self._next()
        return self._escaped() if char == "\\" else char

    def _escaped(self) -> str | CharacterSet:
        char = self._next()
        if char.lower() in _CLASSES:
            holds = _CLASSES[char.lower()]
            return holds if char.islower() else lambda c: not holds(c)
        if char.isalnum() and char not in _CONTROLS:
            raise self._error(f"\\{char} is not known")
        return _CONTROLS.get(char, char)

    def _peek(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _next(self) -> str:
        if self._at >= len(self._pattern):
            raise self._error("it ends too early")
        self._at += 1
        return self._pattern[self._at - 1]

    def _take(self, sign: str) -> bool:
        """Step over a sign if it comes next."""
        found = self._peek() == sign
        self._at += found
        return found

    def _error(self, problem: str) -> InvalidArgument:
        return InvalidArgument(
            "grammar",
            self._pattern,
            f"{problem} (at character {self._at})",
            "Use characters, sets, groups, |, *, +, ?, {m,n} and \\d \\w \\s",
        )


def _as_set(one: str | CharacterSet) -> CharacterSet:
    return one.__eq__ if isinstance(one, str) else one
