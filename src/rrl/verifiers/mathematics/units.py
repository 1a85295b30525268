r"""Words beside a number: units, currencies and nouns that do not change its value, and words that do.

Letters are never units: ``4t`` is a product. Words are the content of ``\text{...}`` and, where a reference has no
letters of its own, units written without it: ``10 cm``, ``5 m``, ``12 apples``.
"""

import re
from collections.abc import Iterator

SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
CHANGING = re.compile(
    r"\b(?:not|or|no|non|than|least|most|out|half|halves|thirds?|quarters?|fourths?|fifths?|sixths?|sevenths?|eighths?|"
    r"ninths?|\w*tenths?|elevenths?|twelfths?|\w+teenths?|\w+tieths?|hundredths?|thousandths?|\w+lionths?|plus|minus|"
    r"times|over|below|under|above|binary|ternary|octal|hexadecimal|gross|wrong|incorrect|false|"
    r"negative|squared|cubed|root|pi|if|when|where|for|except|between|from|any|all|undefined|infinite(?:ly)?|twice|"
    r"score|factorial|choose|mod|modulo|base|reciprocal|inverse|per cent|percent|"
    r"one|two|three|four|five|six|seven|eight|nine|ten)\b"
)
"""Words that change the meaning of the number before them."""
PREFIXES = re.compile(
    r"(?:(?:the|my|our|so|thus|hence|final|answer|is|it|about|approximately|exactly|equals|usd|rs)\b\W*)+"
)
_NAMES = """
    cm centimeter centimeters centimetre centimetres, mm millimeter millimeters millimetre millimetres,
    km kilometer kilometers kilometre kilometres, m meter meters metre metres,
    in inch inches, ft foot feet, yd yard yards, mi mile miles, mph,
    g gram grams gm, kg kilogram kilograms, lb lbs pound pounds, oz ounce ounces,
    s sec secs second seconds, min mins minute minutes, h hr hrs hour hours,
    day days, week weeks, month months, year years yr yrs,
    L liter liters litre litres, mL ml milliliter milliliters, gallon gallons gal,
    dollar dollars, cent cents, ° degree degrees deg, radian radians rad, unit units
"""
KNOWN = {name: names.split()[0] for names in _NAMES.split(",") for name in names.split()}
"""The units by their names; the first of a unit's names stands for all of them."""
_LONG = "|".join(sorted((name for name in KNOWN if len(name) > 1), key=len, reverse=True))
_POWER = r"(?:\s*\^\s*(?:\{\s*[23]\s*\}|[23]))?"
_ONE = rf"(?:(?:square|cubic|sq|cu)\.?\s+)?(?:{_LONG})\b{_POWER}"
_ALONE = rf"[mgshL](?![a-zA-Z]){_POWER}"
_WORDS = r"[a-z]{4,}(?:\s+[a-z]{2,})*"
_BARE = re.compile(
    rf"(?:(?<=[\d}})%°])|(?<=\\pi))(?:\s*(?P<unit>{_ONE}(?:\s*(?:/|per)\s*(?:{_ONE}|{_ALONE}))?)"
    rf"|\s+(?P<letter>{_ALONE}(?:\s*/\s*{_ALONE})?)|\s+(?P<words>{_WORDS}))(?=\s*(?:[,;)\]]|\\\}}|\\cup|$))"
)


def with_words_marked(tidied: str) -> str:
    r"""A tidied text with the units and words behind its numbers in ``\text{...}``."""
    return _BARE.sub(lambda found: _as_text(found[0]) if _is_plain(found) else found[0], tidied)


def _as_text(words: str) -> str:
    return rf" \text{{{re.sub('[{} ]+', ' ', words).strip()}}}"


def _is_plain(found: re.Match[str]) -> bool:
    """Whether these are words and not letters in a product, ``abcd``."""
    if found["words"] is None:
        return True
    return all(
        word in KNOWN or (re.search("[aeiou]", word) and list(word) != sorted(word)) for word in found[0].split()
    )


def without_words(word: str) -> tuple[int, frozenset[str]] | None:
    r"""The factor and the units of ``\text{...}`` behind a number; None when it changes the number's meaning."""
    if word == "%":
        return 1, frozenset("%")
    content = word.removeprefix(r"\text{").removesuffix("}").strip()
    if re.search(r"[\d\\=<>+*]", re.sub(r"\^ ?[23]", "", content)) or CHANGING.search(content.lower()):
        return None
    scale = 1
    for name in re.findall(r"[a-z]+", content.lower()):
        scale *= SCALES.get(name, 1)
    return scale, frozenset(_units(content))


def _units(content: str) -> Iterator[str]:
    """The known units with their powers, ``cm^2`` for square centimetres, without the plain word "units"."""
    for before, name, power in re.findall(r"(?:\b(sq|cu)\w*\.? )?([A-Za-z]+)(?: ?\^ ?([23]))?", content):
        if name in KNOWN:
            power = power or {"sq": "2", "cu": "3"}.get(before, "")
            if power or KNOWN[name] != "unit":
                yield KNOWN[name] + power


def is_prefix(word: str) -> bool:
    r"""Whether ``\text{...}`` before a number only introduces it."""
    return PREFIXES.fullmatch(word.removeprefix(r"\text{").removesuffix("}").strip().lower() + " ") is not None
