r"""Is the verifier of MATH right? On canonical solutions, shuffled pairs, near misses and pathological answers.

Purpose   What docs/math.md says of the verifier, measured.
Launch    make study-math DATA=<folder that holds train.jsonl.gz and test.jsonl.gz>
          python experiments/math/verifier.py DATA OUT [canonical shuffled neighbours pathological bench]
Expected  12,498 of 12,500 canonical solutions right against their own final answer (two have an empty box); every
          shuffled pair that is judged right is truly equal; a pathological answer costs at most its limit.
Cost      About 10 minutes on 2 cores; bench alone half a minute on one.
"""

import argparse
import itertools
import json
import platform
import random
import re
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import yaml

from rrl.parts.tasks.rows import load_split
from rrl.types import Feedback
from rrl.verifiers.final_answers import AnswerFormat, final_answer, same_text
from rrl.verifiers.math_verifier import MathVerifier, Pair

SEED = 0
CONF = Path(__file__).resolve().parents[2] / "conf" / "task" / "math.yaml"
Row = dict[str, Any]


def main() -> None:
    """Do the parts asked for, and write what came of each as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)} (all)")
    given = parser.parse_args()
    rows = read(given.data)
    given.out.mkdir(parents=True, exist_ok=True)
    for part in given.parts or PARTS:
        started = time.perf_counter()
        result = PARTS[part](rows) | {"wall_seconds": round(time.perf_counter() - started, 1)}
        (given.out / f"{part}.json").write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", "utf-8")
        print(part, json.dumps({k: v for k, v in result.items() if not isinstance(v, list | dict)}), flush=True)


def read(folder: Path) -> list[Row]:
    """Every problem of both splits, with the content of its last box by the official way of finding it."""
    fields = ("problem", "level", "type", "solution")
    parts = {s: load_split(str(folder), hub_id="", hub_config=None, split=s, fields=fields) for s in ("train", "test")}
    return [
        {**row, "id": row.get("unique_id", f"{split}/{i}"), "answer": official_box(row["solution"])}
        for split, part in parts.items()
        for i, row in enumerate(part)
    ]


def official_box(text: str) -> str:
    """The last box by counting braces from it on; written apart from ``rrl.verifiers.final_answers``, to be compared with it."""
    start = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    rest = text[start:].removeprefix("\\boxed").removeprefix("\\fbox").lstrip()
    if not rest.startswith("{"):
        return re.split(r"[\s$]", rest)[0]
    depth = 0
    for i, letter in enumerate(rest):
        depth += (letter == "{") - (letter == "}")
        if depth == 0:
            return rest[1:i].strip()
    return ""


def make_judge(**changes: Any) -> MathVerifier:
    """The judge of the configuration."""
    settings = yaml.safe_load(CONF.read_text(encoding="utf-8"))["task"]["judge"]
    return MathVerifier(**{key: value for key, value in settings.items() if key != "_target_"} | changes)


# --- right where it has to be -----------------------------------------------------------------------------------------


def canonical(rows: Sequence[Row]) -> Row:
    """Each canonical solution against its own final answer: as in training, and without comparing text."""
    judge = make_judge()
    pairs: list[Pair] = [(final_answer(row["solution"], "boxed"), row["answer"]) for row in rows]
    verdicts = judge.judge(pairs)
    replies = {pair: judge.ask(*pair) for pair in dict.fromkeys(pairs) if pair[0] is not None}
    alone = ["no_answer" if pair[0] is None else str(replies[pair].result().value) for pair in pairs]
    judge.close()
    return {
        "solutions": len(rows),
        "box_as_the_official_way": sum((pair[0] or "") == pair[1] for pair in pairs),
        "right": sum(f.solved for f in verdicts),
        "outcomes": count(f.evidence["outcome"] for f in verdicts),
        "exceptions": [told(row, f) for row, f in zip(rows, verdicts, strict=True) if not f.solved],
        "right_without_comparing_text": alone.count("equal"),
        "outcomes_without_comparing_text": count(alone),
        "distinct_answers_only_text_can_judge": sorted(
            {pair[1] for pair, found in zip(pairs, alone, strict=True) if found != "equal" and pair[0]}
        ),
        "restated": restated(sorted({row["answer"] for row in rows if row["answer"]})),
    }


def restated(answers: Sequence[str]) -> Row:
    """Each distinct formula, written anew by sympy, against itself: other text, equal value."""
    import sympy

    from rrl.verifiers.mathematics.statements import Scalar, readings

    judge = make_judge()
    read = {answer: readings(answer, bare_units=False, reference=True)[:1] for answer in answers}
    texts = {
        answer: sympy.latex(found[0].value)
        for answer, found in read.items()
        if found and isinstance(found[0], Scalar) and "!" not in answer  # 2004! has no end
    }
    other = {answer: text for answer, text in texts.items() if not same_text(text, answer)}
    found = judge.judge([(text, answer) for answer, text in other.items()])
    judge.close()
    failed = [told({"id": answer}, f) for answer, f in zip(other, found, strict=True) if not f.solved]
    return {"other_text": len(other), "right": sum(f.solved for f in found), "not_right": failed}


# --- wrong where it has to be -----------------------------------------------------------------------------------------


def shuffled(rows: Sequence[Row]) -> Row:
    """Each canonical solution against the final answer of another problem; those judged right are listed."""
    order = list(range(len(rows)))
    random.Random(SEED).shuffle(order)
    others = {order[i]: rows[order[i - 1]] for i in range(len(order))}  # one cycle: nobody gets its own answer
    pairs: list[Pair] = [(final_answer(row["solution"], "boxed"), others[i]["answer"]) for i, row in enumerate(rows)]
    return {"seed": SEED, **judged_right(pairs)}


def neighbours(rows: Sequence[Row]) -> Row:
    """Near misses: each distinct answer against the two that follow it in the alphabet, both ways round."""
    answers = sorted(
        {row["answer"] for row in rows if row["answer"]}, key=lambda text: (re.sub(r"\\[a-z]+|\W", "", text), text)
    )
    forward = [(one, other) for step in (1, 2) for one, other in zip(answers, answers[step:], strict=False)]
    return judged_right([pair for one, other in forward for pair in ((one, other), (other, one))])


def judged_right(pairs: Sequence[Pair]) -> Row:
    """The pairs judged right, sorted by an independent look at them."""
    judge = make_judge()
    verdicts = judge.judge(pairs)
    judge.close()
    right = [pair for pair, f in zip(pairs, verdicts, strict=True) if f.solved]
    looks = [independent(*pair) for pair in right]
    return {
        "pairs": len(pairs),
        "right": len(right),
        "outcomes": count(f.evidence["outcome"] for f in verdicts),
        "independently": count(looks),
        "equal_numbers": listed(right, looks, "equal numbers"),
        "to_be_seen_by_hand": listed(right, looks, "by hand"),
    }


def independent(answer: str | None, expected: str) -> str:
    """Without any of the verifier's code: identical but for blanks, equal as fractions, or for a person to see."""
    one, other = (re.sub(r"\s|\\[!,;: ]", "", text or "") for text in (answer, expected))
    if one == other:
        return "identical"
    numbers = number(one), number(other)
    return "equal numbers" if None not in numbers and numbers[0] == numbers[1] else "by hand"


