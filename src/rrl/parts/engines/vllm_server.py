"""vLLM's own servers, in other processes or on other machines, which read each version of the weights from files."""

import math
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch
from torch import Tensor

from rrl.errors import StorageError
from rrl.functional import token_logprobs
from rrl.interfaces import WeightSource, Written
from rrl.parts.engines.handing_over import HandOver, norm, probe_logits, weights_of
from rrl.parts.engines.seeded import SeededEngine, SeededWriter
from rrl.parts.engines.servers import (
    PREFIX,
    Server,
    Unanswered,
    WeightFiles,
    is_address,
    other_weights,
    sampling_params,
)
from rrl.processes.distributed import from_first, rank, spread, world_size
from rrl.ranges import between, check_ranges, not_negative, positive, refuse
from rrl.records.pulse import beat
from rrl.training.anatomy import unwrapped
from rrl.types import Rollout, Sampling, State

SHARD = 2**31
"""Bytes of weights that are written to one file."""


@dataclass(kw_only=True)
class VLLMServer(SeededEngine):
    """Writes with servers of vLLM at the addresses ``servers``; each process has ``batch_size`` rows under way at most.

    Rows go to the servers in turn. Weights go through files in ``weights``, a folder that the run and all servers have
    at the same path (None: this machine's folder for temporary files). A request has failed after ``timeout`` seconds
    without a byte. A server that fails, or was started again, is waited for ``patience`` seconds (0: the run ends) and
    gets the weights again; its rows are written anew. With ``ahead`` 1 a step's rollouts are written while the step
    before it trains.
    """

    servers: tuple[str, ...]
    weights: str | None
    timeout: float
    patience: float
    ahead: int
    files: WeightFiles = field(init=False)
    _root: Any = field(init=False, default=None)
    _number: int = field(init=False, default=0)
    _calls: int = field(init=False, default=0)
    _asked: list[Server] = field(init=False, default_factory=list)

    dtype = None  # the servers' own

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, positive("timeout"), not_negative("patience"), between(0, 1, "ahead"))
        wrong = [address for address in self.servers if not is_address(address)]
        twice = sorted({address for address in self.servers if self.servers.count(address) > 1})
        refuse(
            {
                f"servers: expected http://HOST:PORT, without a path, got {wrong}": bool(wrong),
                f"servers: expected each address once, got {twice} more often": bool(twice),
                "servers: expected at least one address, as ['http://localhost:8000'], got none": not self.servers,
            }
        )

    def start(self, source: WeightSource, tokenizer: Any, seed: int) -> None:
        super().start(source, tokenizer, seed)
        self._calls = 0

    @contextmanager
    def writing(self, states: Sequence[State]) -> Iterator[list[Rollout]]:
        """In another thread, which the context waits for, or ends where its block fails."""
        rows = list(zip(states, self._noise(len(states), self.sampling, self._generator), strict=True))
        done: list[Rollout] = []
        with ThreadPoolExecutor(1) as pool, self._model() as model:
            mine = pool.submit(self._write, model, rows[rank() :: world_size()], self.sampling, None)
            try:
                yield done
            except BaseException:
                for server in self._asked:
                    server.leave()
                raise
            done += spread(rows, lambda _: mine.result())

    def _in_order(
        self, model: Any, rows: Sequence[tuple[State, Tensor]], sampling: Sampling, written: Written | None
    ) -> list[Rollout]:
        self._calls += 1
        if not rows:
            return []
        states, seeds = zip(*rows, strict=True)
        usual = (model, self._tokenizer, sampling, self._held, written)  # the policy may have moved on meanwhile
        with ThreadPoolExecutor(self.batch_size) as pool, self._reached() as servers:
            return ServerWriter(*usual, engine=self, servers=servers, pool=pool).write(states, torch.stack(seeds))

    @property
    def salt(self) -> str:
        """What keys and values of this call are kept under, so that no other weights' and no other call's are used."""
        return f"{self.files.name}-{self._calls}"

    def _hand_over(self, model: Any) -> None:
        self.files, self.handed_over = from_first(lambda: self._given(model))

    def _given(self, model: Any) -> tuple[WeightFiles, HandOver]:
        """The model's weights as files, and the worst of their hand-overs to all servers."""
        files = self._saved(model)
        deadline = time.monotonic() + self.patience
        with ThreadPoolExecutor() as pool, self._reached() as servers:
            found = list(pool.map(lambda server: server.give(files, deadline), servers))
        for old in files.folder.parent.iterdir():
            if old != files.folder:
                shutil.rmtree(old)
        return files, max(filter(None, found), key=lambda each: each.difference)

    def _saved(self, model: Any) -> WeightFiles:
        try:
            if self._root is None:
                self._root = _own_folder(self.weights)
            self._number += 1
            folder = Path(self._root.name, f"{Path(self._root.name).name}-{self._number}")
            folder.mkdir()
            sent = save(weights_of(model), folder, "weights")
            if not torch.cuda.is_available():
                save(tied(model), folder, "tied")
        except OSError as error:
            raise StorageError(
                f"engine.weights: {error}; expected a folder with room for all weights; give another one"
            ) from error
        temperature = self.temperature or 1.0
        tokens, logits = probe_logits(model)
        return WeightFiles(
            folder=folder,
            sent=sent,
            whole=norm(weights_of(model)),
            tokens=tokens,
            logprobs=token_logprobs(logits[:, :-1], tokens[:, 1:]),
            next=(logits[:, -1] / temperature).log_softmax(-1),
            temperature=temperature,
            tolerance=self.tolerance,
        )

    @contextmanager
    def _reached(self) -> Iterator[list[Server]]:
        """The servers, whose requests end with the context."""
        self._asked = [Server(each, self.timeout) for each in self.servers]
        try:
            yield self._asked
        finally:
            for server in self._asked:
                server.leave()


