r"""The part of a response that states its answer: after its reasoning, before a question of its own; tags and boxes."""

import re
from collections.abc import Iterator


def conclusion(response: str) -> str:
    """The text of a response after its reasoning, up to a new question; empty if the reasoning has no end.

    The conclusion is the text after the last block of reasoning (``<think>...</think>`` and similar); text before it
    never counts: an end without a beginning ends a block that the prompt has begun, and a block without an end extends
    to the end of the text. A line that begins with "Question:", "Problem:", "User:" and similar, or a token of a
    chat's next turn, begins a new question; the first line may be one, and "Question 2:" is one only after an answer,
    because solutions number their parts.
    """
    conclusion = _after_reasoning(response)
    others = list(_NEXT_QUESTION.finditer(conclusion, len(conclusion) - len(conclusion.lstrip())))
    stated = _STATED.search(conclusion) if others else None
    ends = [o.start() for o in others if not o["number"] or (stated is not None and stated.end() <= o.start())]
    return conclusion[: min(ends, default=len(conclusion))]


def tagged(text: str) -> str | None:
    """The content of the last complete ``<answer>...</answer>``; None without such a tag.

    Where none is complete, a beginning extends to the end of the text, and an end back to its beginning. Of two
    beginnings without an end the second may be meant as an end: then only the text between them counts.
    """
    begin, content, between = None, None, None
    for tag in _ANSWER_TAG.finditer(text):
        if not tag["end"]:
            between = between if begin is None else text[begin : tag.start()]
            begin = tag.end()
        elif begin is not None:
            begin, content = None, text[begin : tag.start()]
        elif content is None:
            content = text[: tag.start()]
    if content is not None or begin is None:
        return content
    rest = text[begin:]
    return rest if not (between or "").strip() else between if not rest.strip() else ""


def last_box(text: str) -> str | None:
    r"""The content of the box that begins last, among those that are complete; None without one.

    A box is ``\boxed{...}`` or ``\fbox{...}``, braces counted, or ``\boxed 9`` where only a number follows up to the
    end of its formula or sentence. The word ``\boxed`` alone is none.
    """
    boxes = [*_braced_boxes(text), *(found.span(1) for found in _BARE_BOX.finditer(text))]
    return text[slice(*max(boxes))] if boxes else None


def before_open_box(text: str) -> str:
    """The text before its first box, for a text without a complete box: the content of that box was cut off."""
    return _OPEN_BOX.split(text, maxsplit=1)[0]


_NAMES = (
    r"(?:\w+:)?(?:think(?:ing)?|thoughts?|reason(?:ing|s)?|rationale|scratch[_-]?(?:pad)?|reflect(?:ion)?|analysis"
    r"|(?:inner[_-]|internal[_-])?monologue|chain[_-]of[_-]thought|cot)"
)
_LEFT, _RIGHT = r"[<\[◁]\s*\|?\s*", r"(?:\s[^<>\[\]]{0,200})?\s*\|?\s*[>\]▷]"
_REASONING = re.compile(rf"{_LEFT}(?i:(?P<end>/|end_of_)?\s*(?:begin_of_)?(?P<name>{_NAMES})){_RIGHT}")
END_OF_REASONING = rf"{_LEFT}(?i:(?:/|end_of_)\s*{_NAMES}){_RIGHT}"
"""The tag that ends a block of reasoning, as a pattern."""
_NEXT_QUESTION = re.compile(
    r"\n[ \t>#*_-]*(?:(?:next|new|another)[ \t]+)?(?:question|problem|exercise|instruction|human|user|q)"
    r"(?P<number>[ \t]*#?\d+)?[ \t*_]*[:：]|\n[ \t]*#+[ \t*]*(?:question|problem|instruction)\b"
    r"|<\|(?:im_start\|>\s*user|im_end\||user\||eot_id\||endoftext\|)|\[INST\]|<start_of_turn>\s*user",
    re.IGNORECASE,
)
_STATED = re.compile(r"####|\\boxed|</answer|\banswer\b", re.IGNORECASE)
_ANSWER_TAG = re.compile(r"<\s*(?P<end>/?)\s*(?:final[_ -]?)?answer(?:\s[^<>]{0,200})?\s*>", re.IGNORECASE)

_BRACES = re.compile(r"\\+(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_OPEN_BOX = re.compile(r"\\+(?:boxed|fbox)\s*\{")
_BARE_BOX = re.compile(
    r"\\(?:boxed|fbox)[ \t]*((?!\\[)\]])[^\s{}$]{1,40}(?=[ \t]*(?:\$|\\[)\]]))"
    r"|[-+]?(?:\d[\d,]*)?\.?\d+(?=[ \t]*[.!?]?(?:\s*\n|\s*$)|[.!?]\s))"
)


def _after_reasoning(response: str) -> str:
    """The text after the last block that is closed; blocks may be nested."""
    begun: list[str] = []
    begin = 0
    for tag in _REASONING.finditer(response):
        name = tag["name"].lower()
        if not tag["end"]:
            begun.append(name)
        elif name in begun or not begun:
            while begun and begun.pop() != name:  # blocks that were begun within it end with it
                pass
            begin = tag.end()
    return "" if begun else response[begin:]


def _braced_boxes(text: str) -> Iterator[tuple[int, int]]:
    """Where the content of each complete box begins and ends; one pass, however deep the braces are."""
    open_braces: list[tuple[int, bool]] = []
    for found in _BRACES.finditer(text):
        if found[0].endswith("{") and found[0] != r"\{":
            open_braces.append((found.end(), len(found[0]) > 1))
        elif found[0] == "}" and open_braces:
            start, is_box = open_braces.pop()
            if is_box:
                yield start, found.start()
