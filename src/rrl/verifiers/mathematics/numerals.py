r"""Numbers in the tokens of a formula, all exact: ``1,234.5``, ``15 000``, ``3\frac{1}{2}``, ``0.1\overline{6}``."""

from collections.abc import Sequence
from typing import Any

import sympy


class Unreadable(ValueError):
    """A text that is no formula as a whole."""


class Numerals:
    """Reads tokens from the left."""

    thousands = False
    """Whether commas may separate the digits of a number here."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words, self.place = list(words), 0

    @property
    def ahead(self) -> str | None:
        """The next token; None at the end."""
        return self.words[self.place] if self.place < len(self.words) else None

    def after(self, steps: int) -> str:
        """The token that many steps behind the next; empty beyond the end."""
        place = self.place + steps
        return self.words[place] if place < len(self.words) else ""

    def take(self, *expected: str) -> str:
        """Return the next token and advance; it must be one of ``expected`` if any are given."""
        word = self.ahead
        if word is None or (expected and word not in expected):
            raise Unreadable(f"{word} where {expected} was expected")
        self.place += 1
        return word

    def factor(self) -> Any:
        """A value without a sign or a power."""
        raise NotImplementedError

    def number(self) -> Any:
        """A number with its groups of digits, repeating decimals and the fraction of a mixed number."""
        digits = self.take()
        if self.ahead in (r"\overline", r"\bar", r"\dot") and "." in digits:
            return _repeating(digits, self._repeated())
        digits = self._with_thousands(digits)
        value = sympy.Rational(digits)
        if digits.isdigit() and (part := self._proper_fraction()) is not None:
            return value + part
        return value

    def _repeated(self) -> str:
        self.take()
        if self.ahead != "{":
            return self.take()
        self.take()
        digits = self.take()
        self.take("}")
        return digits

    def _with_thousands(self, digits: str) -> str:
        """The digits and the groups of three digits that follow, separated by commas or blanks."""
        if not digits.isdigit() or len(digits) > 3 or digits.startswith("0"):
            return digits
        comma = self.thousands and self.ahead == "," and _is_group(self.after(1))
        blank = self.ahead is not None and _is_group(self.ahead) and self.after(1) not in ("/", "_")
        while comma or blank:
            self.place += int(comma)
            group = self.take()
            digits += group
            comma = comma and self.ahead == "," and _is_group(self.after(1)) and "." not in group
            blank = blank and self.ahead is not None and _is_group(self.ahead) and "." not in group
        return digits

    def _proper_fraction(self) -> Any:
        r"""The fraction of a mixed number, ``\frac{1}{2}`` or ``1/2`` behind an integer; None without one."""
        if self.after(1) == "/" and self.after(0).isdigit() and self.after(2).isdigit():
            value = sympy.Integer(self.take()) / sympy.Integer(self.take("/") and self.take())
        else:
            before = self.place
            if self.ahead != r"\frac":
                return None
            value = self.factor()
            if not set("".join(self.words[before + 1 : self.place])) <= set("{}0123456789"):
                self.place = before  # a product
                return None
        if not (value.is_Rational and 0 < value < 1):
            raise Unreadable("a mixed number with an improper fraction, or a product")
        return value


def _is_group(word: str) -> bool:
    """Whether these may be the last three digits of a number, with or without decimals."""
    whole, point, decimals = word.partition(".")
    return len(whole) == 3 and whole.isdigit() and (not point or decimals.isdigit())


def _repeating(digits: str, repeated: str) -> Any:
    if not repeated.isdigit():
        raise Unreadable(repeated)
    whole, _, decimals = digits.partition(".")
    once = sympy.Rational(int(repeated), 10 ** len(repeated) - 1) / 10 ** len(decimals)
    return sympy.Rational(f"{whole or '0'}.{decimals or '0'}") + once
