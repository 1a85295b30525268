"""Guided self-improvement: what is learnt, an iteration, and that it goes on where it was."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from fixtures.gsi import MostlyEven, like, make_gsi, thirds
from fixtures.ranks import on_ranks
from fixtures.runs import finish, history, kill_when, start, step_of
from fixtures.training import PAD, apart, by_hand, make_engine, problem, problems, weights
from rrl.errors import DivergenceError
from rrl.parts.engines.hf import HFEngine
from rrl.parts.guidance.hint import Hint
from rrl.parts.objectives.supervised import Supervised
from rrl.runs.checkpoint import Checkpoints
from rrl.training.gsi import GSI
from rrl.training.gsi_state import AcceptedAnswer, Position, as_batch
from rrl.types import PolicyOutput, Problem, State

pytestmark = pytest.mark.ranks

# --- what is learnt ---------------------------------------------------------------------------------------------------


def test_a_given_prefix_is_learnt_and_the_prompt_is_not():
    given = [problem((1, 8, 9), name="p"), problem((1, 4), name="q")]
    batch = as_batch([AcceptedAnswer(1, (5, 6, 2), guided=True), AcceptedAnswer(0, (7, 2), guided=False)], given, PAD)
    assert batch.tokens.tolist() == [[1, 4, 5, 6, 2], [1, 8, 9, 7, 2]]
    assert batch.mask.tolist() == [[False, False, True, True, True], [False, False, False, True, True]]
    assert batch.rewards.tolist() == [[0, 0, 0, 0, 1.0], [0, 0, 0, 0, 1.0]]


PAID = by_hand(["0110", "0011"], rewards=[[9.0, 0.0, 1.0, 9.0], [9.0, 9.0, 0.0, 0.5]])


def test_the_loss_is_the_negative_log_likelihood_weighed_by_pay():
    batch = Supervised().assign_credit(PAID)
    assert batch.advantages.tolist() == [[0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.5, 0.5]]
    logprobs = torch.tensor([[math.nan, -1.0, -2.0, math.nan], [math.nan, math.nan, -4.0, -8.0]], requires_grad=True)
    loss, critic, metrics = Supervised().loss(batch, PolicyOutput(logprobs, torch.ones(2, 4), None))
    assert (float(loss), float(critic)) == (2.25, 0.0)  # (1 + 2 + 2 + 4) / 4
    assert metrics == {"actor/sft_loss": 2.25, "actor/entropy": 1.0}
    loss.backward()
    assert logprobs.grad.tolist() == [[0.0, -0.25, -0.25, 0.0], [0.0, 0.0, -0.125, -0.125]]


@pytest.mark.parametrize(
    ("iteration", "phase", "queue", "pieces", "done"),
    [
        (1, "sample", [[0], [1]], 2, 0.0), (2, "sample", [[0]], 4, 1.375), (2, "guide", [[0]], 4, 1.725),
        (1, "guide", [], 3, 0.8), (3, "tune", [[0], [1]], 4, 2.9), (3, "tune", [], 4, 3.0),
    ],
)  # fmt: skip
def test_phases_share_an_iteration(iteration, phase, queue, pieces, done):
    """Half of it is sampling, three tenths are guiding, two are fine-tuning."""
    at = Position(iteration=iteration, phase=phase, queue=queue, pieces=pieces)
    assert at.done == pytest.approx(done, abs=1e-12)
    assert at.tuned == (done == 3.0)


def test_a_position_is_read_from_what_was_saved_and_shares_nothing_with_it():
    at = Position(iteration=2, drawn=[5, 3, 4], tried=2)
    at.fill("guide", [5, 3, 4], 2)
    saved = {
        "iteration": 2, "phase": "guide", "round": 0, "drawn": [5, 3, 4], "tried": 2, "queue": [[5, 3], [4]],
        "pieces": 2,
    }  # fmt: skip
    assert asdict(at) == saved
    again = Position.read({**saved, "global_step": 7})
    again.queue[0].pop()
    again.drawn.clear()
    assert (Position.read(saved), at.queue) == (at, [[5, 3], [4]])


def phases(loop: GSI, steps: int) -> list[str]:
    """The phase of each of the next steps."""
    reported = []
    for _ in range(steps):
        loop.step()
        reported.append(loop.position.phase)
    return reported


def test_a_hint_does_not_stand_in_the_training_row():
    class Longer(Hint):
        def _with_hint(self, asked: Problem) -> Problem:
            return replace(asked, prompt=(*asked.prompt, 33, 34))

    loop = make_gsi(guidance=Longer(name="answer", text="{question}{answer}"), distinct=False, min_correct=9)
    while loop.position.phase != "guide":
        loop.step()
    assert all(each.rollout.state.problem.prompt[-2:] == (33, 34) for each in loop.last_rollouts)
    guided = [answer for answer in loop._harvest.answers if answer.guided]
    batch = as_batch(guided, loop.start.problems, PAD)
    context = [row[~mask & real].tolist() for row, mask, real in zip(batch.tokens, batch.mask, batch.attention)]  # noqa: B905
    assert guided
    assert context == [list(problems()[answer.problem].prompt) for answer in guided]


def test_references_come_first_when_asked_for():
    loop = make_gsi(first_iteration="references", problems_per_iteration=None, mini_batch_size=16, train_batch_size=100)
    assert phases(loop, 1) == ["tune"]
    learnt = sorted(answer.tokens for answer in loop._harvest.answers)
    assert learnt == sorted(problem.reference for problem in problems())
    assert phases(loop, 1) == ["sample"]


def test_every_kept_answer_is_learnt_once_an_epoch():
    seen: list[Any] = []

    class Noting(Supervised):
        def loss(self, batch, output):
            seen.extend(tuple(row[mask].tolist()) for row, mask in zip(batch.tokens, batch.mask, strict=True))
            return super().loss(batch, output)

    loop = make_gsi(iterations=1, epochs=3)
    loop.objective = Noting()
    list(loop.run())
    expected = Counter(answer.tokens for answer in loop._harvest.answers)
    assert Counter(seen) == Counter({tokens: 3 * count for tokens, count in expected.items()})
    assert loop.tokens_trained == 3 * sum(len(answer.tokens) for answer in loop._harvest.answers)


# --- an iteration -----------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Noting(HFEngine):
    """An engine that remembers what it was asked."""

    asked: list[tuple[float, list[State]]] = field(default_factory=list)

    def generate(self, states, sampling=None, generator=None, written=None):
        self.asked.append((sampling.temperature, list(states)))
        return super().generate(states, sampling, generator, written)


def noting() -> Noting:
    plain = make_engine()
    return Noting(**{name: getattr(plain, name) for name in HFEngine.__dataclass_fields__ if name[0] != "_"})


def test_every_problem_is_written_on_n_times_at_the_temperature():
    loop = make_gsi(engine=noting(), problems_per_iteration=None)
    assert phases(loop, 10) == ["sample"] * 10
    assert {temperature for temperature, _ in loop.engine.asked} == {0.7}
    assert [len(states) for _, states in loop.engine.asked] == [12] * 10  # 4 problems, 3 responses to each
    written = Counter(state.problem.id for _, states in loop.engine.asked for state in states)
    assert written == {problem.id: 3 for problem in problems()}
    assert not any(state.prefix or state.replayed for _, states in loop.engine.asked for state in states)


def test_the_sampler_draws_when_not_all_problems_are_asked_for():
    loop = make_gsi(engine=noting())
    loop.step()
    levels = Counter(loop.start.problems[number].level for number in loop.position.drawn)
    assert len(set(loop.position.drawn)) == 10
    assert len(levels) == 2


def test_help_goes_to_problems_with_too_few_right_answers_a_try_at_a_time():
    loop, right, rounds = make_gsi(max_guided_attempts=2, n=2, train_batch_size=5), Counter[str](), []
    while loop.position.phase != "tune" or not loop.position.iteration:
        loop.step()
        if loop.position.phase == "guide":
            wanting = {loop.start.problems[i].id for i in loop.position.drawn} - {
                name for name in right if right[name] >= 2
            }
            rounds.append((loop.position.round, {each.rollout.state.help for each in loop.last_rollouts}))
            assert Counter(each.rollout.state.problem.id for each in loop.last_rollouts) == Counter(wanting)
        for judged in loop.last_rollouts:
            right[judged.rollout.state.problem.id] += judged.feedback.solved
    assert rounds == [(1, {"share0.2"}), (2, {"share0.4"})]
    assert any(answer.guided for answer in loop._harvest.answers)


def test_a_given_prefix_stays_in_the_answer():
    loop, wrote = make_gsi(min_correct=9), set()
    while loop.position.phase != "tune" or not loop.position.iteration:
        loop.step()
        if loop.position.phase == "guide":
            wrote |= {each.rollout.tokens for each in loop.last_rollouts if each.feedback.solved}
    guided = [answer for answer in loop._harvest.answers if answer.guided]
    given = [loop.start.problems[answer.problem].reference[:1] for answer in guided]
    assert guided
    assert {answer.tokens for answer in guided} <= wrote
    assert [answer.tokens[:1] for answer in guided] == given


def test_no_guidance_means_no_guided_tries():
    loop = make_gsi(guidance=None)
    assert set(phases(loop, 4)) == {"sample", "tune"}


def test_each_iteration_learns_from_the_starting_weights_and_writes_with_the_last_ones():
    loop, reset_to, written_with = make_gsi(policy={"lr_schedule": "linear"}), [], []
    policy, begin = loop.policy, loop.policy.reset
    start = weights(policy)

    def watched(model: Any, steps: int) -> None:
        begin(model, steps)
        optimiser = policy._engines["actor"].optimizer
        reset_to.append((weights(policy), len(optimiser.state), policy._engines["actor"].global_steps, steps))

    policy.reset = watched
    rates = []
    for metrics in loop.run():
        if "actor/lr" in metrics:
            rates.append(metrics["actor/lr"])
        elif loop.position.phase == "sample":
            written_with.append(weights(policy))
    assert len(reset_to) == 2
    for begun, moments, taken, _ in reset_to:
        assert apart(begun, start) == set()
        assert (moments, taken) == (0, 0)
    assert apart(written_with[0], start) == set()
    assert apart(written_with[-1], start) != set()
    assert rates[0] > rates[-1]
    assert reset_to[1][3] == 2 * math.ceil(len(loop._harvest.answers) / 4)  # two epochs in mini-batches of four


def test_without_a_right_answer_there_is_nothing_to_learn():
    loop = make_gsi(task=thirds(10**9), guidance=None)
    with pytest.raises(DivergenceError, match=r"step 4: no right answer in iteration 1 to 10 problems.*warm start"):
        list(loop.run())


def test_a_budget_of_tokens_ends_with_what_was_kept_being_learnt():
    loop = make_gsi(total_tokens=100, iterations=9)
    reported = list(loop.run())
    assert loop.progress == 1.0
    assert 100 <= loop.tokens_generated < 100 + 12 * 6
    assert reported[-1]["gsi/tuned_frac"] == 1.0
    assert reported[-1]["gsi/iteration"] == 1.0
    assert loop.tokens_generated == reported[-1]["budget/tokens_generated"]


def test_progress_rises_and_iterations_are_milestones():
    loop, shares, marked = make_gsi(), [], 0
    for _ in loop.run():
        shares.append(loop.progress)
        marked += loop.milestone
    assert shares == sorted(shares)
    assert (shares[-1], max(shares[:-1]) < 1, marked) == (1.0, True, 2)


def test_metrics_keep_help_and_no_help_apart():
    loop = make_gsi(min_correct=9, max_guided_attempts=2)
    reported = list(loop.run())
    guided = next(metrics for metrics in reported if metrics["gsi/round"] == 2)
    right = [judged.feedback.solved for judged in [*loop.last_rollouts]]
    assert right == []  # the last step learns
    assert guided["replay/ratio"] == 0.0 and "critic/score/fresh/mean" not in guided
    assert set(name for name in guided if "guided_success" in name) == {"gsi/guided_success/share0.4"}
    assert guided["gsi/guided_success/share0.4"] == guided["critic/score/mean"]
    assert reported[-1]["gsi/accepted"] > reported[-1]["gsi/accepted_guided"] > 0
    assert reported[-1]["gsi/problems_covered_frac"] == pytest.approx(1 - reported[-1]["gsi/unsolved_frac"])


# --- what must not matter ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole() -> tuple[list[Any], list[str], dict[str, torch.Tensor]]:
    """Every step's metrics and phase, never interrupted, and the weights at the end."""
    loop = make_gsi(problems_per_iteration=7)
    reported = [(metrics, loop.position.phase) for metrics in loop.run()]
    return [metrics for metrics, _ in reported], [phase for _, phase in reported], weights(loop.policy)


