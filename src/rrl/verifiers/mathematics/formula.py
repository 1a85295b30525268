r"""Reads one written formula, whole or not at all, as a sympy expression.

The grammar is that of final answers: sums, products with and without a sign, quotients, powers, roots, absolute values,
named functions, mixed numbers, repeating decimals. Text that fits it only in part, or in two ways (``1/2x``), is
``Unreadable``: an omitted part of a formula could be the one that makes it wrong.
"""

from collections.abc import Sequence
from typing import Any

import sympy

from rrl.verifiers.mathematics.notation import GREEK
from rrl.verifiers.mathematics.numerals import Numerals, Unreadable

ANGLED = ("sin", "cos", "tan", "cot", "sec", "csc")
FUNCTIONS: dict[str, Any] = {
    **{name: getattr(sympy, name) for name in (*ANGLED, "sinh", "cosh", "tanh", "exp")},
    **{f"arc{name}": getattr(sympy, f"a{name}") for name in ANGLED},
    **{"log": lambda value, base=10: sympy.log(value, base), "ln": sympy.log},
}
CONSTANTS = {"i": sympy.I, "e": sympy.E, r"\pi": sympy.pi, r"\infty": sympy.oo}
CALLED = frozenset("fghFG")
"""Letters that name a function when a bracket follows; any other is a factor there."""
GROUPS = {"(": ")", "[": "]", "{": "}", r"\lfloor": r"\rfloor", r"\lceil": r"\rceil"}
ROUNDED: dict[str, Any] = {r"\lfloor": sympy.floor, r"\lceil": sympy.ceiling}


def read_formula(words: Sequence[str]) -> Any:
    """The tokens as an expression."""
    reader = _Reader(words)
    value = reader.sum()
    if reader.ahead is not None or value.has(sympy.nan, sympy.zoo):
        raise Unreadable(" ".join(words))
    return value


