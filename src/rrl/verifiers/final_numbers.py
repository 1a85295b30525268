r"""The number that a response states as its answer, exactly; none where that number is in doubt.

A wrong reading that happens to be right trains a policy wrongly, a missed one only costs a rollout. Therefore ranges,
unfinished sums, two answers at once and numbers that continue in words (18 thousand, 18 dollars and 50 cents) are no
answer, and remarks (step 3, checked 2 times, dates, times of the day) are ignored.
"""

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Literal

from rrl.verifiers.conclusions import before_open_box, conclusion, last_box, tagged

NumberFormat = Literal["strict", "flexible"]

LONGEST = 50_000
"""Characters at the end of a conclusion that are read."""
TAIL = 4000
"""Characters at the end of a response that are searched for an answer without a mark."""
ALONE = 1000
"""The most characters of a text that is only a number."""


def read_answer(response: str, answer_format: NumberFormat) -> Fraction | None:
    r"""The final number that the conclusion of a response states; None when it states none that can be read.

    ``strict`` takes the last ``#### x``. ``flexible`` looks into the last ``<answer>...</answer>`` only, where there is
    one, and tries ``####``, then the last box, then the last "answer is x" or "answer: x", then the last sentence that
    has a number: the only one in bold, or the one after its last equals sign, or its last. A box decides, readable or
    not; an answer in words and another number alone on the last line are in doubt. Units after a number are ignored:
    25% is 25.
    """
    text = _without_markup(conclusion(response)[-LONGEST:])
    if answer_format == "strict":
        return _marked(text, _HASHES, _HEADING)
    content = tagged(text)
    text = text if content is None else content
    value = _marked(text, _HASHES, _HEADING)
    box = last_box(text)
    if value is not None or box is not None:
        return value if value is not None else only_number(box or "")
    text = before_open_box(text)
    value = _marked(text, _SENTENCE)
    if value is None:
        return _concluding(text[-TAIL:])
    if (other := _correction(text)) is not None and other != value:
        return None
    line = text.rstrip().rpartition("\n")[2]
    return value if _WORDS_FIRST.match(line) or only_number(line) in (None, value) else None


def read_number(text: str) -> Fraction | None:
    """The value of a text that is one number alone; else None."""
    number = _NUMBER.fullmatch(_without_markup(text).strip())
    return _value(number) if number else None


def only_number(text: str) -> Fraction | None:
    """The value of a text that has one number, with or without a name before it and a unit behind; else None."""
    if len(text) > ALONE:
        return None
    name, equals, right = _without_remarks(_without_markup(text)).rpartition("=")
    if equals and (_SEVERAL.search(name) or _EXPRESSION.search(name.rpartition("=")[2])):
        return None
    lead = _ALONE_LEAD.match(right)
    number = _NUMBER.match(right, lead.end()) if lead else None
    alone = number and _ALONE_TAIL.fullmatch(right, number.end()) and not _GOES_ON.match(right, number.end())
    return _value(number) if number and alone else None


_LONGEST = 64  # characters of a number; longer ones, which could take minutes to convert, are unparseable
_DIGITS = r"(?:(?<![\w.])\.)?\d(?:[\d.,]*\d)?(?:[eE][-+]?\d+)?"  # any script's digits, so that none is cut off
_NUMBER = re.compile(rf"((?<![\w)\]}}])[-+])?[$£€¥₹]?({_DIGITS})(?: ?/ ?({_DIGITS}))?")
_GROUPED = r"[1-9][0-9]{0,2}(?:,[0-9]{3})+"
_WELL_FORMED = re.compile(rf"(?:{_GROUPED}|[0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{{1,2}})?")
_TOKEN = re.compile(rf"(?![\u3000-\u9fff])[^\W\d]\w*(?:[.,]\d+)*|{_NUMBER.pattern}")  # CO2, x1 and v1.5 are words
_LEAD = (
    r"(?:[\s$£€¥₹*_`\"'({}\[:=~≈]|\\(?:(?:boxed|fbox|text(?:bf|it|rm|normal)?|math(?:rm|bf|it)|mbox|approx)(?![a-z])"
    r"|[(\[,; ]))*"
)

