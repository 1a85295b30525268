r"""Every reference of MATH in the forms in which models write it, and in near misses: what is judged right?

Purpose   The two shares that say how good the verifier is: right answers that are taken for wrong, and wrong for right.
Launch    python experiments/math/forms.py DATA OUT [--limit N]    (make study-math runs it over all)
Expected  Every form right but those listed in experiments/results/math; no near miss right but those that are equal.
Cost      About 10 minutes on one core for all 12,500; --limit 200 some seconds.

Forms and misses are made from the text of a reference alone, by code that knows nothing of the verifier. A form that
would leave a reference as it is, or that nobody would write (a unit behind a matrix), is not counted.
"""

import argparse
import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from verifier import make_judge, number, read

SEED = 0
Rewrite = Callable[[str, random.Random], str | None]
RATIONAL = re.compile(r"-?(?:\d+|\d*\.\d+|\\[dt]?frac\{-?\d+\}\{\d+\})")
NUMBER = re.compile(r"[-\d.,\\!{}/ ]*(?:\\[dt]?frac|\\sqrt|\\pi|[-\d.,\\!{}/ ])*")
WORDS = re.compile(r"\(?\\(?:text|mbox)\{[^{}]*[A-Za-z][^{}]*\}\)?,?|[A-Z](?:, ?[A-Z])+|[A-Z]{2,}|.*\d:.*\d.*")
NAMES = ("x", "f(x)", "f^{-1}(x)", "A^{-1}", r"V_{\text{cone}}", r"\mathbf{v}", r"\overline{AB}", r"\angle ABC", "|AB|")
MORE_NAMES = ("x_1", r"\theta", "P(A)", "a_{n+1}", r"\text{Area}", "[ABC]", r"S_{10}", r"\triangle ABC", "AB", "f(2)")
BLANKS = (r"\,", r"\;", r"\:", r"\ ", "~", r"\quad ", r"\qquad ", r"\hspace{1mm}", r"\thinspace ", "{} ")
UNITS = (
    r"\text{ cm}",
    r"~\text{cm}",
    r"\text{ cm}^2",
    " cm",
    " cm^2",
    " cm²",
    r"\,\mathrm{m}",
    r" \text{ square units}",
)
WORDS_BEHIND = (
    r"\text{ apples}",
    r" \text{ in total}",
    " dollars",
    r"\text{ is the answer}",
    r" \text{ ways}",
    " units",
)


def is_value(text: str) -> bool:
    """Whether a unit might stand behind a reference: a number, with roots and pi, without a unit of its own."""
    return NUMBER.fullmatch(text) is not None and re.search(r"\d|pi", text) is not None and not is_list(text)


def is_list(text: str) -> bool:
    return "," in re.sub(r"\\!|\{,\}|(?<=\d),(?=\\!|\d{3}(?!\d))", "", text)


def is_words(text: str) -> bool:
    return WORDS.fullmatch(text) is not None


def is_relation(text: str) -> bool:
    return re.search(r"[=<>]|\\(?:approx|leq?|geq?|in)(?![a-z])", text) is not None


# --- forms: all of them equal to the reference ------------------------------------------------------------------------


def spacing(text: str, draw: random.Random) -> str | None:
    """A blank of LaTeX around the whole, behind commas and around signs."""
    if is_words(text):
        return rf"\,{text}\;"
    blank = draw.choice(BLANKS)
    spread = (
        re.sub(r",(?![\\\d]!?\d{0,2}\d)(?!\\!|\}| ?\d{3}|\s*\\!)", lambda _: f",{blank}", text)
        if r"\text" not in text
        else text
    )
    spread = re.sub(r"(?<=[\w)}])\s*([=+])\s*(?=[\w\\(])", lambda sign: f"{blank}{sign[1]}{blank}", spread)
    return f"{blank}{spread}{blank}"


def named(text: str, draw: random.Random) -> str | None:
    return (
        None
        if is_words(text) or is_relation(text) or (is_list(text) and "(" not in text)
        else (f"{draw.choice(NAMES + MORE_NAMES)} = {text}")
    )


def unit(text: str, draw: random.Random) -> str | None:
    return text + draw.choice(UNITS) if is_value(text) else None


def words_behind(text: str, draw: random.Random) -> str | None:
    return text + draw.choice(WORDS_BEHIND) if is_value(text) else None


