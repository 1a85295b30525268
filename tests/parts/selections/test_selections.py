"""Selection rules on values written by hand, and the points at which a response may be cut."""

import inspect
import math
from collections import Counter
from dataclasses import replace
from functools import partial
from random import Random

import pytest

from fixtures.replay import ids, tiny
from rrl.cuts import Cutter
from rrl.errors import DataError
from rrl.parts.selections.confidence import Confidence
from rrl.parts.selections.critic import CriticMiddle, CriticPeak, CriticRise, CriticThreshold, CriticTopK
from rrl.parts.selections.entropy import HighestEntropy
from rrl.parts.selections.falls import LargestFall
from rrl.parts.selections.oracle import Oracle
from rrl.parts.selections.random_cut import RandomCut, RandomWithin
from rrl.types import TokenScores

CRITIC = (CriticThreshold, CriticRise, CriticPeak, CriticTopK, CriticMiddle)
threshold, rise, peak, top_k, middle = (partial(rule, min_explained_variance=None) for rule in CRITIC)
# Seven tokens. The highest value, 0.9, stands after three of them; the token that was doubted most is the last.
RESPONSE = TokenScores(
    logprobs=tuple(math.log(p) for p in (0.9, 0.8, 1.0, 0.5, 1.0, 1.0, 0.25)),
    values=(0.25, 0.5, 0.3, 0.9, 0.7, 0.75, 0.4, 0.8),
    entropies=(2.0, 0.5, 0.5, 1.5, 1.0, 0.25, 1.75),
)
ALL = [1, 2, 3, 4, 5, 6]
RULES = [threshold(tau=-9), rise(delta=-9), top_k(k=2), peak(fall=-9), middle(middle=0.5), RandomCut()]


def entropy(*window, top_value=None, gate=None):
    return HighestEntropy(window=window, top_value=top_value, min_explained_variance=gate)


def fall(of, gate=None):
    return LargestFall(of=of, min_explained_variance=gate)


RULES += [Confidence(below=0.7), entropy(0, 1), fall("logprob")]


def cuts(rule, legal=ALL, response=RESPONSE):
    return rule.cuts(response, legal, Random(0))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_no_rule_cuts_where_there_is_no_legal_point(rule):
    assert cuts(rule, []) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_every_rule_cuts_at_legal_points_only(rule):
    assert cuts(rule, [2, 5]) and set(cuts(rule, [2, 5])) <= {2, 5}


@pytest.mark.parametrize(
    ("rule", "critic"), [(rule, type(rule).__name__.startswith("Critic")) for rule in RULES], ids=lambda x: str(x)[:12]
)
def test_a_rule_says_whether_it_reads_the_critic(rule, critic):
    assert rule.needs_critic is critic


@pytest.mark.parametrize("rule", CRITIC)
def test_a_rule_that_reads_the_critic_has_a_gate_and_no_default_for_it(rule):
    (named,) = (name for name in inspect.signature(rule).parameters if name != "min_explained_variance")
    assert rule(**{named: 1}, min_explained_variance=0.5).min_explained_variance == 0.5
    with pytest.raises(TypeError, match="min_explained_variance"):
        rule(**{named: 1})


@pytest.mark.parametrize("rule", [RandomCut(), Confidence(below=0.5)])
def test_a_rule_that_does_not_read_the_critic_has_no_gate(rule):
    assert rule.min_explained_variance is None


@pytest.mark.parametrize(
    ("tau", "legal", "expected"),
    [(0.5, ALL, [3]), (0.9, ALL, [3]), (0.91, ALL, []), (0.5, [1, 2, 4, 6], [4]), (0.75, [1, 2, 4, 6], [])],
)
def test_threshold_takes_the_best_legal_state_if_it_is_valued_enough(tau, legal, expected):
    assert cuts(threshold(tau=tau), legal) == expected


@pytest.mark.parametrize(("delta", "legal", "expected"), [(0.5, ALL, [3]), (0.7, ALL, []), (0.5, [1, 5], [5])])
def test_rise_is_measured_from_the_bare_start(delta, legal, expected):
    assert cuts(rise(delta=delta), legal) == expected


