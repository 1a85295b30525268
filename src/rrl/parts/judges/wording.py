"""The texts to and from a language model as judge: the question, and the verdict at the end of its reply."""

import hashlib
import re

from rrl.types import Comparison, Preference

_PLACES = re.compile(r"\{(question|first|second|mark)\}")
_VERDICTS = {"Verdict: A": Preference.FIRST, "Verdict: B": Preference.SECOND, "Verdict: tie": Preference.TIE}


def fill(template: str, comparison: Comparison) -> str:
    """The template with its places filled, all at once: braces within an answer are plain text.

    ``{mark}`` is a hash of all that is compared: no answer can contain it and so imitate the sign of its own end.
    """
    content = "\0".join((comparison.question, comparison.first, comparison.second))
    mark = hashlib.sha256(content.encode(errors="surrogatepass")).hexdigest()[:8]
    return _PLACES.sub(lambda place: mark if place[1] == "mark" else str(getattr(comparison, place[1])), template)


def check_template(template: str) -> None:
    """Raise ValueError unless it contains the question, both answers and the forms of the verdict."""
    missing = [word for word in ("{question}", "{first}", "{second}", *_VERDICTS) if word not in template]
    if missing:
        raise ValueError(f"template: expected {', '.join(map(repr, missing))} in it, got {template!r}")


def read_verdict(reply: str) -> Preference:
    """The verdict that is the last line which is not blank; ``ERROR`` unless it is a verdict and nothing else."""
    lines = [line.strip() for line in reply.splitlines() if line.strip()]
    return _VERDICTS.get(lines[-1], Preference.ERROR) if lines else Preference.ERROR
