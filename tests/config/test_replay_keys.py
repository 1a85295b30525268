"""The keys of the replay sampler: few, the same for its controls, and found under their former names."""

from collections.abc import Mapping

import pytest

from rrl.config.check import load
from rrl.config.choices import groups
from rrl.config.compose import compose
from rrl.parts.samplers.controls import Redraw, SuccessPrefix
from rrl.parts.samplers.reanalyse import Reanalyse, ReanalyseRedraw
from rrl.parts.samplers.retrospective import Retrospective
from rrl.parts.selections.random_cut import RandomCut

KINDS = {
    "retrospective": Retrospective, "redraw": Redraw, "random_cut": Retrospective, "canonical": Retrospective,
    "success_prefix": SuccessPrefix, "reanalyse": Reanalyse, "reanalyse_redraw": ReanalyseRedraw,
}  # fmt: skip


@pytest.mark.parametrize("sampler", KINDS)
def test_the_replay_sampler_and_its_controls_have_nine_keys_of_their_own(sampler: str) -> None:
    values = compose("train", [f"sampler={sampler}", "selection=critic_rise"]).values
    own = [key for key, value in values.items() if key.startswith("sampler.") and not isinstance(value, Mapping)]
    assert sorted(key for key in own if not key.endswith("_target_") and not str(values[key]).startswith("${")) == [
        "sampler.buffer.capacity", "sampler.buffer.keep_between", "sampler.buffer.priority",
        "sampler.buffer.states_per_problem", "sampler.max_problem_success", "sampler.schedule.collect",
        "sampler.schedule.share", "sampler.sources", "sampler.success_momentum",
    ]  # fmt: skip


@pytest.mark.parametrize(("sampler", "kind"), KINDS.items())
def test_a_control_is_a_class_or_a_setting(sampler: str, kind: type[Retrospective]) -> None:
    _, parts = load("train", [f"sampler={sampler}", "selection=critic_rise"])
    assert type(parts.sampler) is kind
    assert (parts.sampler.sources == "canonical") == (sampler == "canonical")
    brings = ("random_cut", "canonical", "success_prefix")
    assert isinstance(parts.sampler.selection, RandomCut) == (sampler in brings)


@pytest.mark.parametrize("rule", groups()["selection"])
def test_the_redraw_control_takes_every_selection_rule(rule: str) -> None:
    choices = ["sampler=redraw", f"selection={rule}", "template=chat", "data.cut_points=line"]
    redrawn = load("train", choices)[1].sampler
    replayed = load("train", [*choices, f"sampler._target_={Retrospective.__module__}.Retrospective"])[1].sampler
    assert (type(redrawn), redrawn.selection) == (Redraw, replayed.selection)


def test_a_share_can_be_a_list_of_points() -> None:
    _, parts = load("train", ["sampler.schedule.share=[[0, 0], [0.3, 0.5], [1, 0.5]]"])
    assert [parts.sampler.schedule.share_at(progress) for progress in (0, 0.15, 0.3, 0.9)] == [0, 0.25, 0.5, 0.5]


FORMER = {
    "sampler.schedule.collect_from": "'sampler.schedule.collect'",
    "sampler.schedule.collect_until": "'sampler.schedule.collect'",
    "sampler.schedule.ramp_from": "'sampler.schedule.share'",
    "sampler.schedule.ramp_until": "'sampler.schedule.share'",
    "sampler.schedule.decay_from": "'sampler.schedule.share'",
    "sampler.schedule.decay_until": "'sampler.schedule.share'",
    "sampler.buffer.evict_after_failures": "'sampler.buffer.keep_between'",
    "sampler.buffer.evict_above": "'sampler.buffer.keep_between'",
    "sampler.buffer.evict_min_visits": "'sampler.buffer.keep_between'",
    "sampler.buffer.overflow": "sampler.buffer.capacity, at which the state of the lowest score is given up",
    "sampler.start_from": "sampler=redraw",
    "sampler.harvest": "sampler=success_prefix",
    "sampler.harvest_replayed": "sampler.sources=self, which collects from responses to the prompt alone",
    "sampler.rescore_every": "sampler.schedule.collect, within which a state that is found again gets a new score",
    "sampler.min_explained_variance": (
        "'selection.min_explained_variance' (with selection="
        "critic_middle|critic_rise|critic_threshold|entropy|largest_fall|peak|top_k)"
    ),
}


@pytest.mark.parametrize(("key", "meant"), FORMER.items())
def test_a_former_name_leads_to_the_present_one(key: str, meant: str) -> None:
    assert compose("train", [f"{key}=1"]).faults == [f"{key}: no such key; did you mean {meant}?"]