def test_it_goes_on_bit_for_bit_from_every_step(whole, tmp_path):
    metrics, phases_, end = whole
    first = [phases_.index(phase) + 1 for phase in ("sample", "guide", "tune")]
    middle = next(k for k in range(1, len(metrics)) if phases_[k - 1] == phases_[k] == "tune")
    chosen = sorted({*first, middle, phases_.index("sample", first[2])})
    checkpoints, loop = Checkpoints(tmp_path, 99, 0), make_gsi(problems_per_iteration=7)
    for _ in islice(loop.run(), chosen[-1]):
        if loop.global_step in chosen:
            checkpoints.save(loop, None)
    for step in chosen:
        again, folder = make_gsi(problems_per_iteration=7), tmp_path / f"at-{step}"
        (folder / "checkpoints").mkdir(parents=True)
        name = f"step-{step:06d}"
        (folder / "checkpoints" / name).symlink_to(tmp_path / "checkpoints" / name)
        assert Checkpoints(folder, 99, 0).restore(again) == step
        assert list(again.run()) == metrics[step:]
        assert apart(weights(again.policy), end) == set()


@pytest.mark.parametrize("policy", [{"zero_stage": 3, "lr_schedule": "cosine"}, {"dtype": "bfloat16", "zero_stage": 1}])
def test_other_ways_of_training_go_on_too(policy, tmp_path):
    loop, again = (make_gsi(policy=policy, problems_per_iteration=7, max_guided_attempts=1) for _ in range(2))
    while not (loop.position.phase == "tune" and loop.position.iteration == 2):
        loop.step()
    Checkpoints(tmp_path, 1, 0).save(loop, None)
    Checkpoints(tmp_path, 1, 0).restore(again)
    assert list(again.run()) == list(loop.run())
    assert apart(weights(again.policy), weights(loop.policy)) == set()