@pytest.mark.parametrize(
    ("k", "legal", "expected"), [(1, ALL, [3]), (3, ALL, [3, 4, 5]), (2, [1, 2, 6], [1, 6]), (9, [6, 2], [2, 6])]
)
def test_top_k_takes_the_best_legal_states_in_order_of_length(k, legal, expected):
    assert cuts(top_k(k=k), legal) == expected


# After 3 tokens the value falls from 0.9 to 0.4; after 5 from 0.75 to 0.4; after 6 it only rises.
@pytest.mark.parametrize(
    ("fall", "legal", "expected"), [(0.5, ALL, [3]), (0.51, ALL, []), (0.35, [1, 5], [5]), (0.01, [6], [])]
)
def test_peak_takes_the_best_legal_state_if_the_value_later_falls(fall, legal, expected):
    assert cuts(peak(fall=fall), legal) == expected


@pytest.mark.parametrize("rule", [peak(fall=0.1), fall("value")])
def test_what_the_critic_says_after_the_end_token_is_no_fall(rule):
    reference = TokenScores(logprobs=(0.0,) * 4, values=(0.2, 0.5, 0.9, 0.9, -3.0))
    assert cuts(rule, [1, 2, 3], reference) == []


@pytest.mark.parametrize(
    "rule", [threshold(tau=0), rise(delta=0), peak(fall=0), top_k(k=1), middle(middle=0), entropy(0, 1, top_value=0.9)]
)
def test_of_equal_values_the_shortest_prefix_is_taken(rule):
    flat = TokenScores(logprobs=(0.0,) * 4, values=(0.5,) * 4, entropies=(1.0,) * 4)
    assert cuts(rule, [1, 2, 3], flat) == [1]


@pytest.mark.parametrize(
    ("value", "legal", "expected"), [(0.5, ALL, [1]), (0.72, ALL, [4]), (0.5, [3, 5, 6], [6]), (2.0, [1, 3, 5], [3])]
)
def test_middle_takes_the_state_whose_value_is_nearest(value, legal, expected):
    assert cuts(middle(middle=value), legal) == expected


# Of 7 tokens, the window [1/4, 3/4] holds the cuts from 1.75 to 5.25: 2, 3, 4 and 5, with values 0.3, 0.9, 0.7, 0.75.
@pytest.mark.parametrize(
    ("rule", "legal", "expected"),
    [(entropy(0, 1), ALL, [6]), (entropy(0.25, 0.75), ALL, [3]), (entropy(0.25, 0.75), [1, 4, 5, 6], [4]),
     (entropy(0.25, 0.75), [1, 6], []), (entropy(0, 0.3), ALL, [1]), (entropy(0.25, 0.75, top_value=0.5), ALL, [3]),
     (entropy(0.25, 0.75, top_value=0.5), [2, 4, 5, 6], [5]), (entropy(0.5, 1, top_value=0.7), ALL, [4])],
)  # fmt: skip
def test_entropy_takes_the_most_uncertain_point_of_the_window_among_those_of_high_value(rule, legal, expected):
    assert cuts(rule, legal) == expected


# Values at the ends of the steps 0-2-4-6, and before the end token: 0.25, 0.3, 0.7, 0.4. Falls: -0.05, -0.4, 0.3, 0.
# Log-probabilities of the steps 0-2, 2-4, 4-6, 6-7: log 0.72, log 0.5, 0, log 0.25; of 0-1, 1-6, 6-7: the last again.
@pytest.mark.parametrize(
    ("of", "legal", "expected"),
    [("value", [2, 4, 6], [4]), ("value", ALL, [5]), ("value", [1, 2], [1]), ("value", [3], [3]), ("value", [2], []),
     ("logprob", [2, 4, 6], [6]), ("logprob", [2, 4], [4]), ("logprob", [2, 5], [5]), ("logprob", [4, 5], [5]),
     ("logprob", [1, 6], [6])],
)  # fmt: skip
def test_fall_takes_the_point_before_the_step_that_falls_most_unless_that_is_the_first(of, legal, expected):
    assert cuts(fall(of), legal) == expected


def test_where_no_value_falls_there_is_no_cut():
    rising = TokenScores(logprobs=(0.0,) * 3, values=(0.1, 0.2, 0.2, 0.0))
    assert cuts(fall("value"), [1, 2], rising) == []