def degrees(text: str, draw: random.Random) -> str | None:
    ways = ("°", r"\degree", r"^{\circ}", r" \text{ degrees}", " degrees", r"^\circ")
    if re.search(r"\\circ", text):
        return re.sub(r"\^\s*\{?\\circ\}?", lambda _: draw.choice((*ways[:2], "")), text) if "cos" not in text else None
    return text + draw.choice(ways) if is_value(text) else None


def fractions(text: str, draw: random.Random) -> str | None:
    """Another fraction, and another size of it."""
    if not re.search(r"\\[dt]?frac", text):
        return None
    if draw.random() < 0.5 and re.search(r"\\frac\{-?\d+\}\{\d+\}$", text) and RATIONAL.fullmatch(text):
        return re.sub(r"\\frac\{(-?\d+)\}\{(\d+)\}$", r"\1/\2", text)
    return re.sub(r"\\[dt]?frac", lambda _: draw.choice((r"\dfrac", r"\tfrac", r"\frac")), r"\displaystyle " + text)


def decimal(text: str, draw: random.Random) -> str | None:
    """The exact decimal of a fraction, the fraction of a decimal, a zero behind the point."""
    value = number(text) if RATIONAL.fullmatch(text) else None
    if value is None:
        return None
    if "frac" in text:
        places = next((n for n in range(1, 8) if (value * 10**n).denominator == 1), None)
        return None if places is None else f"{'-' * (value < 0)}{abs(float(value)):.{places}f}"
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}" if "." in text else f"{text}.0"


def boxed(text: str, draw: random.Random) -> str | None:
    if is_words(text):
        return (
            rf"\textbf{{{text}}}"
            if "text" not in text
            else text.replace(r"\text", draw.choice((r"\textbf", r"\mathrm")))
        )
    plain = re.fullmatch(r"-?[\d.]+", text)
    return (rf"\text{{{text}}}" if draw.random() < 0.5 else rf"\mathbf{{{text}}}") if plain else rf"\boxed{{{text}}}"


def delimited(text: str, draw: random.Random) -> str | None:
    return draw.choice(("${}$", r"\({}\)", r"\[{}\]", "**{}**", "$${}$$")).format(text)


def full_stop(text: str, draw: random.Random) -> str | None:
    return text + draw.choice((".", " .", ".\n", r"\text{.}"))


def in_unicode(text: str, draw: random.Random) -> str | None:
    """What a keyboard has: signs, roots of one sign, small powers, halves, Greek."""
    signs = {r"\pi": "π", r"\infty": "∞", r"\cup": "∪", r"\cdot": "·", r"\theta": "θ", r"\pm": "±", r"\le": "≤"}
    new = re.sub(r"\\sqrt\{(\d+)\}", r"√\1", text)
    new = re.sub(r"\^\{?\\circ\}?", "°", new)
    new = re.sub(r"\\[dt]?frac\{1\}\{2\}|\\[dt]?frac12", "½", new)
    new = re.sub(r"\^(\d)(?!\d)", lambda power: "⁰¹²³⁴⁵⁶⁷⁸⁹"[int(power[1])], new)
    new = re.sub(r"\\(?:pi|infty|cup|cdot|theta|pm|le)(?![a-z])\s*", lambda sign: signs[sign[0].strip()], new)
    new = new.replace("-", "−")
    return new if new != text else "".join(chr(ord(c) + 0xFEE0) if c.isdigit() else c for c in text)


def thousands(text: str, draw: random.Random) -> str | None:
    digits = re.sub(r"\\!|[{}, ]", "", text)
    if not re.fullmatch(r"\d{4,}|\d{1,3}(?:(?:,|\{,\}|,\\!) ?\d{3})+", text) or digits.startswith("0"):
        return None
    return f"{int(digits):,}".replace(",", draw.choice((",", "{,}", r"\,", "~", r",\!", " ", "")))


def reversed_order(text: str, draw: random.Random) -> str | None:
    """The terms of a sum, or the elements of a list, from the last to the first."""
    if re.fullmatch(r"[-+\w^{}\s]+", text) and re.search(r"[a-z]", text) and "_" not in text:
        terms = re.findall(r"[-+]?(?:\{[^{}]*\}|[^-+\s])+", re.sub(r"\s", "", text))
        return (
            None if len(terms) < 2 else re.sub(r"^\+", "", "".join(t if t[0] in "+-" else f"+{t}" for t in terms[::-1]))
        )
    if is_list(text) and not re.search(r"[()\[\]=]|text|!|begin|\\\{", text) and not is_words(text):
        return ", ".join(part.strip() for part in re.split(",", text)[::-1])
    return None


