"""Collation: the prompt and a replayed prefix are context, and every number lands on its own token."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from fixtures.replay import EOS, PAD, problem, rollout
from rrl.collate import collate, context_batch, engine_logprobs, pad_left, pad_right
from rrl.types import Batch, State

LONG, SHORT = problem("long", prompt=(1, 5, 6, 7)), problem("short", level="hard", prompt=(1, 8))
FRESH = rollout(State(SHORT), (9, EOS), logprobs=(-0.25, -0.5))
REPLAYED = rollout(State(LONG, prefix=(10, 11), replayed_from="long@1"), (4, 5, EOS), logprobs=(-1.0, -2.0, -3.0))


@pytest.fixture
def batch() -> Batch:
    return collate([FRESH, REPLAYED], [[0.5, 1.0], [2.0, 3.0, 4.0]], pad=PAD)


def test_padding_stands_behind_rows_or_in_front_of_them():
    rows = [(4, 5, 6), (7,)]
    assert [part.tolist() for part in pad_right(rows, 9)] == [
        [[4, 5, 6], [7, 9, 9]],
        [[True] * 3, [True, False, False]],
    ]
    assert [part.tolist() for part in pad_left(rows, 9)] == [[[4, 5, 6], [9, 9, 7]], [[True] * 3, [False, False, True]]]


def test_prompt_prefix_and_actions_stand_in_this_order_and_padding_follows(batch):
    assert batch.tokens.tolist() == [[1, 8, 9, 2, 0, 0, 0, 0, 0], [1, 5, 6, 7, 10, 11, 4, 5, 2]]


def test_attention_is_on_every_real_token_prefix_included(batch):
    assert batch.attention.int().tolist() == [[1, 1, 1, 1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1, 1]]


def test_only_new_tokens_are_acted_on_so_that_a_prefix_is_context(batch):
    assert batch.mask.int().tolist() == [[0, 0, 1, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 1, 1, 1]]


def test_rewards_land_on_the_tokens_they_pay(batch):
    assert batch.rewards.tolist() == [[0, 0, 0.5, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 2, 3, 4]]


def test_the_engines_logprobs_land_on_their_tokens(batch):
    spread = engine_logprobs([FRESH, REPLAYED], batch.mask)
    assert spread.tolist() == [[0, 0, -0.25, -0.5, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, -1, -2, -3]]


def test_the_mass_that_truncation_kept_is_added_to_the_engines_logprobs(batch):
    truncated = replace(REPLAYED, kept=(-0.5, 0.0, -0.25))
    assert engine_logprobs([FRESH, truncated], batch.mask)[1].tolist() == [0, 0, 0, 0, 0, 0, -1.5, -2, -3.25]


@pytest.mark.parametrize(
    "name", ["weight", "old_logprobs", "ref_logprobs", "entropies", "values", "advantages", "returns"]
)
def test_what_others_fill_in_begins_at_zero(batch, name):
    assert getattr(batch, name).shape == (2, 9) and not getattr(batch, name).any()


def test_a_padding_token_that_is_also_the_end_token_is_not_attended_to():
    batch = collate([FRESH, REPLAYED], [[0.0] * 2, [0.0] * 3], pad=EOS)
    assert batch.tokens[0].tolist() == [1, 8, 9, 2, 2, 2, 2, 2, 2]
    assert batch.attention[0].sum() == 4 and batch.mask[0].sum() == 2


def test_rows_of_one_start_state_share_a_group_and_another_prefix_is_another_group():
    states = [State(LONG), State(LONG, (10,)), State(SHORT), State(LONG), State(LONG, (10,)), State(LONG, (10, 11))]
    batch = collate([rollout(state, (4,)) for state in states], [[0.0]] * 6, PAD)
    assert batch.group.tolist() == [0, 1, 2, 0, 1, 3]


def test_a_redrawn_prompt_is_the_same_start_state_as_an_ordinary_one():
    rollouts = [rollout(State(LONG), (4,)), rollout(State(LONG, replayed_from="long@1"), (4,))]
    assert collate(rollouts, [[0.0]] * 2, PAD).group.tolist() == [0, 0]


def test_rows_say_whether_they_were_replayed():
    starts = [State(SHORT), State(SHORT, (4,), replayed_from="short@1"), State(SHORT, (), "short@1")]
    rollouts = [rollout(start, (5,)) for start in starts]
    assert collate(rollouts, [[0.0]] * 3, PAD).replayed.tolist() == [False, True, True]


def test_rows_of_one_level_share_a_level_number():
    problems = [LONG, SHORT, problem("other", level="easy"), problem("third", level="hardest")]
    batch = collate([rollout(State(p), (4,)) for p in problems], [[0.0]] * 4, PAD)
    assert batch.level.tolist() == [0, 1, 0, 2]


def test_choosing_rows_drops_the_columns_that_only_other_rows_needed(batch):
    rows = batch.rows((batch.level == 0).nonzero()[:, 0])
    assert rows.tokens.tolist() == [[1, 8, 9, 2]] and rows.rewards.tolist() == [[0, 0, 0.5, 1]]
    assert rows.level.tolist() == [0]


TOKENIZER = SimpleNamespace(pad_token_id=PAD, eos_token_id=EOS)


def test_a_context_batch_acts_on_the_prefix_and_an_end_token():
    batch = context_batch([State(SHORT), State(LONG, (10, 11))], TOKENIZER, longest=7)
    assert batch.tokens.tolist() == [[1, 8, 2, 0, 0, 0, 0], [1, 5, 6, 7, 10, 11, 2]]
    assert batch.attention.int().tolist() == [[1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1]]
    assert batch.mask.int().tolist() == [[0, 0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1]]


def test_a_prefix_that_fills_the_model_is_read_without_an_end_token():
    batch = context_batch([State(SHORT), State(LONG, (10, 11))], TOKENIZER, longest=6)
    assert batch.tokens.tolist() == [[1, 8, 2, 0, 0, 0], [1, 5, 6, 7, 10, 11]]
    assert batch.mask.int().tolist() == [[0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 1, 1]]