_WORD = (
    r"(?!(?:in|after|at|for|by|over|with|from|of|on|per|within|during|since|because|if|when|as|but|so|is|was)\b)"
    r"[A-Za-z]+"
)
_UNIT = rf"(?:[ \t]*(?:{_WORD}|[%°]))?"
_BLANK = r"[ \t~]|\\[ ,;:]"
_MORE = r"[ \t]*[($£€¥₹*]*[-+]?\.?\d"
_GOES_ON = re.compile(
    rf"[ \t]*(?:[-+*/^×÷–±:_]|\*\*|//|x(?![a-z])|to|or|and|through|plus|minus|times|out of|over|divided by){_MORE}"
    rf"|{_UNIT},?(?:[ \t(]+(?:and|or|to))?[ \t]+[-+]?[$£€¥₹]?\.?\d|[ \t]*[½⅓¼¾⅔π√]|[⁰-⁹²³¹]|['’_]\d"
    r"|[,;][ \t]*[$£€¥₹]?\d"
    r"|[ \t]*(?:hr?s?|min|ft|lbs?)[ \t]*\d|\+(?=[\s.,)]|$)"
    rf"|{_UNIT}[ \t]+or[ \t]+(?:more|less|fewer|greater)\b"
    r"|[ \t]*pi\b|[ \t][nxyz](?![\w'’])"
    r"|[ \t]*(?:\^(?!\{?\\circ)|_\{?\d|[*×÷+][ \t]*[({]|\\[dt]?frac|\\(?:sqrt|pi|cdot|times|div|pm|over)(?![a-z]))"
    r"|[abeinqruvwxyzkKMB](?![A-Za-z])|[ \t]+[<>≤≥]=?[ \t]"
    rf"|(?:{_BLANK}|\\text\{{)*(?:hundred|thousand|million|billion|trillion|dozen|score"
    r"|[kK](?![A-Za-z])|and a (?:half|quarter)"
    rf"|(?:squared|cubed)(?![a-z]))|{_UNIT}[ \t]+below zero"
    r"|(?:%|[ \t]*percent)?[ \t]+of(?:[ \t]+(?:the|all|her|his|their|these|those))?[ \t]+[$£€¥₹]?\d",
)
"""Text after a number that is only a part of its quantity."""
_EQUATION = re.compile(r"[^\n.,;(}=]{0,80}=")
_ASKED = re.compile(r"[^.!?\n]{0,80}\?")
_HEADING = re.compile(r"[.):][ \t]+[A-Za-z*]")
_COMES_FROM = re.compile(
    rf"(?:[\d)}}\]](?:%|°|\\%)?[ \t]*"
    rf"(?:[-+/^×÷–±_,;√]|//|\*{{1,2}}|x|:|\\(?:times|cdot|div|pm)|plus|minus|times|over|out of)?"
    rf"|\d{_UNIT}(?:,?[ \t(]+(?:and|or|to|through))?"
    rf"|[\^_]\{{?|(?<!\n)(?<!^)-[ \t]|[<>≤≥±])[ \t]*[($£€¥₹]*$"
    r"|\d['’]$|(?:\b(?:than|twice|double|triple|half(?:[ \t]+of)?|out[ \t]+of|divided[ \t]+by"
    r"|(?:two|three|four|five)[ \t]+times)"
    r"|(?:%|percent|\d|\b(?:square|cube|root|third|quarter|fourth|fifth|tenth|factorial)s?)[ \t]+of)"
    r"(?:[ \t]+(?:the|all|her|his|their|these|those))?[ \t]+[$£€¥₹*]*$"
    r"|√[ \t]*\(?$|\b(?:sqrt|log|ln|exp|base)[ \t]*\(?$|(?<![A-Za-z])[A-Za-z]\($"
    r"|\d[ \t]*(?:hours?|hrs?|feet|ft|dollars|pounds|lbs?|weeks?),[ \t]*$"
    r"|=[^=\n]*\d[ \t]*(?:[,;]|and)[ \t]*[A-Za-z]\w?[ \t]*=[ \t]*$"
)
"""Text before a number that is only a part of its quantity."""
_NOT_MEANT = re.compile(
    r"(?:\b(?:not|cannot|instead of|rather than|other than|never)|n['’]t)"
    r"(?:[ \t]+be)?[ \t]+(?:equal(?:[ \t]+to)?[ \t]+|=[ \t]*)?[$£€¥₹]?$"
    r"|(?:≠|!=|\\neq?)[ \t]*[$£€¥₹]?$|[A-Za-z]\}?\^\{?$",
    re.IGNORECASE,
)