def braces(text: str, draw: random.Random) -> str | None:
    return draw.choice((rf"{{{text}}}", rf"\displaystyle {text}", rf"\left.{text}\right.", rf"\bf {text}"))


def equals(text: str, draw: random.Random) -> str | None:
    return f"= {text}"


def sized(text: str, draw: random.Random) -> str | None:
    """Brackets of another size, or brackets around a number."""
    if r"\left" in text:
        return re.sub(r"\\(?:left|right)\s*", "", text)
    if re.search(r"[(\[]", text) and not is_words(text):
        return re.sub(r"[(\[]", r"\\left\g<0>", re.sub(r"[)\]]", r"\\right\g<0>", text))
    return None


FORMS: dict[str, Rewrite] = {
    "spacing": spacing,
    "name on the left": named,
    "unit": unit,
    "words behind": words_behind,
    "degrees": degrees,
    "fractions": fractions,
    "exact decimal": decimal,
    "text or box": boxed,
    "delimiters": delimited,
    "full stop": full_stop,
    "Unicode": in_unicode,
    "thousands": thousands,
    "reversed order": reversed_order,
    "brackets": sized,
    "braces, style": braces,
    "equals sign before": equals,
}


# --- near misses: none of them equal to the reference -----------------------------------------------------------------


def another(pattern: str, change: Callable[[re.Match[str]], str]) -> Rewrite:
    """One place of a pattern, drawn by chance, changed."""

    def rewrite(text: str, draw: random.Random) -> str | None:
        places = list(re.finditer(pattern, text))
        if not places:
            return None
        place = draw.choice(places)
        return text[: place.start()] + change(place) + text[place.end() :]

    return rewrite


def sign(text: str, draw: random.Random) -> str | None:
    """A sign before the whole taken or left out."""
    if (
        is_words(text)
        or is_relation(text)
        or text == "0"
        or re.match(r"[\[(\\]*(?:begin|left|\[|\()", text)
        or is_list(text)
    ):
        return None
    return (
        text[1:].lstrip()
        if text.startswith("-") and not re.search(r".[-+]", text)
        else f"-({text})"
        if (re.search(r".\s*[-+]", text))
        else f"-{text}"
    )


def order(text: str, draw: random.Random) -> str | None:
    """The first two of a point or an interval exchanged."""
    found = re.fullmatch(r"((?:\\left)?\(\s*)([^,()]+),\s*([^,()]+)((?:,[^()]+)?(?:\\right)?\))", text)
    return (
        f"{found[1]}{found[3]}, {found[2]}{found[4]}"
        if found and len({re.sub(r"\\right|\s", "", found[n]) for n in (2, 3)}) == 2
        else None
    )


def bracket(text: str, draw: random.Random) -> str | None:
    """A round bracket of an interval for a square one, or the other way."""
    if not re.fullmatch(r"(?:\\left\s*)?[(\[][^()\[\]]+,[^()\[\]]+(?:\\right\s*)?[)\]]", text):
        return None
    if draw.random() < 0.5:
        return re.sub(
            r"^((?:\\left\s*)?)[(\[]", lambda found: found[1] + ("[" if found[0].endswith("(") else "("), text
        )
    return text[:-1] + (")" if text.endswith("]") else "]")


def dropped_term(text: str, draw: random.Random) -> str | None:
    """The last term of a sum, or the last element of a list, left out."""
    found = re.fullmatch(r"(.*[\w}])\s*[-+,]\s*(?:[^-+,{}()\[\]]|\{[^{}]*\})+", text)
    return found[1] if found and not re.search(r"!|text|begin|=", text) and balanced(found[1]) else None


def balanced(text: str) -> bool:
    return all(text.count(one) == text.count(other) for one, other in ("{}", "()", "[]"))


