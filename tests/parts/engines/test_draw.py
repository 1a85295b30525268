"""Drawing a token: the shaped distribution, its uniform number, and the log-probabilities that come with it."""

import math
from collections import Counter

import pytest
import torch

from rrl.parts.engines.hf import draw
from rrl.types import Sampling

PLAIN = Sampling(temperature=1.0, top_p=1.0, top_k=0, max_new_tokens=12, stop=())


# Four tokens of probability 0.15, 0.5, 0.05 and 0.3. Each row: shape, what stays of them, mass that was kept.
@pytest.mark.parametrize(
    ("shape", "probabilities", "mass"),
    [
        ({}, (0.15, 0.5, 0.05, 0.3), 1.0),
        ({"top_k": 2}, (0.0, 0.625, 0.0, 0.375), 0.8),
        ({"top_p": 0.7}, (0.0, 0.625, 0.0, 0.375), 0.8),
        ({"top_p": 0.9}, (0.15 / 0.95, 0.5 / 0.95, 0.0, 0.3 / 0.95), 0.95),
        ({"top_k": 1}, (0.0, 1.0, 0.0, 0.0), 0.5),
        # Squared and normalised: 0.0225, 0.25, 0.0025, 0.09 of 0.365.
        ({"temperature": 0.5}, (0.0225 / 0.365, 0.25 / 0.365, 0.0025 / 0.365, 0.09 / 0.365), 1.0),
        ({"temperature": 0.5, "top_k": 2}, (0.0, 0.25 / 0.34, 0.0, 0.09 / 0.34), 0.34 / 0.365),
        # First the temperature, then top-k, then top-p: 0.25 / 0.365 and 0.5 / 0.8 alone are more than 0.6; 0.5 is not.
        ({"temperature": 0.5, "top_p": 0.6}, (0.0, 1.0, 0.0, 0.0), 0.25 / 0.365),
        ({"top_k": 2, "top_p": 0.6}, (0.0, 1.0, 0.0, 0.0), 0.5),
    ],
)
def test_tokens_are_drawn_from_the_shaped_distribution_and_priced_by_it(shape, probabilities, mass):
    settings = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "max_new_tokens": 1, "stop": ()}
    uniform = (torch.arange(10_000) + 0.5) / 10_000
    logits = torch.tensor([0.15, 0.5, 0.05, 0.3]).log().expand(10_000, 4)
    tokens, logprobs, kept = draw(logits, uniform, Sampling(**settings | shape))
    counts = Counter(tokens.tolist())
    assert [counts[token] / 10_000 for token in range(4)] == pytest.approx(probabilities, abs=2e-4)
    assert (logprobs - torch.tensor(probabilities).log()[tokens]).abs().max() < 1e-5
    assert (kept - math.log(mass)).abs().max() < 1e-5


# The shares of 0.25, 0.5 and 0.25 end at 0.25, 0.75 and 1; a token without a share is never drawn.
@pytest.mark.parametrize(
    ("row", "uniform", "expected"),
    [((0.25, 0.5, 0.25), 0.0, 0), ((0.25, 0.5, 0.25), 0.2499, 0), ((0.25, 0.5, 0.25), 0.2501, 1),
     ((0.25, 0.5, 0.25), 0.7499, 1), ((0.25, 0.5, 0.25), 0.7501, 2), ((0.0, 0.5, 0.5), 0.0, 1),
     ((0.5, 0.5, 0.0), 1 - 2**-24, 1)],
)  # fmt: skip
def test_a_uniform_number_falls_on_the_token_whose_share_it_is_in(row, uniform, expected):
    tokens, _, _ = draw(torch.tensor([row]).log(), torch.tensor([uniform]), PLAIN)
    assert tokens.tolist() == [expected]


def test_temperature_zero_takes_the_likeliest_token_for_sure():
    logits, greedy = torch.tensor([[0.0, 3.0, 1.0], [2.0, 1.0, 0.0]]), Sampling(0.0, 1.0, 0, 1, ())
    tokens, logprobs, kept = draw(logits, torch.tensor([0.99, 0.99]), greedy)
    assert (tokens.tolist(), logprobs.tolist(), kept.tolist()) == ([1, 0], [0.0, 0.0], [0.0, 0.0])