_WORDS_FIRST = re.compile(r"[^A-Za-z\d]*(?:[A-Za-z]{2}|[A-Za-z] [A-Za-z])")
_HASHES = re.compile(rf"####{_LEAD}")
_SENTENCE = re.compile(
    rf"(?<![/\w])answer\b(?:[ \t*_]*(?:is|=|:|→|would be|should be|must be|comes to"
    rf"|to (?:the|this) (?:question|problem)|therefore|thus|then|now|indeed|just|simply|exactly"
    rf"|[A-Za-z] ?(?==))(?![a-z]))+{_LEAD}",
    re.IGNORECASE,
)
_ANSWER_LAST = re.compile(
    r"(?<![\w.,/])([-$]{0,2}\d[\d.,]*(?: [a-z]+)?)[*_]* is (?:the|my|our) (?:final |correct )?answer\b"
)
_TAKEN_BACK = re.compile(
    r"(?<![^\s.!?—–(])(?:wait|oops|hmm|hold on|correction|sorry|actually|on second thought|no)\b[,.:!]?[ \t]",
    re.IGNORECASE,
)
_SEVERAL = re.compile(r"\d[ $]*[,;][ $]*[A-Za-z]|\\q?quad|\b(?:and|or)\b|[<>]|\\(?:leq?|geq?|neq?)(?![a-z])")
_EXPRESSION = re.compile(
    r"(?<![\w.\\{])(?:\d+(?:\.\d+)?(?![mgshlL])[A-Za-z](?![\w{]|[ \t]*\d)|[A-Za-z][ \t]*(?:[-+*/]|\^\{?)[ \t]*\d)"
)
"""A letter with a factor or a summand, as in 2x: the right side of its equation is not the letter's value."""
_UNSOLVED = re.compile(
    r"\W*(?:(?:so|then|thus|hence|therefore|now|we (?:get|have))\b[^\w(]*)?"
    r"(?:\d+(?:\.\d+)?(?![mgshlLk])[A-Za-z](?![A-Za-z])|\(?[A-Za-z](?![A-Za-z])(?=\s*[-+*/^]\s*\d))"
    r"(?:[-+*/^() \d.]|[A-Za-z](?![A-Za-z]))*",
    re.IGNORECASE,
)
"""A sentence that begins with such an equation."""
_ALONE_LEAD = re.compile(rf"(?:{_LEAD}(?:(?!(?:not|than|least|most)\b)[A-Za-z]+[ :]))*{_LEAD}")
_ALONE_TAIL = re.compile(
    r"(?:[\s.,;~°%\"'$£€¥₹*)\]}{²³]|\\(?:text(?:bf|it|rm|normal)?|math(?:rm|bf|it)|mbox|circ|degree|q?quad|right)(?![a-z])"
    r"|\\[,;:! %()\[\]]|\^\{?\\circ\}?|[A-Za-z][\w/]*(?![\w/])|(?:(?<=[A-Za-z])|(?<=[A-Za-z]\}))\^\{?[23]\}?)*"
)

_REMARKS = re.compile(
    r"^[ \t*_#]*(?:notes?|check|verification|verify|proof|p\.?s|remark)\b[ \t*_]*[:.][^\n]*|"
    r"\((?!(?:or|and)\b)(?=[^()\n]*[A-Za-z])[^()\n]*\)|\[\d+\]"
    r"|\b(?:steps?|lines?|eq(?:uation|n)?s?|notes?|hints?|methods?|cases?|sections?|figures?|tables?|examples?|parts?)\.?"
    r"[ \t]*[#(]*\d+(?:\)|[ \t]*(?:,|and|to|-)[ \t]*\d+)*:?"
    r"|\b(?:checked|verified|tested|confirmed|recounted|computed|calculated|tried)\b"
    r"[^\n.\d]{0,30}\d+[ \t]*(?:x\b|times|ways)"
    r"|\b(?:in|after|with|using|took|takes|used|needed|me|us)[ \t]+(?:only[ \t]+|just[ \t]+)?\d+[ \t]+(?:[a-z]+[ \t]+)?"
    r"(?:steps?|ways|lines|calculations?|operations?|attempts?|tries)\b"
    r"|\b\d{4}-\d\d?-\d\d?\b|\b\d{1,2}/\d{1,2}/\d{2,4}\b|\b\d{1,2}:\d\d(?::\d\d)?(?:[ \t]*[ap]\.?m\b\.?)?"
    r"|\b\d{1,2}[ \t]*(?:[ap]\.?m\b\.?|o'clock)"
    r"|\b(?:(?:jan|febr)(?:uary)?|mar(?:ch)?|apr(?:il)?|june?|july?|aug(?:ust)?|(?:sept|octo|nov|dec)(?:em)?(?:ber)?)\.?"
    r"[ \t]+\d{1,2}(?:st|nd|rd|th)?\b(?:,?[ \t]+\d{4}\b)?"
    r"|\b\d{1,2}(?:st|nd|rd|th)?[ \t]+(?:of[ \t]+)?(?:january|february|march|april|may|june|july|august|september"
    r"|october|november|december)\b|\bin[ \t]+(?:19|20)\d\d(?=[.,]?(?:\s|$))(?![ \t]+[a-z])"
    r"|\bMay[ \t]+\d{1,2}(?:st|nd|rd|th)?\b(?:,?[ \t]+\d{4}\b)?|^[ \t]*\(?\d{1,2}[.)][ \t]+(?=[A-Za-z*])",
    re.IGNORECASE | re.MULTILINE,
)
_BOLD = re.compile(r"(\*\*|__)(?=\S)([^*_\n]{1,80})\1")
_SENTENCE_END = re.compile(r"\n|(?<=[.!?])[*_)\"']*\s+(?=[A-Z*])")