class ServerWriter(SeededWriter):
    """Writes rows to their ends; a thread of ``pool`` follows each row, and this one decides where it ends."""

    def __init__(self, *usual: Any, engine: VLLMServer, servers: Sequence[Server], pool: ThreadPoolExecutor) -> None:
        super().__init__(*usual)
        self._engine, self._servers, self._pool, self._files = engine, servers, pool, engine.files
        self._arrived: SimpleQueue[tuple[int, Any, bool]] = SimpleQueue()
        self._over: set[int] = set()

    def _decode(self, noise: Tensor) -> None:
        """All rows, drawn by their seeds ``noise`` [rows]; each is complete as soon as it ends."""
        first = rank()  # processes begin at different servers
        try:
            for row, seed in enumerate(noise.tolist()):
                self._pool.submit(self._follow, self._servers[(first + row) % len(self._servers)], row, seed)
            while len(self._over) < len(self._states):
                self._take(self._next())
        finally:
            self._over.update(range(len(self._states)))
        for server in self._servers:
            self._refuse_taken(server)

    def _refuse_taken(self, server: Server) -> None:
        """Raise ServiceError if another run took the server; one that is down is noticed when it is to write again."""
        try:
            found = server.version()
        except Unanswered:
            return
        if found != self._files.name:
            raise server.lost(other_weights(found, self._files))

    def _follow(self, server: Server, row: int, seed: int) -> None:
        """Pass on what the server writes for a row; begin it anew after a failure that may pass."""
        deadline = None
        try:
            while row not in self._over:
                try:
                    self._pass_on(server, row, seed)
                    return
                except Unanswered as error:
                    if row in self._over:
                        return
                    self._arrived.put((row, None, False))
                    deadline = deadline or time.monotonic() + self._engine.patience
                    if time.monotonic() >= deadline:
                        raise server.lost(error) from error
                    server.give(self._files, deadline)
        except Exception as error:  # raised again by the thread that waits for rows
            self._arrived.put((row, error, True))

    def _pass_on(self, server: Server, row: int, seed: int) -> None:
        sampling = self._sampling
        request = {
            "token_ids": self._contexts[row],
            "sampling_params": sampling_params(
                sampling.temperature, seed=seed, max_tokens=self._max_tokens(row), ends=self._ends.tolist()
            ),
            "cache_salt": self._engine.salt,
        }
        with closing(server.tokens(request, self._files)) as pieces:
            for drawn, last in pieces:
                self._arrived.put((row, drawn, last))
                if row in self._over:
                    return

    def _next(self) -> list[tuple[int, Any, bool]]:
        """What has arrived by now, at least one piece."""
        pieces = [self._arrived.get()]
        while not self._arrived.empty():
            pieces.append(self._arrived.get())
        return pieces

    def _take(self, pieces: Sequence[tuple[int, Any, bool]]) -> None:
        """Append new tokens to their rows, all rows together; those that have ended leave."""
        beat()
        drawn: dict[int, deque[tuple[int, float]]] = {}
        last = set[int]()
        for row, piece, is_last in pieces:
            if isinstance(piece, Exception):
                raise piece
            if row in self._over:
                continue
            if piece is None:  # it is written anew
                self._actions[row], self._logprobs[row], self._kept[row] = [], [], []
                drawn.pop(row, None)
                continue
            drawn.setdefault(row, deque()).extend(piece)
            last.update({row} if is_last else ())
        while rows := [row for row, tokens in drawn.items() if tokens]:
            alive = self._record(rows, [drawn[row].popleft() for row in rows])
            ended = [row for row in rows if row not in alive]
            self._over.update(ended)
            if ended:
                self._complete(ended)
            drawn = {row: tokens for row, tokens in drawn.items() if row not in self._over}
        self._refuse_early(last - self._over, "start the server with a longer --max-model-len")


def save(weights: Iterable[tuple[str, Tensor]], folder: Path, name: str) -> float:
    """Write files of about ``SHARD`` bytes; returns the norm of what was written."""
    from safetensors.torch import save_file

    norms, part, size, number = [0.0], dict[str, Tensor](), 0, 0
    for key, weight in weights:
        norms.append(norm([(key, weight)]))
        part[key] = weight.to("cpu", copy=True).contiguous()
        size += weight.nbytes
        if size >= SHARD:
            save_file(part, folder / f"{name}-{number}.safetensors")
            part, size, number = {}, 0, number + 1
    if part:
        save_file(part, folder / f"{name}-{number}.safetensors")
    return math.hypot(*norms)


def tied(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Shared weights by their further names: servers on CPUs keep a packed copy of a tied head, and need it untied."""
    bare = unwrapped(model)
    known = {name for name, _ in bare.named_parameters()}
    for name, weight in bare.named_parameters(remove_duplicate=False):
        if name not in known and ".lora_" not in name:
            yield name, weight.detach()


def _own_folder(place: str | None) -> Any:
    """A new folder in ``place`` that other users' servers can read; it is removed with the process."""
    if place is not None:
        Path(place).expanduser().mkdir(parents=True, exist_ok=True)
    made = tempfile.TemporaryDirectory(prefix=PREFIX, dir=place and Path(place).expanduser().absolute())
    Path(made.name).chmod(0o755)
    return made
