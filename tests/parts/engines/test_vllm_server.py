"""The engine around vLLM's servers, with a stub in their place. See test_vllm_real_server.py for the real one."""

import json
import stat
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from threading import Event
from time import sleep
from typing import Any

import pytest
import torch

from fixtures.server import GENERATE, INFO, RELOAD, Dropped, Stub, served, serving
from fixtures.vllm import PLAIN, loaded, started, states
from rrl.errors import ConfigError, DataError, DivergenceError, ServiceError
from rrl.parts.engines import servers, vllm_server
from rrl.parts.engines.hf import HFEngine
from rrl.training.agreement import check_agreement, reader
from rrl.training.models import LoadedModel
from rrl.training.prepared import FrozenSource
from rrl.types import Rollout, Sampling

FEW = states()[:5]


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return loaded(eos=[2, 6])


@pytest.fixture
def stub(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> Stub:
    monkeypatch.setattr(servers, "EVERY", 0.01)
    return Stub(len(model.tokenizer))


@pytest.fixture
def address(stub: Stub) -> Iterator[str]:
    with serving(stub) as where:
        yield where


def written(address: str, model: LoadedModel, **changes: Any) -> list[Rollout]:
    return started(served(address, **changes), model).generate(FEW)


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("addresses", "changes", "named"),
    [
        ((), {}, "servers: expected at least one address"),
        (("http://a:1/v1",), {}, r"servers: expected http://HOST:PORT, without a path, got \['http://a:1/v1'\]"),
        (("a:8000",), {}, "servers"),
        (("http://a:port",), {}, r"servers: expected http://HOST:PORT, .*http://a:port"),
        (("http://a:99999",), {}, r"servers: expected http://HOST:PORT, .*http://a:99999"),
        (("http://:8000",), {}, r"servers: expected http://HOST:PORT, .*http://:8000"),
        (("http://a:1", "http://a:1"), {}, r"servers: expected each address once, got \['http://a:1'\] more often"),
        (("http://a",), {"timeout": 0}, "timeout"),
        (("http://a",), {"patience": -1}, "patience"),
        (("http://a",), {"tolerance": 0}, "tolerance"),
    ],
)
def test_settings_out_of_range_are_refused(addresses: Sequence[str], changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        served(*addresses, **changes)


def test_a_folder_that_cannot_be_written_is_named(address: str, model: LoadedModel, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Exception, match=r"engine.weights: .*file.*; expected a folder with room for all weights"):
        written(address, model, weights=str(tmp_path / "file"))


# --- writing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [(), ("c", "a b")])
def test_rows_are_those_of_the_reference(stub: Stub, address: str, model: LoadedModel, stop: tuple[str, ...]) -> None:
    greedy = Sampling(temperature=0.0, top_p=1.0, top_k=0, max_new_tokens=6, stop=stop)
    with serving(stub) as other:
        rows = started(served(address, other), model).generate(states()[:8], greedy)
    assert rows == started(HFEngine(**PLAIN), model).generate(states()[:8], greedy)
    assert len({len(row.actions) for row in rows}) > 1


def test_rows_have_the_log_probabilities_they_were_drawn_with_and_are_passed_on_once(
    address: str, model: LoadedModel
) -> None:
    passed = list[Rollout]()
    rows = started(served(address, temperature=0.7), model).generate(FEW, written=passed.extend)
    assert sorted(passed, key=rows.index) == rows
    for row in rows:
        context = (*row.state.problem.prompt, *row.tokens)
        logits = model.model(input_ids=torch.tensor([context])).logits[0] / 0.7
        expected = logits.log_softmax(-1)[-len(row.actions) - 1 : -1].gather(1, torch.tensor(row.actions)[:, None])
        torch.testing.assert_close(torch.tensor(row.logprobs), expected[:, 0].detach(), rtol=1e-5, atol=1e-5)


def test_the_generator_is_the_engines_whole_state_and_no_call_reads_what_another_left(
    stub: Stub, address: str, model: LoadedModel
) -> None:
    first = started(served(address), model)
    first.generate(FEW[:2])
    saved = first.state_dict()
    rows = first.generate(FEW)
    again = started(served(address), model)
    again.load_state_dict(saved)
    assert again.generate(FEW, generator=torch.Generator().manual_seed(5)) != rows
    assert again.generate(FEW) == rows
    salts = [body["cache_salt"] for path, body, _ in stub.asked if path == GENERATE and body.get("stream")]
    assert len(set(salts)) == 4
    assert all(len(salt) < 128 and "/" not in salt for salt in salts)  # as vLLM wants them


def test_weights_go_over_once_for_each_version_in_files_that_others_can_read(
    stub: Stub, address: str, model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_server, "SHARD", 10_000)
    engine, source = served(address, weights=str(tmp_path / "new")), FrozenSource(model.model)
    engine.start(source, model.tokenizer, 0)
    engine.generate(FEW[:1]), engine.generate(FEW[:1])
    assert stub.times(RELOAD) == 1
    first = engine.files
    assert len(list(first.folder.iterdir())) > 2
    assert stat.S_IMODE(first.folder.parent.stat().st_mode) == 0o755
    source.version = 1
    assert engine.generate(FEW[:1])[0].version == 1
    assert (stub.times(RELOAD), stub.version) == (2, engine.files.name)
    assert list((tmp_path / "new").glob("*/*")) == [engine.files.folder] != [first.folder]
    assert engine.handed_over is not None
    assert engine.handed_over.difference < 1e-5


def test_rows_written_ahead_name_the_weights_that_write_them_however_late_the_thread_begins(
    address: str, model: LoadedModel
) -> None:
    engine, begin = started(served(address, ahead=1), model), Event()
    write = engine._write
    engine._write = lambda *how: begin.wait(20) and write(*how)  # type: ignore[method-assign,return-value]
    with engine.writing(FEW) as done:
        engine._source.version = 7
        begin.set()
    assert {each.version for each in done} == {0}


def test_a_key_is_sent_and_not_shown(
    stub: Stub, address: str, model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "sesame-seeds")
    stub.answers[GENERATE] = lambda body: (401, {"error": {"message": "Unauthorized"}})
    with pytest.raises(ServiceError, match=r"status 401 to .*: Unauthorized; .*set VLLM_API_KEY") as error:
        written(address, model)
    assert {headers["Authorization"] for _, _, headers in stub.asked} == {"Bearer sesame-seeds"}
    assert "sesame" not in str(error.value)


def test_a_row_that_the_server_ends_for_want_of_room_stops_the_run(
    stub: Stub, address: str, model: LoadedModel
) -> None:
    usual = stub.generate
    short = {"max_tokens": 2, "stop_token_ids": []}
    stub.answers[GENERATE] = lambda body: usual({**body, "sampling_params": {**body["sampling_params"], **short}})
    with pytest.raises(ConfigError, match=r"vLLM ended a row of \d+ tokens .*start the server with a longer --max-mo"):
        written(address, model, max_response_length=12)


# --- hand-over --------------------------------------------------------------------------------------------------------


def test_a_weight_that_is_not_sent_stops_the_run(
    address: str, model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = vllm_server.weights_of
    rest = lambda model: (pair for pair in whole(model) if pair[0] != "model.norm.weight")  # noqa: E731
    monkeypatch.setattr(vllm_server, "save", lambda pairs, *to, save=vllm_server.save: save(rest(model.model), *to))
    with pytest.raises(DivergenceError, match=rf"engine.servers: {address}: after weights .* a server with --dtype fl"):
        written(address, model)


def test_a_server_that_keeps_its_weights_stops_the_run(stub: Stub, address: str, model: LoadedModel) -> None:
    stub.answers[RELOAD] = lambda body: {"results": [None]}
    with pytest.raises(DivergenceError, match=r"differ from the policy's by [\d.]+ nats"):
        written(address, model)


def test_a_server_that_draws_from_another_distribution_stops_the_run(
    stub: Stub, address: str, model: LoadedModel
) -> None:
    usual = stub.logprobs
    stub.logprobs = lambda tokens, temperature: usual(tokens, 1.0)  # type: ignore[method-assign]
    with pytest.raises(DivergenceError, match="after weights were handed over"):
        written(address, model, temperature=0.5)
    assert written(address, model, temperature=1.0)


def test_log_probabilities_that_are_no_numbers_stop_the_run(stub: Stub, address: str, model: LoadedModel) -> None:
    engine = started(served(address), model)
    engine.generate(FEW[:1])
    content = {"content": [{"token_id": 5, "logprob": -9999.0}]}  # vLLM's number for nan
    choice = {"token_ids": [5], "logprobs": content, "finish_reason": "length", "weight_versions": None}
    stub.answers[GENERATE] = lambda body: [f"data: {json.dumps({'choices': [choice]})}\n".encode()]
    with pytest.raises(DivergenceError, match="log-probabilities: nan"):
        engine.generate(FEW[:1])


# --- servers that fail ------------------------------------------------------------------------------------------------


def fails(address: str, model: LoadedModel, **changes: Any) -> str:
    """The error of writing, which names the address, and what to do."""
    with pytest.raises(ServiceError) as error:
        written(address, model, **changes)
    [fault] = error.value.faults
    assert fault.startswith(f"engine.servers: {address}: ")
    assert "; expected " in fault
    return fault


def test_a_server_that_is_down_is_named() -> None:
    with serving(Stub(12)) as address:
        pass
    assert "no connection ([Errno 111] Connection refused)" in fails(address, loaded())


def test_a_server_that_is_slow_is_named(stub: Stub, address: str, model: LoadedModel) -> None:
    stub.answers[GENERATE] = lambda body: sleep(0.5) or {}
    assert f"no answer to {GENERATE} in 0.05 s (engine.timeout)" in fails(address, model, timeout=0.05)


def test_a_server_of_another_model_is_named(stub: Stub, address: str, model: LoadedModel) -> None:
    stub.answers[RELOAD] = lambda body: (500, {"error": {"message": "shapes differ"}})
    fault = fails(address, model, patience=60.0)  # waiting does not help
    assert "status 500 to /collective_rpc: shapes differ when it was to read the weights in " in fault
    assert "start the server with the model of the run" in fault


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        ((404, {"detail": "Not Found"}), 'status 404 to /weight_info: {"detail": "Not Found"}'),
        (b"<html>", "answered '<html>'; expected JSON"),
        (b"[1]", "answered '[1]'; expected JSON of vLLM's server"),
        ({"version": 1}, """answered '{"version": 1}'; expected JSON of vLLM's server"""),
    ],
)
def test_what_is_no_server_of_vllm_is_named(
    stub: Stub, address: str, model: LoadedModel, answer: Any, seen: str
) -> None:
    stub.answers[INFO] = lambda body: answer
    fault = fails(address, model, patience=60.0)
    assert seen in fault
    assert "VLLM_SERVER_DEV_MODE=1" in fault


