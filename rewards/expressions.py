"""The little language of schemes: names, calls, numbers, `+`, `-` and `*`; nothing is executed."""

from __future__ import annotations

import ast
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any

from rlhf_gym.core.errors import InvalidArgument, RLHFGymError

_OPERATIONS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
}


class Evaluator(ABC):
    """Evaluates an expression; a subclass says what its names mean."""

    @abstractmethod
    def make(self, name: str, args: list[Any], named: dict[str, Any]) -> Any:
        """What a name means, alone (without arguments) or called.

        Raises:
            InvalidArgument: no such name, see `unknown`.
            TypeError, ValueError, AttributeError: arguments that it does not take.
        """

    def read(self, expression: str) -> Any:
        """The value of an expression.

        Raises:
            InvalidArgument: not of this language, or with arguments that a name does not take.
        """
        try:
            return self._value(ast.parse(expression, mode="eval").body)
        except SyntaxError as error:
            raise refused(expression, f"not an expression ({error.msg})") from error

    def _value(self, node: ast.expr) -> Any:
        match node:
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATIONS:
                try:
                    return _OPERATIONS[type(op)](self._value(left), self._value(right))
                except TypeError as error:
                    raise refused(ast.unparse(node), str(error)) from error
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self._value(operand)
            case ast.Name(id=name):
                return self._made(name, [], {})
            case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords):
                named = {str(keyword.arg): self._value(keyword.value) for keyword in keywords}
                return self._made(name, [self._value(argument) for argument in args], named)
            case ast.List(elts=elements) | ast.Tuple(elts=elements):
                return [self._value(element) for element in elements]
            case ast.Constant() | ast.Dict():
                return ast.literal_eval(node)
        raise refused(ast.unparse(node), "more than a scheme can say")

    def _made(self, name: str, args: list[Any], named: dict[str, Any]) -> Any:
        try:
            return self.make(name, args, named)
        except RLHFGymError:
            raise
        except (TypeError, ValueError, AttributeError) as error:
            written = f"{name}({', '.join(map(repr, args))})" if args else name
            raise refused(written, str(error)) from error


def unknown(name: str, known: Iterable[str], other: Iterable[str], kind: str) -> InvalidArgument:
    """The error for a name that means nothing here.

    Args:
        name: of a term or scheme.
        known: names that do.
        other: names of the other kind of task.
        kind: of task that `other` is for: "writing" or "acting".
    """
    if name in other:
        return refused(name, f"it is for tasks of {kind} only")
    near = get_close_matches(name, list(known), n=1)
    return refused(name, "no such term" + (f"; did you mean {near[0]!r}?" if near else ""))


def refused(expression: str, problem: str) -> InvalidArgument:
    """The error for an expression that is no scheme."""
    return InvalidArgument(
        "schemes", expression, problem, "`rlhf-gym list` shows the terms and schemes"
    )
