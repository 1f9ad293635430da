"""Measures tokens per second beside the roofline and beside `generate()`: `edge-tui bench speed`.

All contestants live in one process and take turns, so that whatever slows the machine slows them alike; a row
reports the median of the rounds with its spread. Each round has a prompt of its own, because the engine would
reuse the keys and values of one that it has read before.

A row is one contestant under one strategy, in seconds and bytes; NaN and None are unknown:

* `model`, `parameters`, `device`, `device_name`, `precision`: the model, and where it decodes;
* `tier`: the engine's path ("flat", …), or "transformers";
* `strategy`: with the parameters that were set; `who`: the contestant;
* `batch`: answers decoded side by side; `prompt`, `tokens`, `rounds`: tokens read and written in each, and
  how often;
* `tokens_per_second`: of the whole batch, median;
* `step`, `spread`: time of a step, and half the range of the rounds as a share of it;
* `floor`, `of_floor`: the roofline: seconds to read weights and cache, and their share of `step`;
* `first`: to the first token;
* `setup`: from nothing to the first token at full speed: loading, compiling, capturing;
* `peak`: most bytes of GPU memory;
* `ratio`: the engine's rate over this contestant's; NaN in the engine's own row.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import nan
from typing import Any

from edge_tui import decoders
from edge_tui.bench.edge_runner import NAME, EdgeRunner, ModelFacts, prompt_ids
from edge_tui.bench.job import Job, Timing
from edge_tui.bench.session import BenchModel, Session
from edge_tui.bench.transformers_runner import KINDS, TransformersRunner, can_run
from edge_tui.engine.models.device_memory import release_cached_memory
from edge_tui.engine.port import Precision

Decode = Callable[[Job, int], Timing]
"""Decodes a job in the round of a number."""

_WARM_UP = 16
"""Tokens of a first, uncounted decode; its speed tells how many fit the time allowed for one."""


@dataclass(slots=True)
class _Contestant:
    """Decodes one job in one way.

    Attributes:
        decode: Runs the job.
        job: With the most tokens.
        who: For the table.
        precision: Of its weights.
        loading: Seconds that loading took.
        allocated: Bytes of GPU memory before that.
        probe: True if the first decode may be short; a compiled model is compiled for one length.
        tokens: As many of the job's as the time allows.
        setup: Seconds to the first token at full speed.
        peak: Most bytes.
        timings: Of the counted decodes.
        notices: The engine's, of the last of them.
    """

    decode: Decode
    job: Job
    who: str
    precision: str
    loading: float
    allocated: int
    probe: bool = True
    tokens: int = 0
    setup: float = nan
    peak: int | None = None
    timings: list[Timing] = field(default_factory=list)
    notices: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, int]:
        """Tells jobs apart: jobs with the same strategy may have prompts of different lengths."""
        return self.job.title, self.job.prompt

    @property
    def step(self) -> float:
        """Seconds for one token: the median of the counted decodes."""
        return statistics.median(timing.step for timing in self.timings)

    def run(self, number: int) -> Timing:
        """Decodes in the round of a number."""
        return self.decode(replace(self.job, tokens=self.tokens), number)

    def warm_up(self, session: Session, seconds: float) -> None:
        """Decodes twice without counting: a few tokens, then as many as the rounds will."""
        session.reset_peak()
        most = self.job.tokens
        self.tokens = min(_WARM_UP, most) if self.probe else most
        first = self.run(0)
        if self.probe:
            fits = int(seconds / max(first.step, 1e-6)) if first.tokens > 1 else most
            self.tokens = min(most, max(_WARM_UP, fits))
        steady = self.run(1).step
        once = max(0.0, first.waited + first.decode - (first.tokens - 1) * steady)
        self.setup, self.peak = self.loading + first.first + once, session.peak(self.allocated)


def measure(
    session: Session,
    model: BenchModel,
    precision: Precision,
    jobs: Sequence[Job],
    *,
    second: BenchModel | None = None,
    peers: Sequence[str] = (),
    rounds: int = 3,
    seconds: float = 3.0,
) -> None:
    """Measures one model at one precision; adds rows to the results as soon as they are known.

    Args:
        session: Of the bench.
        model: The model.
        precision: To load it in.
        jobs: Jobs to decode.
        second: The amateur or draft of strategies with two models.
        peers: Keys of `edge_tui.bench.transformers_runner.KINDS`.
        rounds: Counted decodes of each contestant.
        seconds: Most time for one decode; a slow contestant writes fewer tokens.

    Raises:
        BenchError: the model cannot be loaded.
    """
    session.measure_bandwidth()
    allocated = session.allocated()
    edge = session.edge_runner(model, precision, second)
    peer: TransformersRunner | None = None
    try:
        began = time.perf_counter()
        facts = edge.load()
        loading = time.perf_counter() - began

        def decode(job: Job, number: int) -> Timing:
            return edge.decode(job, prompt_ids(facts.tokenizer, job.prompt, number))

        own = [_Contestant(decode, job, NAME, facts.info.precision, loading, allocated) for job in jobs]
        contestants = _warm_up(session, model, own, seconds)
        peer_precision = _peer_precision(session, facts.info.precision)
        pairs = [
            (each.job, kind)
            for each in contestants
            for kind in peers
            if can_run(kind, each.job.strategy, peer_precision)
        ]
        if pairs:
            allocated = session.allocated()
            with session.noting_errors(model.title, precision):
                peer = session.transformers_runner(model, peer_precision)
                others = [_peer(peer, job, kind, facts, peer_precision, allocated) for job, kind in pairs]
                contestants += _warm_up(session, model, others, seconds)
        _run_rounds(session, edge, model, contestants, rounds)
    finally:
        if peer is not None:
            peer.close()
        edge.close()
        release_cached_memory()


def _peer(
    peer: TransformersRunner, job: Job, kind: str, facts: ModelFacts, precision: str, allocated: int
) -> _Contestant:
    def generate(job: Job, number: int) -> Timing:
        return peer.decode(kind, job, [prompt_ids(facts.tokenizer, job.prompt, number)] * job.batch)

    probe = kind != "static"
    return _Contestant(generate, job, KINDS[kind], precision, peer.seconds, allocated, probe)


def _warm_up(
    session: Session, model: BenchModel, contestants: Sequence[_Contestant], seconds: float
) -> list[_Contestant]:
    """Warms contestants up and returns those that can decode."""
    able = []
    for each in contestants:
        who = () if each.who == NAME else (each.who,)
        with session.noting_errors(model.title, each.precision, each.job.title, *who):
            each.warm_up(session, seconds)
            able.append(each)
    return able


def _peer_precision(session: Session, precision: str) -> str:
    """Takes float32 for quantised weights on a CPU, where bitsandbytes is no match."""
    return "float32" if session.device == "cpu" and precision in ("int8", "4bit") else precision


def _run_rounds(
    session: Session, edge: EdgeRunner, model: BenchModel, contestants: list[_Contestant], rounds: int
) -> None:
    """Counts `rounds` decodes of every contestant in turn; the rounds until the time is up count."""
    order = list(dict.fromkeys(each.key for each in contestants))
    try:
        for number in range(rounds):
            session.progress.say(f"round {number + 1}/{rounds}", number / rounds)
            for each in contestants:
                if each.timings and session.progress.left <= 0:
                    continue
                with session.noting_errors(model.title, each.job.title, each.who):
                    each.timings.append(each.run(2 + number))
                    each.notices = tuple(edge.state.notices) if each.who == NAME else ()
    finally:
        contestants.sort(key=lambda each: order.index(each.key))
        own = {each.key: each.step for each in contestants if each.who == NAME and each.timings}
        for each in contestants:
            if each.timings:
                session.results.add(_row(session, edge, model, each, own.get(each.key, nan)))
                for sentence in each.notices:
                    session.results.note(f"{model.title}, {each.job.title}: {sentence}")


def _row(
    session: Session, edge: EdgeRunner, model: BenchModel, contestant: _Contestant, own_step: float
) -> dict[str, Any]:
    """Builds a contestant's row: medians of its rounds beside the roofline and the engine's own step."""
    from edge_tui.engine.decode.resolve import resolve_params

    timings, step = contestant.timings, contestant.step
    steps = [timing.step for timing in timings]
    job = replace(contestant.job, prompt=timings[-1].prompt, tokens=timings[-1].tokens)
    decoder = decoders.find(job.strategy)
    facts = edge.facts[model.name]
    floor = nan
    # The bytes of a speculative step are known, but not how many tokens come of it.
    if contestant.precision == facts.info.precision and decoder.kind != "propose":
        values = resolve_params(job.request(""), decoder, {}).values
        floor = edge.step_bytes(decoder.roles, job, decoder.rows(values) * job.batch) / session.bandwidth
    is_own = contestant.who == NAME
    return session.describe(model, facts) | {
        "precision": contestant.precision,
        "tier": facts.info.tier if is_own else "transformers",
        "strategy": job.title,
        "who": contestant.who,
        "batch": job.batch,
        "prompt": job.prompt,
        "tokens": job.tokens,
        "rounds": len(timings),
        "tokens_per_second": job.batch / step,
        "step": step,
        "spread": (max(steps) - min(steps)) / 2 / step,
        "floor": floor,
        "of_floor": floor / step,
        "first": statistics.median(timing.first for timing in timings),
        "setup": contestant.setup,
        "peak": contestant.peak,
        "ratio": nan if is_own else step / own_step,
    }