def _without_markup(text: str) -> str:
    """The text with one sign for each meaning."""
    for markup, plain in (("−", "-"), ("–", "-"), ("{,}", ","), (r"\!", ""), (r"\$", "$")):
        text = text.replace(markup, plain)
    text = re.sub(r"(?:(?<=[0-9])\\,|(?<=[0-9])[\u00a0\u2009\u202f])(?=[0-9]{3}(?![0-9]))", ",", text)
    text = re.sub(r"</?(?!(?:final[_ -]?)?answer)[a-zA-Z]\w*>", " ", text)
    text = re.sub(r"equals|is equal to|=>|⇒|\\(?:implies|Rightarrow)(?![a-z])", "=", text)
    text = _ANSWER_LAST.sub(r"answer is \1.", text)
    text = re.sub(r"[Mm]inus[ \t]+(?=[$£€¥₹]?[0-9])|[Nn]egative[ \t]+(?=[$£€¥₹]?[0-9])", "-", text)
    return re.sub(r"\\[dt]?(?<![0-9]\\)(?<![0-9]\\[dt])frac\{([^{}]*)\}\{([^{}]*)\}(?!\s*\d)", r"\1/\2", text)


def _without_remarks(text: str) -> str:
    """The text without numbers that are no quantities, unless it has no others."""
    rest = _REMARKS.sub(" ", text)
    return rest if re.search(r"\d", rest) else text


def _marked(text: str, marker: re.Pattern[str], heading: re.Pattern[str] | None = None) -> Fraction | None:
    """The number behind the last marker that is followed by one."""
    for place in reversed(list(marker.finditer(text))):
        number = _NUMBER.match(text, place.end())
        if number is None or (heading and heading.match(text, number.end())):
            continue
        unfinished = any(pattern.match(text, number.end()) for pattern in (_GOES_ON, _EQUATION, _ASKED))
        if (value := _value(number)) is not None and not unfinished:
            return value
    return None


def _correction(text: str) -> Fraction | None:
    """The conclusion of a text after it has retracted its answer."""
    answers = list(_SENTENCE.finditer(text))
    taken_back = _TAKEN_BACK.search(text, answers[-1].end()) if answers else None
    return _concluding(text[taken_back.start() :][-TAIL:]) if taken_back else None


def _concluding(text: str) -> Fraction | None:
    """The number of the last sentence that has one outside remarks."""
    for sentence in reversed(_SENTENCE_END.split(_REMARKS.sub(" ", text))):
        numbers = list(_numbers(sentence))
        if numbers:
            return _of_sentence(sentence, numbers)
    numbers = list(_numbers(text))  # there are only remarks
    return _value(numbers[-1]) if len(numbers) == 1 and not _ASKED.match(text, numbers[-1].end()) else None


def _of_sentence(sentence: str, numbers: list[re.Match[str]]) -> Fraction | None:
    if sentence.rstrip("*_)\"' \t").endswith("?"):
        return None
    bold = [value for found in _BOLD.finditer(sentence) if (value := only_number(found[2])) is not None]
    if len(bold) == 1:
        return bold[0]
    equals = max(sentence.rfind("="), sentence.rfind("≈"))
    right = [number for number in numbers if 0 <= equals < number.start()]
    stated = [number for number in right if re.fullmatch(_LEAD, sentence[equals : number.start()])]
    if right and _UNSOLVED.fullmatch(sentence[:equals].rpartition("=")[2]):
        return None
    number = stated[0] if stated else numbers[-1]
    before, after = sentence[: number.start()].replace("**", ""), sentence[number.end() :].replace("**", "")
    return None if _COMES_FROM.search(before) or _GOES_ON.match(after) else _value(number)


def _numbers(sentence: str) -> Iterator[re.Match[str]]:
    """The numbers of a sentence that it does not negate, without digits in words and powers of units."""
    for token in _TOKEN.finditer(sentence):
        if token[2] and not _NOT_MEANT.search(sentence[max(0, token.start() - 30) : token.start()]):
            yield token


def _value(number: re.Match[str]) -> Fraction | None:
    sign, top, bottom = number.groups(default="")
    parts = [top, bottom or "1"]
    if len(number[0]) > _LONGEST or not all(_WELL_FORMED.fullmatch(part) for part in parts):
        return None
    numerator, denominator = (Fraction(part.replace(",", "")) for part in parts)
    if denominator == 0:
        return None
    return (-numerator if sign == "-" else numerator) / denominator