def _train(stage: int) -> dict[str, Any]:
    loop = make_gsi(policy={"zero_stage": stage}, problems_per_iteration=5, max_guided_attempts=1, epochs=1)
    reported = list(loop.run())
    with loop.policy.generation_model() as model:
        end = {name: value.detach().clone() for name, value in model.named_parameters()}
    return {"metrics": reported, "weights": end, "harvest": loop._harvest.state_dict()}


def _train_at(stages: Sequence[int]) -> list[dict[str, Any]]:
    return [_train(stage) for stage in stages]


@pytest.mark.parametrize("stages", [(0,), pytest.param((1, 2, 3), marks=pytest.mark.slow)], ids=str)
def test_two_processes_do_what_one_does(stages):
    for one, first, second in zip(_train_at(stages), *on_ranks(2, _train_at, stages), strict=True):
        assert first["metrics"] == second["metrics"]
        assert one["harvest"] == first["harvest"] == second["harvest"]
        assert_close(first["weights"], one["weights"], rtol=2e-4, atol=2e-5)


SMALL = {
    "algo": "gsi", "seed": 3, "run.threads": 1, "run.save_freq": 1, "run.rollout_freq": 2, "warmstart": "none",
    "records": "full",
    "task.train_per_level": 20, "evaluation.limit": 2, "evaluation.n": 2,
    "model.hidden_size": 16, "model.num_hidden_layers": 1,
    "policy.actor_lr": 0.01, "policy.lr_schedule": "linear",
    "trainer.first_iteration": "references", "trainer.iterations": 2, "trainer.train_batch_size": 12, "trainer.n": 2,
    "trainer.epochs": 12, "trainer.mini_batch_size": 8,
}  # fmt: skip