def number(text: str) -> Fraction | None:
    """An integer, decimal or fraction with no, or a written, unit."""
    text = re.sub(r"\\(?:text|mbox)\{[^}]*\}(?:\^\d)?|\^\{?\\circ\}?|\\\$", "", text)
    text = re.sub(r"\\[dt]?frac(?:\{(-?\d+)\}\{(\d+)\}|(\d)(\d))", r"\1\3/\2\4", text)
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    return (
        Fraction(text)
        if re.fullmatch(r"-?\d*\.?\d+(?:/[1-9]\d*)?", text) and ("." not in text or "/" not in text)
        else None
    )


def listed(pairs: Sequence[Pair], looks: Sequence[str], look: str) -> list[list[str | None]]:
    """The distinct pairs that were seen so: answer, expected."""
    return sorted([list(pair) for pair in {p for p, seen in zip(pairs, looks, strict=True) if seen == look}], key=str)


# --- what it costs ----------------------------------------------------------------------------------------------------

PATHOLOGICAL = {
    "tower of nines": "9^{9^{9^9}}",
    "tower of tens": "10^{10^{10}}",
    "tower against its like": "10^{10^{10}} - 1",
    "huge factorial": "(10^9)!",
    "factorials of factorials": "((((9!)!)!)!)!",
    "power of a sum": "(x + y + z)^{100000}",
    "huge sum": r"\sum_{k=1}^{10^{12}} \frac{1}{k^2 + 1}",
    "huge product": r"\prod_{k=1}^{10^{9}} k",
    "nested roots": r"\sqrt{1 + " * 60 + "x" + "}" * 60,
    "hard integral": r"\int_0^1 \frac{\sin(x^x)^{\cos x}}{\ln(1 + e^{x^2})} dx",
    "matrix of a million cells": r"\begin{pmatrix}" + r"1 & " * 1000 + r"1 \end{pmatrix}^{1000}",
    "10,000 nested braces": "{" * 10_000 + "5" + "}" * 10_000,
    "10,000 nested brackets": "(" * 10_000 + "5" + ")" * 10_000,
    "10,000 nested fractions": r"\frac{1}{" * 10_000 + "5" + "}" * 10_000,
    "50 nested fractions": r"\frac{1}{" * 50 + "5" + "}" * 50,
    "a million digits": "9" * 1_000_000,
    "a megabyte of words": "word " * 200_000,
    "a megabyte of commas": "1," * 500_000,
    "a megabyte of backslashes": "\\" * 1_000_000,
}
RESPONSES = {
    "a box without an end": "\\boxed{" + "1" * 1_000_000,
    "150,000 boxes without an end": "\\boxed{" * 150_000,
    "150,000 nested boxes": "\\boxed{" * 150_000 + "}" * 150_000,
    "a megabyte of dollars": "$" * 1_000_000,
    "a megabyte of answers": "the answer is " * 75_000,
}


