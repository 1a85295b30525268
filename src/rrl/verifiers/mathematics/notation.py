r"""One notation for equal texts of LaTeX and Unicode: removes spacing, sizes and styles, and replaces synonyms.

Nothing here computes or decides; ``statements.py`` reads the result.
"""

import re
import unicodedata
from functools import lru_cache

_GREEK_NAMES = (
    "alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|pi|rho|sigma|tau|phi|chi|psi|omega"
    "|Gamma|Delta|Theta|Lambda|Xi|Pi|Sigma|Phi|Psi|Omega"
)
GREEK = frozenset(_GREEK_NAMES.split("|")) - {"pi", "Pi"} | {"ell"}
"""Commands that are letters."""
COMMAND_END = r"(?![a-zA-Z])"


@lru_cache(maxsize=4096)
def tidy(text: str) -> str:
    r"""The text in few commands: ``½`` and ``\dfrac12`` begin with ``\frac``, ``\:`` is a blank, ``^\circ`` a ``°``."""
    text = _without_delimiters(_rows(_from_unicode(text)))
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return " ".join(_COMMAND.sub(lambda command: _SYNONYMS.get(command[1], command[0]), text).split()).rstrip(" .,;:")


def tokens(tidied: str) -> list[str]:
    """A tidied text as commands, words, numbers, letters with their primes, and signs, without blanks."""
    return _TOKEN.findall(tidied)


# --- Unicode ----------------------------------------------------------------------------------------------------------

_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱˣ", "0123456789+-()nix", strict=True))
_SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋₍₎ₙᵢₓ", "0123456789+-()nix", strict=True))
_GREEK = dict(zip("αβγδεζηθικλμνξπρστφχψωΓΔΘΛΞΠΣΦΨΩ", _GREEK_NAMES.split("|"), strict=True))
_SIGNS = {
    **dict.fromkeys("−–‒‐‑﹣－", "-"),
    **dict.fromkeys("×✕⨯·⋅∙∗•", " * "),
    **dict.fromkeys("÷∕⁄／", "/"),
    **dict.fromkeys("°º˚", "° "),
    **dict.fromkeys("€£¥", "$"),
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff", ""),
    **dict.fromkeys('“”«»"', ""),
    **{"’": "'", "′": "'", "″": "''", "％": "%", "…": r"\ldots ", "∞": r"\infty ", "±": r"\pm ", "∓": r"\mp "},
    **{"≤": r"\le ", "⩽": r"\le ", "≥": r"\ge ", "⩾": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "∈": r"\in "},
    **{"∨": " , ", "∧": " , ", "∪": r"\cup ", "∩": r"\cap ", "∅": r"\emptyset ", "∖": r"\setminus ", "ℝ": r"\Reals "},
    **{"∠": r"\angle ", "△": r"\triangle ", "⟨": r"\langle ", "⟩": r"\rangle ", "‖": r"\|"},
    **{"⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil "},
}
_TABLE = str.maketrans(_SIGNS | {letter: rf"\{name} " for letter, name in _GREEK.items()})
_RAISED = re.compile(f"[{''.join(_SUPERSCRIPTS)}]+")
_LOWERED = re.compile(f"[{''.join(_SUBSCRIPTS)}]+")
_VULGAR = re.compile("[¼-¾⅐-⅞]")


def _from_unicode(text: str) -> str:
    text = text.replace("³√", "∛")
    text = _RAISED.sub(lambda run: "^{" + "".join(_SUPERSCRIPTS[letter] for letter in run[0]) + "}", text)
    text = _LOWERED.sub(lambda run: "_{" + "".join(_SUBSCRIPTS[letter] for letter in run[0]) + "}", text)
    text = _VULGAR.sub(_as_fraction, text)
    return unicodedata.normalize("NFKC", text.translate(_TABLE)).translate(_TABLE)