MISSES: dict[str, Rewrite] = {
    "neighbouring number": another(r"(?<![\d._^{])\d+(?![\d.])|(?<=\{)\d+(?=\})", lambda found: str(int(found[0]) + 1)),
    "another digit": another(r"\d", lambda found: str((int(found[0]) + 3) % 10)),
    "sign": sign,
    "sign inside": another(r"(?<=[\w)}\s])[-+](?=[\w\s\\(])", lambda found: "-" if found[0] == "+" else "+"),
    "another letter": another(r"(?<![\\a-zA-Z])[a-zA-Z](?![a-zA-Z])", lambda found: "q" if found[0] != "q" else "p"),
    "another power": another(r"\^\{?\d+\}?", lambda found: f"^{{{int(found[0].strip('^{}')) + 1}}}"),
    "a power more": another(r"(?<=[a-z2-9])(?<!\\[a-z]{2})$", lambda found: "^2"),
    "factor": another(r"^(?![\\\[(]*(?:text|begin|left|\(|\[))", lambda found: "2 \\cdot "),
    "digits exchanged": another(r"(\d)(?!\1)(\d)", lambda found: found[2] + found[1]),
    "fraction upside down": another(
        r"\\([dt]?)frac\{(-?[^{}]+)\}\{([^{}]+)\}", lambda found: rf"\{found[1]}frac{{{found[3]}}}{{{found[2]}}}"
    ),
    "root left out": another(r"\\sqrt\{?(\d+)\}?", lambda found: found[1]),
    "pi left out": another(r"(?<=\d)\s*\\pi", lambda found: ""),
    "order": order,
    "bracket": bracket,
    "last part left out": dropped_term,
    "point moved": another(r"(?<=^[1-9])$|(?<=^\d{2})$|(?<=^\d{3})$", lambda found: "0"),
    "word changed": another(r"(?<=^\\text\{)[A-Za-z]|^[A-Z](?=[A-Z])", lambda found: "x"),
    "one more": lambda text, draw: f"{text}, 77",
    "not": lambda text, draw: rf"\text{{not }}{text}",
    "half of it": lambda text, draw: rf"\frac{{{text}}}{{2}}" if is_value(text) and text != "0" else None,
}


# --- judging ----------------------------------------------------------------------------------------------------------


def main() -> None:
    """Judge every form and miss of every distinct reference, and write shares and lists as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--limit", type=int, help="so many references, drawn by chance (all)")
    given = parser.parse_args()
    rows = [row["answer"] for row in read(given.data) if row["answer"]]
    references = Counter(rows if given.limit is None else random.Random(SEED).sample(rows, given.limit))
    given.out.mkdir(parents=True, exist_ok=True)
    for name, result in study(references).items():
        (given.out / f"{name}.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", "utf-8")
        print(json.dumps({key: value for key, value in result.items() if not isinstance(value, dict)}))
        for row in result["by_kind"].items():
            print("  ", *row)


def study(references: Counter[str]) -> dict[str, Any]:
    """Forms and near misses of these, which occur so often."""
    judge = make_judge(workers=1)
    started = time.perf_counter()
    found = {
        name: shares(judge, references, rewrites, wanted)
        for name, rewrites, wanted in (("forms", FORMS, True), ("misses", MISSES, False))
    }
    judge.close()
    return {name: result | {"wall_seconds": round(time.perf_counter() - started)} for name, result in found.items()}


def shares(judge: Any, references: Counter[str], rewrites: dict[str, Rewrite], wanted: bool) -> dict[str, Any]:
    """By kind: how many references have it, the share judged right, and every pair judged otherwise than wanted."""
    made = rewritten(references, rewrites)
    verdicts = judge.judge([(new, reference) for _, reference, new in made])
    total, right = Counter[str](), Counter[str]()
    unwanted: dict[str, list[list[str]]] = {}
    for (kind, reference, new), feedback in zip(made, verdicts, strict=True):
        total[kind] += references[reference]
        right[kind] += references[reference] * feedback.solved
        if feedback.solved is not wanted:
            unwanted.setdefault(kind, []).append([new, reference, feedback.evidence["outcome"]])
    per_reference = Counter(reference for _, reference, _ in made)
    return {
        "references": references.total(),
        "distinct": len(references),
        "pairs": total.total(),
        "distinct_pairs": len(made),
        "right": right.total(),
        "fewest_of_one_reference": min(per_reference.get(reference, 0) for reference in references),
        "by_kind": {kind: {"pairs": total[kind], "right": right[kind]} for kind in rewrites},
        "unwanted": unwanted,
    }


def rewritten(references: Sequence[str] | Counter[str], rewrites: dict[str, Rewrite]) -> list[tuple[str, str, str]]:
    """Kind, reference and new text, wherever the kind changes something."""
    made = []
    for reference in sorted(references):
        for kind, rewrite in rewrites.items():
            new = rewrite(reference, random.Random(f"{SEED} {kind} {reference}"))
            if new is not None and re.sub(r"\s", "", new) != re.sub(r"\s", "", reference):
                made.append((kind, reference, new))
    return made


if __name__ == "__main__":
    main()