def pathological(rows: Sequence[Row]) -> Row:
    """Seconds by the clock and the verdict of each, alone: without the limit of characters, and with all limits."""
    free, limited = make_judge(workers=1, max_characters=10**9), make_judge(workers=1)
    result = {
        "without the limit of characters": [alone(free, what, text) for what, text in PATHOLOGICAL.items()],
        "with all limits": [alone(limited, what, text) for what, text in PATHOLOGICAL.items()],
        "whole responses": [alone(limited, what, text, "flexible") for what, text in RESPONSES.items()],
    }
    free.close()
    limited.close()
    slowest = max(entry["seconds"] for part in result.values() for entry in part)
    dearest = max(entry["worker_cpu"] for part in result.values() for entry in part)
    right = sum(entry["verdict"] == "right" for part in result.values() for entry in part)
    return {
        "limit_cpu_seconds": free.seconds,
        "slowest_seconds": slowest,
        "most_worker_cpu": dearest,
        "right": right,
        **result,
    }


def alone(judge: MathVerifier, what: str, text: str, answer_format: AnswerFormat | None = None) -> Row:
    """Verdict, outcome and seconds of a batch of one, on a warm worker; with the canary that every batch has."""
    judge.judge([("3", "4")])
    started, used = time.perf_counter(), ended_workers_seconds()
    answer = text if answer_format is None else final_answer(text, answer_format)
    feedback = judge.judge([(answer, "42")])[0]
    seconds = round(time.perf_counter() - started, 2)
    outcome = feedback.evidence["outcome"]
    cpu = round(ended_workers_seconds() - used, 2)
    return {"what": what, "verdict": feedback.verdict.value, "outcome": outcome, "seconds": seconds, "worker_cpu": cpu}


def ended_workers_seconds() -> float:
    """Processor time of all workers that have ended, their start included."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def bench(rows: Sequence[Row]) -> Row:
    """Pairs a second with one worker on one core: as mathematics, then as in training."""
    random.Random(SEED).shuffle(sample := [row for row in rows if row["answer"]])
    answers = [row["answer"] for row in sample[:2001]]
    pairs = list(dict.fromkeys(itertools.pairwise(answers)))
    judge = make_judge(workers=1)
    judge.judge([("3", "4")])
    alone = clocked(lambda: [future.result() for future in [judge.ask(*pair) for pair in pairs]])
    again = clocked(lambda: judge.judge([(answer, answer) for answer in answers]))
    judge.close()
    return {
        "machine": platform.machine(),
        "pairs": len(pairs),
        "wrong_pairs_per_second_per_core": round(len(pairs) / alone, 1),
        "milliseconds_per_pair": round(1000 * alone / len(pairs), 2),
        "same_text_pairs_per_second": round(len(answers) / again, 1),
    }


def clocked(work: Callable[[], Any]) -> float:
    """Seconds by the clock."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def told(row: Row, feedback: Feedback) -> Row:
    """A row that needs an explanation."""
    return {"id": row["id"], **{name: feedback.evidence.get(name) for name in ("parsed", "expected", "outcome")}}


def count(names: Iterable[str]) -> dict[str, int]:
    """How often each occurs, the commonest first."""
    return dict(Counter(names).most_common())


PARTS: dict[str, Callable[[Sequence[Row]], Row]] = {
    "canonical": canonical,
    "shuffled": shuffled,
    "neighbours": neighbours,
    "pathological": pathological,
    "bench": bench,
}

if __name__ == "__main__":
    main()
