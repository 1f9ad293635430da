"""Runs to keep: events as an engine posts them, with numbers that no compression can guess."""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from edge_tui.engine.events import (
    TOP,
    Event,
    Failed,
    Finished,
    FirstToken,
    Loaded,
    ParamChanged,
    Resolved,
    Started,
    TokenBatch,
)
from edge_tui.engine.port import Memory, ModelSpec, Question, Request
from edge_tui.history.runs import Entry
from edge_tui.history.store import Store

_SENTENCE = "the sky is blue because molecules of air scatter short waves"
WORDS = [f"{word} " for word in _SENTENCE.split(" ")]
LOADED = Loaded(
    "model", "some/model", "LlamaForCausalLM", "flat", "cpu", "float32", "float32", 32_000, 2048,
    10**6, 10**7, 1.5, True,
)  # fmt: skip


def batch(
    texts: Sequence[str],
    start: int = 0,
    rows: int = 1,
    columns: int = 0,
    run: int = 1,
    told: bool = False,
) -> TokenBatch:
    """Tokens of all rows, step by step; ids are below 32,000, numbers random. `told`: of alternatives too."""
    n = len(texts)
    rng = np.random.default_rng(start + 7 * n)
    at = np.arange(n)

    def floats(*shape: int) -> Any:
        return np.log(rng.random(shape)).astype(np.float32)

    def ids(*shape: int) -> Any:
        return rng.integers(0, 32_000, shape).astype(np.int32)

    top = floats(n, TOP)
    final = top.copy()
    final[:, 5:] = -np.inf
    cut = ids(n, TOP)
    cut[:, 5:] = -1
    return TokenBatch(
        run=run,
        step=(start + at // rows).astype(np.int32),
        row=(at % rows).astype(np.int32),
        parent=((at + 1) % rows).astype(np.int32),
        id=ids(n),
        raw_logp=floats(n),
        final_logp=floats(n),
        rank=rng.integers(0, 9, n).astype(np.int32),
        entropy=-floats(n),
        version=np.zeros(n, np.int32),
        top_ids=ids(n, TOP),
        top_logp=top,
        final_ids=cut,
        final_top_logp=final,
        extras=floats(n, columns),
        text=tuple(texts),
        candidates=floats(n, columns, 2, TOP) if told else None,
        margin=-floats(n),
        candidate_count=rng.integers(1, 32_000, n).astype(np.int32),
        removing_stage=rng.integers(-3, 6, (n, TOP)).astype(np.int32),
    )


def same(a: TokenBatch, b: TokenBatch) -> bool:
    """Bit by bit; which run they belong to does not matter."""
    names = [name for name in TokenBatch.__dataclass_fields__ if name not in ("run", "text")]
    return a.text == b.text and all(
        np.asarray(getattr(a, name)).tobytes() == np.asarray(getattr(b, name)).tobytes() for name in names
    )


def started(run: int = 1, prefix: int = 0, **changes: Any) -> Started:
    known: dict[str, Any] = {
        "strategy": "top_p", "rows": 1, "columns": (), "prompt_tokens": 5, "reused_tokens": 0,
        "max_new_tokens": 256, "seed": 7, "values": {"top_p": Resolved(0.9, "user")},
    }  # fmt: skip
    return Started(run=run, prefix_tokens=prefix, **{**known, **changes})


def finished(run: int = 1, n: int = 0, reason: Any = "eos") -> Finished:
    return Finished(run, reason, n, 0.05, 1.25)


def keep(
    store: Store, prompt: str = "Why is the sky blue?", texts: Sequence[str] = WORDS, **given: Any
) -> Entry:
    """Writes a whole run."""
    created = given.pop("created", time.time())
    request = given.pop("request", None) or Request(prompt, strategy="top_p", values={"top_p": 0.9})
    run = store.insert_run(secrets.token_hex(8), created, request)
    begun = started(**given)
    store.set_started(run, begun, {"model": LOADED}, {"edge-tui": "0"})
    store.append_chunk(run, 0, batch(texts, rows=begun.rows, columns=len(begun.columns)))
    store.finish_run(run, "finished", "".join(texts[:: begun.rows]), finished(run, len(texts)))
    return store.entry(run)


class ScriptedEngine:
    """Says what it is told to say."""

    def __init__(self) -> None:
        self.said: deque[Event] = deque([LOADED])
        self.requests: list[Request] = []
        self.questions: list[Question] = []

    def say(self, *news: Event) -> None:
        self.said.extend(news)

    def tell(self, run: int, texts: Sequence[str] = WORDS, end: bool = True) -> None:
        """A whole run."""
        self.say(started(run), FirstToken(run, 0.05), batch(texts, run=run))
        self.say(ParamChanged(run, "top_p", 0.5, 2, len(texts) // 2))
        if end:
            self.say(finished(run, len(texts)))

    def submit(self, request: Request, beside: int | None = None) -> int:
        self.requests.append(request)
        return len(self.requests)

    def explain(self, question: Question) -> int:
        self.questions.append(question)
        number = -len(self.questions)
        self.said.append(Failed("Nothing is computed here.", number, code="cannot_explain"))
        return number

    def refusal(self, strategy: str) -> str:
        return ""

    def poll(self) -> list[Event]:
        return [self.said.popleft() for _ in range(len(self.said))]

    def set(self, run: int, name: str, value: float | str) -> None: ...

    def cancel(self, run: int | None = None) -> None: ...

    def assign(self, role: str, spec: ModelSpec) -> None: ...

    def load(self, role: str) -> None: ...

    def unload(self, role: str) -> None: ...

    def decode(self, ids: Sequence[int]) -> list[str]:
        return [f"<{i}>" for i in ids]

    def count(self, text: str, control_tokens: bool = False) -> int | None:
        return len(text.split())

    def ids(self, text: str) -> tuple[int, ...] | None:
        return tuple(map(ord, text))

    def memory(self) -> Memory:
        return Memory("cpu", None, None)

    def alive(self) -> bool:
        return True

    def close(self, timeout: float = 1.0) -> bool:
        return True