def words(folder: Path) -> list[str]:
    return [f"{key}={value}" for key, value in {**SMALL, "run.dir": folder}.items()]


@pytest.mark.slow
def test_a_run_that_was_killed_while_it_wrote_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    whole, folder = tmp_path / "whole", tmp_path / "run"
    assert finish(start(words(whole))) == [0]
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    writing = next(row["step"] for row in rows if row.get("gsi/iteration") == 2) + 1
    assert kill_when(lambda: step_of(folder) >= writing, start(words(folder)))
    assert finish(start([f"resume={folder}"])) == [0]
    assert history(folder) == history(whole)
    assert [json.loads(line)["step"] for line in (whole / "evaluations.jsonl").read_text().splitlines()] == [
        0, *(row["step"] for row in rows if row.get("gsi/tuned_frac") == 1.0)
    ]  # fmt: skip


# --- it learns --------------------------------------------------------------------------------------------------------


def test_what_is_right_becomes_likely():
    sizes = {"problems_per_iteration": None, "train_batch_size": 40, "n": 4, "epochs": 4, "mini_batch_size": 8}
    quick = {"engine": make_engine(batch_size=80), "policy": {"micro_batch_size": 8}}
    loop = make_gsi(task=like(MostlyEven), iterations=3, max_guided_attempts=0, **sizes, **quick)
    scores = (metrics["critic/score/fresh/mean"] for metrics in loop.run() if "critic/score/fresh/mean" in metrics)
    first, second, third = islice(scores, 3)
    assert first < 0.25
    assert third > second > 2 * first