def dropped(body: Any) -> Any:
    raise Dropped


def in_the_middle(stub: Stub) -> Any:
    """A row that breaks off after two tokens."""

    def generate(body: Any) -> Iterator[bytes]:
        pieces = stub.generate(body)
        yield from islice(pieces, 2)
        stub.restart()

    return generate


FAULTS: dict[str, Any] = {
    "no answer": lambda stub: dropped,
    "within a row": in_the_middle,
    "an error": lambda stub: lambda body: (500, {"error": {"message": "EngineCore encountered an issue"}}),
    "an error within a row": lambda stub: lambda body: [b'data: {"error": {"message": "engine died"}}\n'],
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_server_that_comes_back_gets_the_weights_again_and_nothing_is_lost(
    stub: Stub, address: str, model: LoadedModel, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A row that fails is written anew with its seed, also where the server has forgotten the weights."""
    engine = started(served(address, patience=60.0), model)
    whole = engine.generate(FEW, generator=torch.Generator().manual_seed(1))
    stub.at(GENERATE, 3, FAULTS[name](stub))
    stub.restart()  # between two calls, which the first row notices
    passed = list[Rollout]()
    assert engine.generate(FEW, generator=torch.Generator().manual_seed(1), written=passed.extend) == whole
    assert sorted(passed, key=whole.index) == whole
    assert stub.version == engine.files.name


@pytest.mark.parametrize("name", FAULTS)
def test_without_patience_the_run_ends_at_the_first_failure(
    stub: Stub, address: str, model: LoadedModel, name: str
) -> None:
    engine = started(served(address), model)
    engine.generate(FEW)
    stub.at(GENERATE, 3, FAULTS[name](stub))
    with pytest.raises(ServiceError, match=rf"engine.servers: {address}: .*engine.patience"):
        engine.generate(FEW)


def test_a_server_is_waited_for_and_then_given_up(
    stub: Stub, address: str, model: LoadedModel, caplog: pytest.LogCaptureFixture
) -> None:
    stub.at(INFO, 1, dropped), stub.at(INFO, 2, dropped)
    assert written(address, model, patience=60.0)
    assert [record.message.partition(": http")[2].partition(": ")[2] for record in caplog.records] == [
        "no connection (Remote end closed connection without response); waiting for it (engine.patience)",
        "answers again",
    ]  # fmt: skip
    stub.answers[INFO] = dropped
    assert "no connection (Remote end closed connection without response)" in fails(address, model, patience=0.05)


def test_a_hand_over_whose_comparison_fails_is_done_again(stub: Stub, address: str, model: LoadedModel) -> None:
    usual, count = stub.answers[GENERATE], iter(range(1, 10**6))
    busy = (503, {"error": {"message": "busy"}})
    stub.answers[GENERATE] = lambda body: busy if next(count) == 2 else usual(body)
    assert written(address, model, patience=60.0)
    assert stub.times(RELOAD) == 2


def test_a_server_that_was_started_again_between_two_calls_is_named(
    stub: Stub, address: str, model: LoadedModel
) -> None:
    engine = started(served(address), model)
    engine.generate(FEW)
    stub.restart()
    with pytest.raises(ServiceError, match=r"it writes with the weights 'default', not 'rrl-weights-.*': it was start"):
        engine.generate(FEW)


@pytest.mark.parametrize("when", [4, 7], ids=["before a row", "after the last row"])
def test_a_server_that_another_run_takes_is_named(stub: Stub, address: str, model: LoadedModel, when: int) -> None:
    """It is asked at the hand-over, before each of five rows, and at the end."""
    stub.at(INFO, when, lambda body: {"weight_version": "theirs"})
    assert "it writes with the weights 'theirs', not 'rrl-weights-" in fails(address, model)


def test_weights_of_another_run_end_this_one_however_patient_it_is(
    stub: Stub, address: str, model: LoadedModel
) -> None:
    """Rows before, left at a stop text, may be theirs, and nothing names what wrote them."""
    stub.at(INFO, 4, lambda body: {"weight_version": "rrl-weights-theirs-3"})
    assert "it writes with the weights 'rrl-weights-theirs-3', not '" in fails(address, model, patience=60.0)


def test_a_server_that_is_taken_within_a_row_is_named(stub: Stub, address: str, model: LoadedModel) -> None:
    theirs = lambda body: [piece.replace(stub.version.encode(), b"theirs") for piece in stub.generate(body)]  # noqa: E731
    stub.at(GENERATE, 1, theirs)
    assert "it writes with the weights 'theirs', not 'rrl-weights-" in fails(address, model)


@pytest.mark.parametrize(("off", "fine"), [(0.05, True), (0.5, False)])
def test_the_servers_may_be_as_coarse_as_bfloat16(
    stub: Stub, address: str, model: LoadedModel, off: float, fine: bool
) -> None:
    """The run does not know their precision: ``engine.tolerance`` is the limit that a user sets."""
    usual = stub.logprobs
    stub.logprobs = lambda tokens, temperature: usual(tokens, temperature) - off  # type: ignore[method-assign]
    engine = started(served(address, tolerance=1.0), model)
    problems = [state.problem for state in states()]
    read = reader(model.model, model.tokenizer, 1.0)
    with nullcontext() if fine else pytest.raises(DataError, match=r"written and read again, differ by 0\.5"):
        check_agreement(model.model, problems, engine, read, "float32")
