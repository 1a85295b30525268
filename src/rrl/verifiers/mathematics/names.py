r"""Left sides of equations that only name the value on the right: ``f^{-1}(x)``, ``V_{\text{cone}}``, ``AB``.

An expression, ``2x`` or ``x^2 + y^2``, is no name: the right side is not the value of its letters.
"""

import re

from rrl.verifiers.mathematics.brackets import Tokens
from rrl.verifiers.mathematics.notation import GREEK
from rrl.verifiers.mathematics.units import CHANGING

_TEXT = r"\\text\{[^{}]*\}"
_LETTER = rf"(?:[A-Za-z]'*|\\(?:{'|'.join(sorted(GREEK, key=len, reverse=True))})\b(?: ')*)"
_MARK = r"\\(?:overline|vec|hat|bar|tilde|dot|widehat|widetilde|underline|overrightarrow|overleftrightarrow|overarc)\b"
_POINTS = r"[A-Z]'*(?: [A-Z]'*)*"
_BASIC = rf"(?:{_LETTER}|{_MARK} (?:\{{ {_LETTER}(?: {_LETTER})* \}}|{_LETTER})|{_TEXT}|\{{ {_LETTER} \}})"
_FIGURE = rf"(?:m )?\\(?:angle|triangle) {_LETTER}(?: {_LETTER})*"
_INVERSE = r"\^ (?:\{ - 1 \}|- 1)"
_FORMS = (
    rf"{_BASIC}(?: \^ (?:\*|\{{ \* \}}))?",
    rf"(?:[A-Z]'*|\{{ [A-Z] \}}) (?:{_INVERSE}|\^ (?:T|\{{ T \}}))",  # of matrices; x^{-1} is an expression
    rf"{_FIGURE}|{_POINTS}|\[ (?:{_POINTS}|{_FIGURE}) \]",
    rf"\| (?:{_POINTS}|{_MARK} [^|]+|\{{ {_LETTER} \}}) \||\\\| (?:(?!\\\|).)+ \\\|",
    rf"\( {_BASIC}(?: , {_BASIC})* \)",
    rf"\\(?:sin|cos|tan|cot|sec|csc|det) (?:{_LETTER}|\( {_LETTER} \)|{_FIGURE}|\{{ {_LETTER} \}})",
    r"\\frac \{ d(?: [a-z])? \} \{ d [a-z] \}",
)
_NAME = re.compile(rf"(?:{_TEXT} )?(?:{'|'.join(_FORMS)})")
_FUNCTION = re.compile(rf"(?:[fghFGHPE]'*|\{{ [PE] \}}|\\Pr|{_TEXT})(?: {_INVERSE})?(?: \^ \{{ \( \d+ \) \}})?")
"""Names that may have any argument; another name with one, as ``x(y + 1)``, may be a product."""


def is_name(words: Tokens) -> bool:
    """Whether the left side of an equation only names the value on the right."""
    text = " ".join(head := _without_subscripts(words))
    if any(CHANGING.search(word.lower()) for word in words if word.startswith(r"\text")):
        return False
    return bool(_NAME.fullmatch(text) or _FUNCTION.fullmatch(text)) or is_word("".join(words)) or _is_called(head)


def _is_called(words: Tokens) -> bool:
    """Whether these are a name and one bracket behind it, ``P(A \\cap B)``."""
    depth, place = 0, len(words)
    while place and (place == len(words) or depth):
        place -= 1
        depth += (words[place] in (")", "]")) - (words[place] in ("(", "["))
    head, argument = " ".join(words[:place]), words[place + 1 : -1]
    if depth or not head or not argument:
        return False
    return bool(_FUNCTION.fullmatch(head) or (_NAME.fullmatch(head) and not set(argument) & set("=+*/-")))


def _without_subscripts(words: Tokens) -> list[str]:
    left, depth, skipping = list[str](), 0, False
    for word in words:
        if skipping or word == "_":
            depth += (word == "{") - (word == "}")
            skipping = word == "_" or depth > 0
        else:
            left.append(word)
    return left


def is_word(text: str) -> bool:
    """Whether letters are a word, ``Area``, and not a product, ``abc``."""
    plain = re.fullmatch(r"[A-Za-z][a-z]{2,}", text) is not None
    return plain and re.search("[aeiou]", text.lower()) is not None and list(text.lower()) != sorted(text.lower())


def is_number(words: Tokens) -> bool:
    """Whether a side has no letter but those of commands and words."""
    return bool(words) and not any(word[0].isalpha() or word[1:] in GREEK for word in words)


def spelled(words: Tokens) -> str:
    """A name, the same for the same in other braces and with or without a style."""
    return " ".join(word for word in words if word not in "{}")