def test_where_the_first_step_was_the_least_likely_there_is_no_cut():
    assert cuts(fall("logprob"), [1, 2], TokenScores(logprobs=(-2.0, -0.1, -0.1), values=())) == []


@pytest.mark.parametrize(
    ("right", "legal", "expected"), [(4, ALL, [4]), (4, [2, 3, 5], [3]), (9, ALL, [6]), (0, ALL, [])]
)
def test_the_oracle_takes_the_last_legal_point_before_the_first_error(right, legal, expected):
    assert cuts(Oracle(cut="last"), legal, replace(RESPONSE, right=right)) == expected


def test_the_oracle_takes_any_point_before_the_first_error_where_it_is_to_be_random():
    rule, right = Oracle(cut="random"), replace(RESPONSE, right=4)
    taken = Counter(rule.cuts(right, [1, 2, 4, 5], Random(seed))[0] for seed in range(300))
    assert set(taken) == {1, 2, 4} and min(taken.values()) > 70
    assert cuts(rule, [5], right) == []
    assert (rule.score(right, 4), Oracle(cut="last").score(right, 4)) == (0.0, 4.0)


def test_the_oracle_is_refused_where_the_task_does_not_tell_errors():
    with pytest.raises(DataError, match=r"oracle needs the place of the first error, .* task=trace"):
        cuts(Oracle(cut="last"))


@pytest.mark.parametrize("rule", [fall("value"), entropy(0, 1, top_value=0.5)])
def test_a_rule_reads_the_critic_by_its_setting(rule):
    assert rule.needs_critic and rule.min_explained_variance is None


# Token by token the first below 0.85 is token 1 (0.8), below 0.8 token 3 (0.5), below 0.5 token 6 (0.25). Cut after 2
# and 5 tokens the steps have mean probabilities of 0.85, 2.5/3 = 0.833 and 0.625; after 4 and 5: 0.8, 1 and 0.625.
@pytest.mark.parametrize(
    ("below", "legal", "expected"),
    [(0.85, ALL, [1]), (0.79, ALL, [3]), (0.49, ALL, [6]), (0.2, ALL, []), (0.86, [2, 5], []), (0.84, [2, 5], [2]),
     (0.83, [2, 5], [5]), (0.62, [2, 5], []), (0.79, [4, 5], [5]), (0.81, [4, 5], []), (0.99, [], [])],
)  # fmt: skip
def test_confidence_cuts_before_the_first_step_that_was_doubtful_on_average(below, legal, expected):
    assert cuts(Confidence(below=below), legal) == expected


def test_confidence_finds_nothing_in_a_response_without_a_token():
    assert Confidence(below=1.0).cuts(TokenScores((), (0.5,)), [], Random(0)) == []


def test_random_cut_draws_every_legal_point_evenly():
    rng = Random(0)
    counts = Counter(cut for _ in range(30_000) for cut in RandomCut().cuts(RESPONSE, [1, 3, 4], rng))
    assert {cut: n / 30_000 for cut, n in counts.items()} == pytest.approx({k: 1 / 3 for k in (1, 3, 4)}, abs=0.01)


# Of seven tokens 40 to 80 % are 2.8 to 5.6, 3/7 to 5/7 are 3 to 5, and 0 to 10 % are none.
@pytest.mark.parametrize(
    ("window", "legal", "drawn"),
    [((0.4, 0.8), ALL, {3, 4, 5}), ((3 / 7, 5 / 7), ALL, {3, 4, 5}), ((0.4, 0.8), [1, 4, 6], {4}),
     ((0.4, 0.8), [1, 2, 6], set()), ((0.0, 0.1), ALL, set()), ((0.0, 1.0), ALL, set(ALL))],
)  # fmt: skip
def test_a_random_cut_may_be_bound_to_a_window(window, legal, drawn):
    rng, rule = Random(0), RandomWithin(window=window)
    assert {cut for _ in range(200) for cut in rule.cuts(RESPONSE, legal, rng)} == drawn


