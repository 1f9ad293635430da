"""An engine whose events are fixed, for pictures; behaviour is tested on the real one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from edge_tui.decoders.base import ParamError
from edge_tui.engine.events import (
    TOP,
    Event,
    Failed,
    Finished,
    FirstToken,
    Loaded,
    Loading,
    Queued,
    Resolved,
    Started,
    TokenBatch,
)
from edge_tui.engine.port import Memory, ModelSpec, Question, Request
from edge_tui.machine.nvml import GpuSample
from edge_tui.machine.telemetry import Sample

TEXT = (
    "The sky appears blue because of Rayleigh scattering: air molecules scatter short wavelengths of "
    "sunlight far more strongly than long ones, so what reaches the eye from every direction but the sun's "
    "own is mostly blue. At sunset the light crosses so much more air that the blue is gone before it "
    "arrives, and what is left is orange and red.\n\n[bold]markup[/bold] is text, and so is \x1b[31mthis.\n"
)
WORDS = [word + " " for word in TEXT.split(" ")]


class PictureEngine:
    """Loads at once, answers every prompt with `WORDS`, a whole run at a poll.

    As of the engine, its events may be taken from another thread: the history's.
    """

    def __init__(self, device: str = "cuda:0") -> None:
        self.device = device
        self.requests: list[Request] = []
        self.questions: list[Question] = []
        self.beside: list[int | None] = []
        """The run that each is decoded in turn with."""
        self.cancelled: list[int | None] = []
        self.turned: list[tuple[int, str, float | str]] = []
        self.held = False
        """Whether runs are left unfinished after their tokens."""
        self.refusals: dict[str, str] = {}
        self.events: deque[Event] = deque()

    def submit(self, request: Request, beside: int | None = None) -> int:
        run = len(self.requests) + 1
        self.requests.append(request)
        self.beside.append(beside)
        rows = 4 if request.strategy == "beam" else 1
        columns = ("expert", "amateur", "score") if request.strategy == "contrastive" else ()
        if rows > 1:
            columns = ("score",)
        self.events += [
            Queued(run),
            Started(
                run, request.strategy, rows, columns, 9, len(request.prefix), 0, 256, 7, _values(request)
            ),
            FirstToken(run, 0.038),
            *_batches(run, rows, len(columns), len(request.prefix)),
        ]
        if not self.held:
            self.events.append(self.finish(run))
        return run

    def explain(self, question: Question) -> int:
        self.questions.append(question)
        number = -len(self.questions)
        self.events.append(Failed("Nothing is computed here.", number, code="cannot_explain"))
        return number

    @staticmethod
    def finish(run: int) -> Finished:
        return Finished(run, "eos", len(WORDS), 0.038, 0.2, peak_bytes=3_400_000_000)

    def set(self, run: int, name: str, value: float | str) -> None:
        if name == "beams":
            raise ParamError("beams is fixed for a run.")
        self.turned.append((run, name, value))

    def cancel(self, run: int | None = None) -> None:
        self.cancelled.append(run)
        if self.held and run is not None:
            self.events.append(Finished(run, "cancelled", len(WORDS), 0.038, 0.2))

    def assign(self, role: str, spec: ModelSpec) -> None: ...

    def load(self, role: str) -> None:
        name = "Qwen2.5-0.5B-Instruct"
        facts = ("Qwen2ForCausalLM", "flat", self.device, "bf16", "bfloat16", 151_665, 32_768, 494_032_768)
        self.events += [Loading(role, name), Loaded(role, name, *facts, 988_000_000, 1.9, True)]

    def unload(self, role: str) -> None: ...

    def refusal(self, strategy: str) -> str:
        return self.refusals.get(strategy, "")

    def poll(self) -> list[Event]:
        return [self.events.popleft() for _ in range(len(self.events))]

    def decode(self, ids: Sequence[int]) -> list[str]:
        return [WORDS[i % len(WORDS)] for i in ids]

    def count(self, text: str, control_tokens: bool = False) -> int | None:
        return len(text.split())

    def ids(self, text: str) -> tuple[int, ...] | None:
        return tuple(WORDS.index(word) for word in WORDS if word.strip() == text.strip())[:1]

    def memory(self) -> Memory:
        return Memory(self.device, 3_100_000_000, 3_400_000_000)

    def alive(self) -> bool:
        return True

    def close(self, timeout: float = 1.0) -> bool:
        return True


def _values(request: Request) -> dict[str, Resolved]:
    given = {name: Resolved(value, "user") for name, value in request.values.items()}
    return {"length_penalty": Resolved(1.0, "default"), **given} if request.strategy == "beam" else given


def _batches(run: int, rows: int, columns: int, start: int) -> list[Event]:
    rng = np.random.default_rng(5)
    return [_batch(run, step, rows, columns, rng) for step in range(start, len(WORDS))]


def _batch(run: int, step: int, rows: int, columns: int, rng: np.random.Generator) -> TokenBatch:
    own = np.log(rng.beta(2, 1, rows)).astype(np.float32)
    top = np.sort(np.log(rng.dirichlet(np.ones(TOP), rows)), axis=1)[:, ::-1].astype(np.float32)
    row = np.arange(rows, dtype=np.int32)
    # All rows share their beginning and part near the end, as beams do.
    ids = np.where(step < len(WORDS) - 6, step, step + row * 3).astype(np.int32) % len(WORDS)
    extras = np.tile(-0.4 - 0.1 * row[:, None] - 0.01 * step, (1, columns)).astype(np.float32)
    return TokenBatch(
        run=run,
        step=np.full(rows, step, np.int32),
        row=row,
        parent=row,
        id=ids,
        raw_logp=own,
        final_logp=own / 2,
        rank=rng.integers(0, 5, rows).astype(np.int32),
        entropy=rng.gamma(1.5, 0.6, rows).astype(np.float32),
        version=np.zeros(rows, np.int32),
        top_ids=np.tile(np.arange(TOP, dtype=np.int32), (rows, 1)),
        top_logp=top,
        final_ids=np.tile(np.arange(TOP, dtype=np.int32), (rows, 1)),
        final_top_logp=top,
        extras=extras,
        text=tuple(WORDS[i] for i in ids),
        candidates=_candidates(top) if columns == 3 else None,
    )


def _candidates(top: np.ndarray) -> np.ndarray:
    """What an expert and an amateur who knows less say of the alternatives, and the difference."""
    amateur = np.linspace(top[:, 0] - 1.5, top[:, -1] + 1, TOP, axis=1)
    score = np.where(top > top[:, :1] - 2.3, top - amateur, -np.inf)
    told = np.stack((top, amateur, score), 1)
    return np.repeat(told[:, :, None], 2, axis=2).astype(np.float32)


class FixedTelemetry:
    """One sample, for ever."""

    def __init__(self, gpu: bool = True) -> None:
        card = GpuSample(
            "NVIDIA RTX A2000", 3_100_000_000, 2_900_000_000, 6_000_000_000, 87.0, 61.0, 70.0, 58.0
        )
        self.sample = Sample(0.0, card if gpu else None, 1_200_000_000, 23.0, 5_400_000_000, 16_000_000_000)

    host = refusal = ""

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def watch(self, device: str, *others: str) -> None: ...

    def latest(self) -> Sample:
        return self.sample


def ticking(step: float = 0.0025) -> Callable[[], float]:
    """A clock that advances by the same amount each time it is read."""
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += step
        return now

    return clock