class _Reader(Numerals):
    """Reads the tokens from the left; each method reads the kind of expression in its name."""

    _bars = 0
    """Absolute values that are open."""
    _angle = False
    """Whether this is the argument of a trigonometric function."""

    def sum(self) -> Any:
        value = self._term()
        while self.ahead in ("+", "-"):
            value = value + self._term() if self.take() == "+" else value - self._term()
        return value

    def _term(self) -> Any:
        value = self._signed()
        while True:
            if self.ahead == "*":
                self.take()
                value = value * self._signed()
            elif self.ahead == "/":
                self.take()
                value = value / self._signed()
                if self._starts_factor():
                    raise Unreadable("1/2x is x/2 or 1/(2x)")
            elif self._starts_factor():
                if self.ahead is not None and self.ahead[0] in "0123456789.":
                    raise Unreadable(f"{self.ahead} behind a factor")
                value = value * self._power()
            else:
                return value

    def _signed(self) -> Any:
        if self.ahead in ("+", "-"):
            return self._signed() if self.take() == "+" else -self._signed()
        return self._power()

    def _starts_factor(self) -> bool:
        word = self.ahead
        if word is None or word == "|":
            return word == "|" and not self._bars
        if word[0] == "\\":
            return (
                word[1:] in GREEK or word in CONSTANTS or word in _COMMANDS or word[1:] in FUNCTIONS or word in GROUPS
            )
        return word[0].isalnum() or word[0] == "." or word in GROUPS

    def _power(self) -> Any:
        value = self.factor()
        while self.ahead in ("!", "°"):
            if self.take() == "!":
                value = sympy.factorial(value)
            elif self._angle:
                value = value * sympy.pi / 180
        if self.ahead != "^":
            return value
        self.take()
        value = value ** self._exponent()
        if self.ahead == "^":
            raise Unreadable("a power of a power without brackets")
        return value

    def _exponent(self) -> Any:
        return -self.factor() if self.ahead == "-" and self.take() else self.factor()

    def factor(self) -> Any:
        """A value without a sign or a power: a number, letter, group, function or command."""
        word = self.ahead
        if word is None:
            raise Unreadable("nothing where a value was expected")
        if word[0].isdigit() or word[0] == ".":
            return self.number()
        if word == "|":
            return self._absolute()
        if word in GROUPS:
            return ROUNDED.get(word, lambda value: value)(self._group())
        if word[1:] in FUNCTIONS and word[0] == "\\":
            return self._function()
        if word in _COMMANDS:
            return _COMMANDS[self.take()](self)
        if word[0].isalpha() or word[1:] in GREEK or word in CONSTANTS:
            return self._letter()
        raise Unreadable(word)

    def _group(self) -> Any:
        """The content of brackets; commas separate digits within braces, and list elements within other brackets."""
        outer = self.thousands, self._bars
        opening = self.take()
        self.thousands, self._bars = opening == "{", 0
        value = self.sum()
        self.take(GROUPS[opening])
        self.thousands, self._bars = outer
        return value

    def _absolute(self) -> Any:
        self.take("|")
        self._bars += 1
        value = self.sum()
        self.take("|")
        self._bars -= 1
        return sympy.Abs(value)

    def _letter(self) -> Any:
        word = self.take()
        if self.ahead == "_":
            self.take()
            return sympy.Symbol(f"{word}_{self._subscript()}")
        if word in CALLED and self.ahead == "(":
            return sympy.Function(word)(self._group())
        return CONSTANTS.get(word, sympy.Symbol(word))

    def _subscript(self) -> str:
        if self.ahead != "{":
            return self.take()
        words = [self.take()]
        while words[-1] != "}":
            words.append(self.take())
        return "".join(words[1:-1])

    # --- commands -----------------------------------------------------------------------------------------------------

    def argument(self) -> Any:
        """The argument of a command: a group, or one sign; of several digits only the first."""
        word = self.ahead
        if word is None or not word.isdigit():
            return self.factor()
        if len(word) > 1:
            self.words[self.place : self.place + 1] = [word[0], word[1:]]
        return sympy.Integer(self.take())

    def fraction(self) -> Any:
        top = self.argument()
        bottom = self.argument()
        self._no_digit_behind()
        return top / bottom

    def root(self) -> Any:
        degree = sympy.Integer(2)
        if self.ahead == "[":
            degree = self._group()
        value = self.argument()
        self._no_digit_behind()
        if degree.is_odd and value.is_negative:
            return -sympy.root(-value, degree)  # the real one
        return sympy.root(value, degree)

    def binomial(self) -> Any:
        return sympy.binomial(self.argument(), self.argument())

    def marked(self) -> Any:
        r"""A letter or points with a mark, ``\overline{CD}`` or ``\triangle ABC``, as one letter."""
        words = [self.words[self.place - 1]]
        bare = self.ahead != "{"
        while self.ahead is not None and (self.ahead.isalpha() or (not bare and self.ahead in "{}")):
            words.append(self.take())
        if len(words) < 2:
            raise Unreadable(words[0])
        return sympy.Symbol(" ".join(word for word in words if word not in "{}"))

    def _no_digit_behind(self) -> None:
        r"""Refuse ``\sqrt12`` or ``\frac123``, because writers mean other arguments than TeX takes."""
        if self.ahead is not None and self.ahead[0].isdigit():
            raise Unreadable("digits behind an argument without braces")

    def _function(self) -> Any:
        name = self.take()[1:]
        extra: list[Any] = []
        power = None
        for _ in range(2):
            if self.ahead == "^" and power is None:
                self.take()
                power = self._exponent()
            elif self.ahead == "_" and name == "log":
                self.take()
                extra = [self.argument()]
        if power == -1:
            name, power = f"arc{name}", None
        if name not in FUNCTIONS:
            raise Unreadable(name)
        value = FUNCTIONS[name](self._function_argument(name), *extra)
        return value if power is None else value**power

    def _function_argument(self, name: str) -> Any:
        """A bracket, or the factors up to a sign or the next function."""
        outer, self._angle = self._angle, name in ANGLED
        if self.ahead in ("(", "{", "["):
            value = self._group()
        else:
            value = self._power()
            while self._starts_factor() and (self.ahead or "")[1:] not in FUNCTIONS and self.ahead != "(":
                value = value * self._power()
        self._angle = outer
        return value


_COMMANDS: dict[str, Any] = {r"\frac": _Reader.fraction, r"\sqrt": _Reader.root, r"\binom": _Reader.binomial}
_COMMANDS |= dict.fromkeys((r"\overline", r"\vec", r"\hat", r"\bar", r"\angle", r"\triangle"), _Reader.marked)