@pytest.mark.parametrize("window", [(0.8, 0.4), (0.4, 0.4), (-0.1, 0.5), (0.5, 1.1)])
def test_an_impossible_window_is_refused(window):
    with pytest.raises(ValueError, match=r"window: expected two rising shares from 0 to 1"):
        RandomWithin(window=window)


@pytest.mark.parametrize(
    ("rule", "score"),
    [(threshold(tau=0), 0.9), (top_k(k=1), 0.9), (peak(fall=0), 0.9), (rise(delta=0), 0.65),
     (Confidence(below=0.5), 0.72), (RandomCut(), 0.0), (middle(middle=0.5), -0.4), (entropy(0, 1), 1.5),
     (fall("value"), 0.9), (fall("logprob"), 0.72)],
    ids=lambda x: type(x).__name__,
)  # fmt: skip
def test_the_score_of_a_cut_is_the_rules_own(rule, score):
    assert rule.score(RESPONSE, 3) == pytest.approx(score)


@pytest.mark.parametrize(
    ("make", "message"),
    [(lambda: Confidence(below=0), "below"), (lambda: Confidence(below=1.1), "below"), (lambda: top_k(k=0), "k:"),
     (lambda: entropy(0.5, 0.5), "window"), (lambda: entropy(0, 1, top_value=1.1), "top_value"),
     (lambda: entropy(0, 1, gate=0.1), "min_explained_variance.*top_value"),
     (lambda: fall("logprob", gate=0.1), "min_explained_variance.*of=value")],
)  # fmt: skip
def test_an_impossible_setting_is_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --- where a response may be cut --------------------------------------------------------------------------------------


def byte_cuts(text: str, points: str) -> list[str]:
    """The states of an ASCII text, a token a character."""
    tokenizer = tiny(None).tokenizer
    return [text[:k] for k in Cutter(tokenizer, points).legal(ids(tokenizer, text))]


def word_cuts(words: list[str], points: str) -> list[int]:
    """The lengths at which a response of these words may be cut, a word a token (which may hold blanks)."""
    tokenizer = tiny(tuple(dict.fromkeys(words))).tokenizer
    return Cutter(tokenizer, points).legal(tokenizer.convert_tokens_to_ids(words))


@pytest.mark.parametrize("points", ["token", "line", "sentence"])
@pytest.mark.parametrize("text", ["", "\n", "."])
def test_neither_nothing_nor_the_whole_response_is_a_state(points, text):
    assert byte_cuts(text, points) == []


def test_a_token_may_be_cut_after_anywhere():
    assert byte_cuts("abc", "token") == ["a", "ab"]
    assert word_cuts(["one", "two", "three", "four"], "token") == [1, 2, 3]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a\nb. c\nd", ["a\n", "a\nb. c\n"]), ("a\n\nb", ["a\n", "a\n\n"]), ("a. b! c?", []), ("a\n", [])],
)
def test_a_line_ends_with_a_newline_and_nothing_else(text, expected):
    assert byte_cuts(text, "line") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It is so. Yes! Why? End", ["It is so.", "It is so. Yes!", "It is so. Yes! Why?"]),
        ("pay 3.5 now", []),
        ("take 3. Then", ["take 3."]),
        ("one\ntwo", ["one\n"]),
        ("a, b; c: d", []),
    ],
)
def test_a_sentence_ends_with_its_mark_or_its_line_but_not_inside_a_number(text, expected):
    assert byte_cuts(text, "sentence") == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["Stop.", "Go", "on!", "Now"], [1, 3]),
        (["3.", "5", "is", "3.5", "is", "3.", "so"], [6]),
        (["(end.)", "he", 'said."', "No?'", "x"], [1, 3, 4]),
        (["so. ", "it", "e.g", "is"], [1]),
        ([".\n", "5", "x"], [1]),
        (["!", "5", "x"], [1]),
    ],
)
def test_a_sentence_ends_where_its_token_does(words, expected):
    assert word_cuts(words, "sentence") == expected


@pytest.mark.parametrize("points", ["line", "sentence"])
def test_a_newline_may_have_blanks_behind_it_but_no_text(points):
    assert word_cuts(["a", "\n  ", "b\n", "\t\n\t", "\nc", "d"], points) == [2, 3, 4]