def _as_fraction(sign: re.Match[str]) -> str:
    top, _, bottom = unicodedata.normalize("NFKC", sign[0]).partition("⁄")
    return rf"\frac{{{top}}}{{{bottom}}}"


# --- LaTeX ------------------------------------------------------------------------------------------------------------


def _without_delimiters(text: str) -> str:
    r"""Without the delimiters of a whole text: ``$...$``, ``\(...\)``, ``\[...\]``, ``**...**``."""
    text = text.strip().strip("*`").strip()
    for opening, closing in ((r"\(", r"\)"), (r"\[", r"\]")):
        if text.startswith(opening) and text.endswith(closing):
            text = text[2:-2]
    return text


def _rows(text: str) -> str:
    r"""With ``\cr`` between the rows of a matrix; elsewhere a doubled backslash is one, or a line's end."""
    if r"\begin" in text:
        text = re.sub(r"\\\\(?:\s*\[[^\]]*\])?", r" \\cr ", text)
    else:
        text = re.sub(r"\\\\", " ", re.sub(r"\\\\(?=[a-zA-Z])", r"\\", text))
    return re.sub(r"\\(?:\s|$)", " ", text)


_STYLES = "mathbf|boldsymbol|bm|mathit|mathcal|mathsf|pmb|mathnormal|mathop|mathord|emph|boxed|fbox|ensuremath|bf|it"
_SIZES = (
    "left|right|middle|normalsize|[lL]arge|LARGE|[hH]uge|small|displaystyle|textstyle|scriptstyle|limits|nolimits"
    "|[bB]igg?[lrm]?"
)
_NOTHING = "allowbreak|nobreak|noindent|strut|mathstrut|null|rm|therefore|textdollar|nonumber|qed|blacksquare"
_BLANKS = "quad|qquad|thinspace|medspace|thickspace|enspace|enskip|nobreakspace|space|hfill|hfil"
_SYNONYMS = {
    **dict.fromkeys(("dfrac", "tfrac", "cfrac", "nicefrac", "sfrac"), r"\frac "),
    **dict.fromkeys(("dbinom", "tbinom"), r"\binom "),
    **dict.fromkeys(("leq", "leqslant", "leqq"), r"\le "),
    **dict.fromkeys(("geq", "geqslant", "geqq"), r"\ge "),
    **dict.fromkeys(("cdot", "times", "ast", "centerdot"), " * "),
    **dict.fromkeys(("land", "wedge", "lor", "vee"), " , "),
    **dict.fromkeys(("lvert", "rvert", "vert", "mid"), "|"),
    **dict.fromkeys(("lVert", "rVert", "Vert"), r"\|"),
    **dict.fromkeys(("simeq", "approxeq", "thickapprox"), r"\approx "),
    **dict.fromkeys(("dots", "cdots", "dotsc", "dotsb"), r"\ldots "),
    **dict.fromkeys(("arcctg", "arccot"), r"\arccot "),
    **dict.fromkeys(("dollar", "pounds", "euro"), ""),
    **{"neq": r"\ne ", "lt": "<", "gt": ">", "div": "/", "prime": "'", "colon": ":", "imath": "i", "isin": r"\in "},
    **{"lbrace": r"\{", "rbrace": r"\}", "lbrack": "[", "rbrack": "]", "lparen": "(", "rparen": ")"},
    **{"varnothing": r"\emptyset ", "backslash": r"\setminus ", "bigcup": r"\cup ", "bigcap": r"\cap "},
    **{"varphi": r"\phi ", "varepsilon": r"\epsilon ", "vartheta": r"\theta ", "infin": r"\infty "},
    **{"tg": r"\tan ", "ctg": r"\cot "},
}
_TEXT = r"\\(?:text(?:bf|it|rm|sf|tt|sc|up|md|normal)?|mbox|hbox|operatorname\*?|math(?:rm|tt))\s*\{"
_UNITS = {"m": "meters", "g": "grams", "s": "seconds", "h": "hours", "L": "liters"}
"""Letters that are units in text behind a number."""
_WORD = r"(?<![a-zA-Z\\])"
_LEAD, _DIGITS = r"[A-Za-z][A-Za-z' ]+", r"-?[\d.,/]*\d%?"
_RULES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # spacing
        (r"\\[hv]?phantom\s*(?:\{[^{}]*\}|\S)", " "),
        (r"(?<=\d)\s*(?:\{\s*,\s*\}(?:\\!)?|,\s*\\!)\s*(?=\d{3}(?!\d))", ""),
        (r"\{\s*([,=<>:;+*/-])\s*\}", r"\1"),
        (r"\\!|\\(?:negthinspace|negmedspace|negthickspace)(?![a-zA-Z])", ""),
        (r"\\[hv]space\*?\s*\{[^{}]*\}|\\mspace\s*\{[^{}]*\}", " "),
        (r"\\(?:hskip|kern|mkern|mskip)\s*-?[\d.]+\s*(?:pt|em|ex|mu|cm|mm|in)", " "),
        (rf"\\[,;:> ]|~|\\(?:{_BLANKS}){COMMAND_END}", " "),
        (rf"\\(?:left|right)\s*\.|\\(?:{_STYLES}|{_SIZES}|{_NOTHING}){COMMAND_END}\*?", " "),
        (r"\\(?:text)?color\s*\{[^{}]*\}|\\(?:label|tag)\s*\{[^{}]*\}", ""),
        # money, per cent, degrees
        (rf"{_TEXT}\s*(\\\$\s*[\d.,]+)\s*\}}", r"\1"),
        (r"\\\$\s*(\d(?:[\d.,]*\d)?|\.\d+)(?=\s*(?:\.?\s*$|[;)\]}]|\\text))", r"\1 \\text{dollars}"),
        (r"\\?\$", ""),
        (r"\\%", "%"),
        (
            r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-zA-Z])|(?<=\d\^)o(?![a-zA-Z]))|\\(?:degree|textdegree)(?![a-zA-Z])(?:\{\})?|(?<=\d)\s*\\circ(?![a-zA-Z])",
            "°",
        ),
        (rf"{_TEXT}\s*°\s*\}}", "°"),
        (rf"{_TEXT}\s*(?:per\s?cent(?:age)?|pct|%)\s*\}}|{_WORD}(?:per\s?cent(?:age)?|pct){COMMAND_END}", "%"),
        (rf"{_TEXT}\s*(?:degrees?|deg)\s*\}}|{_WORD}(?:degrees?|deg){COMMAND_END}", "°"),
        (rf"°\s*(?:{_TEXT}\s*[CF]\s*\}}|[CF](?![a-zA-Z(]))", "°"),
        # words
        (r"[(\[]\s*\\begin\{array\}\s*\{[^{}]*\}(.*?)\\end\{array\}\s*[)\]]", r"\\begin{pmatrix}\1\\end{pmatrix}"),
        (r"[(\[]\s*\\begin\{matrix\}(.*?)\\end\{matrix\}\s*[)\]]", r"\\begin{pmatrix}\1\\end{pmatrix}"),
        (rf"{_TEXT}\s*((?:arc)?(?:sin|cos|tan|cot|csc)|ln|log|exp)\s*\}}", r"\\\1 "),
        *((rf"(?<=[\d}}])\s*{_TEXT}\s*{letter}\s*\}}", rf" \\text{{{unit}}}") for letter, unit in _UNITS.items()),
        (rf"{_TEXT}\s*([A-Za-z])\s*\}}", r" \1 "),
        (rf"{_TEXT}\s*(\w)\s*=\s*({_DIGITS})\s*([A-Za-z .]*)\}}", r"\1 = \2 \\text{\3}"),
        (rf"{_TEXT}\s*({_LEAD}[:=]?)\s*({_DIGITS})\s*([A-Za-z .]*)\}}", r"\\text{\1} \2 \\text{\3}"),
        (rf"{_TEXT}\s*({_LEAD})(?:\s(?:is|are|equals)|\s*[:=])\s*\}}(?=\s*\S)", r"\\text{\1} ="),
        (rf"{_TEXT}\s*(-?[\d.,/:]+\s*[%°]?)\s*\}}", r"\1"),
        (rf"{_TEXT}\s*(-?[\d.,/]+%?)\s+([A-Za-z .]+)\}}", r"\1 \\text{\2}"),
        (rf",?\s*(?:{_TEXT}\s*,?\s*(?:and|or)\s*,?\s*\}}|{_WORD}(?:and|or){COMMAND_END}(?!\s*$|[^{{}}]*\}}))\s*", ", "),
        (rf"{_TEXT}\s*,\s*\}}", ","),
        (rf"{_TEXT}\s*\}}", " "),
        (rf"{_TEXT}\s*([^{{}}]*?)[\s.,]*\}}", r" \\text{\1}"),
        (r"\\text\{([^{}]*)\}\s*\^\s*(?:\{\s*([23])\s*\}|([23]))", r"\\text{\1^\2\3}"),
        # other ways to write an operation
        (r"√\s*(?=\{)", r"\\sqrt"),
        (r"√\s*\(([^()]*)\)|√\s*(\d+|[a-zA-Z])", r"\\sqrt{\1\2}"),
        (r"∛\s*\(([^()]*)\)|∛\s*(\d+|[a-zA-Z])", r"\\sqrt[3]{\1\2}"),
        (rf"{_WORD}sqrt\s*\(([^()]*)\)|{_WORD}sqrt\s*\{{([^{{}}]*)\}}|{_WORD}sqrt\s*(\d+)", r"\\sqrt{\1\2\3}"),
        (rf"{_WORD}pi{COMMAND_END}", r"\\pi "),
        (rf"{_WORD}(?:infinity|inf|oo){COMMAND_END}", r"\\infty "),
        (r"<=", r"\\le "),
        (r">=", r"\\ge "),
        (r"!=", r"\\ne "),
        (r"\*\*", "^"),
        (r"\{([^{}]*)\\over(?![a-zA-Z])([^{}]*)\}", r"\\frac{\1}{\2}"),
        (r"(?<![\d.])(\d+\.)\((\d+)\)", r"\1\\overline{\2}"),
        (r"(?<![\d.])(\d+\.\d{0,8}?)(\d{1,8}?)\2{2,16}\s*(?:\\[lc]?dots(?![a-zA-Z])|\.{3})", r"\1\\overline{\2}"),
        (r"\.{3,}", r"\\ldots "),
        (r"\\mathbb\s*(?:\{\s*R\s*\}|R(?![a-zA-Z]))", r"\\Reals "),
        (r"\\mathbb(?![a-zA-Z])", ""),
        (r"\^\s*(?:\{\s*\\prime\s*\}|\\prime(?![a-zA-Z]))", "'"),
        (r"(?<!\\)\{\s*\}", ""),
        (r"(?<=\d)\s*\^\s*\{?\s*(?:\\text\{)?(?:st|nd|rd|th)\}?\s*\}?(?![a-z])", ""),
        (r":=", "="),
        (r"^\s*(?:=|:|\\(?:approx|implies|Rightarrow)(?![a-zA-Z])\s*)+", ""),
    )
)
_COMMAND = re.compile(r"\\([a-zA-Z]+)")
_TOKEN = re.compile(
    r"\\(?:begin|end)\{\w+\*?\}|\\text\{[^{}]*\}|\\[a-zA-Z]+|\\."
    r"|\d*\.(?=\s*\\(?:overline|bar|dot)\b)|\d+(?:\.\d+)?|\.\d+|[A-Za-z]'*|\S"
)
