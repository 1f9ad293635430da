"""`edge-tui bench speed`: tokens per second, against the hardware's floor and against `generate()`.

All contestants live in one process and take turns, so that whatever slows the machine slows them alike; the
median of the rounds is reported with its spread. Each round has a prompt of its own, or the engine would
reuse what it has read before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from math import nan

import decoders
from edge_tui.bench.job import BenchError, Job, Summary, Timing
from edge_tui.bench.ours import NAME, Ours, prompt_text
from edge_tui.bench.peers import KINDS, Peer
from edge_tui.bench.session import Session, Target
from edge_tui.engine.port import Precision

Decode = Callable[[Job, int], Timing]
"""One contestant's decode of a job in a round."""

_WARM = 16
"""Tokens of a first, uncounted decode, which tells how many fit the time allowed for one."""


@dataclass(frozen=True, slots=True)
class Row:
    """One contestant under one strategy: a line of the table. Seconds and bytes; NaN and None: not known.

    Attributes:
        model, parameters, device, precision: What decoded.
        tier: The engine's path ("flat", …); "transformers" for a peer.
        strategy: With the parameters that were set.
        who: The contestant.
        prompt, tokens, rounds: Tokens read and written, and how often.
        tokens_per_second, step, spread: Median rate, its inverse, and half the range as a share of it.
        floor, of_floor: Seconds that reading weights and cache would take, and their share of `step`.
        first: To the first token.
        setup: From nothing to the first token at full speed: loading, compiling, capturing.
        peak: Most bytes of memory.
        ratio: Ours over this contestant's rate; NaN in our own row.
    """

    model: str
    parameters: int
    device: str
    precision: str
    tier: str
    strategy: str
    who: str
    prompt: int
    tokens: int
    rounds: int
    tokens_per_second: float
    step: float
    spread: float
    floor: float
    of_floor: float
    first: float
    setup: float
    peak: int | None
    ratio: float


@dataclass(slots=True)
class _Warm:
    """What the first, uncounted decodes told.

    Attributes:
        job: With as many tokens as the time allows.
        setup: Seconds to the first token of the first decode.
        peak: Most bytes.
    """

    job: Job
    setup: float
    peak: int | None


def measure(
    session: Session,
    target: Target,
    precision: Precision,
    jobs: Sequence[Job],
    *,
    second: Target | None = None,
    peers: Sequence[str] = (),
    rounds: int = 3,
    seconds: float = 3.0,
) -> list[Row]:
    """Measures one model at one precision; rows are in the ledger as soon as they are known.

    Args:
        session: Of the bench.
        target: The model.
        precision: To load it in.
        jobs: What to decode.
        second: The amateur or draft of strategies with two models.
        peers: Keys of `edge_tui.bench.peers.KINDS`.
        rounds: Counted decodes of each contestant.
        seconds: Most time for one decode; a slow contestant writes fewer tokens.

    Raises:
        BenchError: the model cannot be loaded.
    """
    before = session.allocated()
    rows: list[Row] = []
    ours = session.ours(target, precision, second)
    peer: Peer | None = None
    try:
        began = time.perf_counter()
        facts = ours.load()
        loading = time.perf_counter() - began
        warm: list[tuple[Job, _Warm]] = []
        for job in jobs:
            try:
                warm.append((job, _warm(session, job, _decode(ours), loading, before, seconds)))
            except BenchError as error:
                session.ledger.note(f"{target.title}, {precision}, {job.title}: {error}")
        if peers and warm:
            base = session.allocated()
            peer = _peer(session, target, facts.info.precision)
        for job, own in warm:
            contestants: dict[str, tuple[Decode, _Warm]] = {NAME: (_decode(ours), own)}
            for kind in peers if peer is not None else ():
                assert peer is not None
                try:
                    decode = _generate(peer, kind, ours, target)
                    probe = kind != "static"
                    ready = _warm(session, job, decode, peer.seconds, base, seconds, probe)
                    contestants[KINDS[kind]] = decode, ready
                except BenchError as error:
                    session.ledger.note(f"{target.title}, {precision}, {job.title}, {KINDS[kind]}: {error}")
            rows += _compete(session, ours, target, job, contestants, rounds)
    finally:
        if peer is not None:
            peer.close()
        ours.close()
        session.free()
    return rows


def _peer(session: Session, target: Target, precision: str) -> Peer | None:
    # bitsandbytes is no match for a CPU: what users have there is float32.
    if session.device == "cpu" and precision in ("int8", "4bit"):
        precision = "float32"
    try:
        return session.peer(target, precision)
    except BenchError as error:
        session.ledger.note(f"{target.title}, {precision}: {error}")
        return None


def _decode(ours: Ours) -> Decode:
    def decode(job: Job, number: int) -> Timing:
        return ours.run(job, prompt_text(ours.facts[ours.specs["model"].name].codec, job.prompt, number))

    return decode


def _generate(peer: Peer, kind: str, ours: Ours, target: Target) -> Decode:
    codec = ours.facts[target.name].codec

    def decode(job: Job, number: int) -> Timing:
        return peer.run(kind, job, [codec.encode(prompt_text(codec, job.prompt, number))])

    return decode


def _warm(
    session: Session,
    job: Job,
    decode: Decode,
    loading: float,
    before: int,
    seconds: float,
    probe: bool = True,
) -> _Warm:
    """Decodes twice without counting: a few tokens, then as many as the rounds will.

    Without `probe` both have the job's length: a compiled peer is compiled for that.
    """
    session.reset_peak()
    first = decode(replace(job, tokens=min(_WARM, job.tokens)) if probe else job, 0)
    fits = int(seconds / max(first.step, 1e-6)) if first.tokens > 1 else job.tokens
    if probe:
        job = replace(job, tokens=min(job.tokens, max(_WARM, fits)))
    steady = decode(job, 1).step
    once = max(0.0, first.decode - (first.tokens - 1) * steady)
    return _Warm(job, loading + first.first + once, session.peak() - before or None)


def _compete(
    session: Session,
    ours: Ours,
    target: Target,
    job: Job,
    contestants: dict[str, tuple[Decode, _Warm]],
    rounds: int,
) -> list[Row]:
    timings: dict[str, list[Timing]] = {name: [] for name in contestants}
    for number in range(rounds):
        for name, (decode, warm) in list(contestants.items()):
            session.progress.say(f"    {target.title} · {job.title} · {name} · round {number + 1}/{rounds}")
            try:
                timings[name].append(decode(warm.job, 2 + number))
            except BenchError as error:
                session.ledger.note(f"{target.title}, {job.title}, {name}: {error}")
                del contestants[name]
        if number and session.progress.left <= 0:
            break
    rows = []
    own = Summary.of(timings[NAME]) if timings[NAME] else None
    decoder = decoders.find(job.strategy)
    for name, taken in timings.items():
        if not taken:
            continue
        summary = Summary.of(taken)
        done = replace(job, prompt=summary.prompt, tokens=summary.tokens)
        roles = decoder.roles
        rows_side_by_side = decoder.rows(_numbers(job))
        floor = ours.floor_bytes(roles, done, rows_side_by_side) / session.bandwidth
        facts = ours.facts[target.name]
        row = Row(
            model=target.title,
            parameters=facts.info.parameters,
            device=session.device,
            precision=facts.info.precision,
            tier=facts.info.tier if name == NAME else "transformers",
            strategy=job.title,
            who=name,
            prompt=summary.prompt,
            tokens=summary.tokens,
            rounds=summary.rounds,
            tokens_per_second=1 / summary.step,
            step=summary.step,
            spread=summary.spread,
            floor=floor,
            of_floor=floor / summary.step,
            first=summary.first,
            setup=contestants[name][1].setup if name in contestants else nan,
            peak=contestants[name][1].peak if name in contestants else None,
            ratio=nan if name == NAME or own is None else summary.step / own.step,
        )
        rows.append(row)
        session.ledger.add(asdict(row))
    return rows


def _numbers(job: Job) -> dict[str, float]:
    decoder = decoders.find(job.strategy)
    values = {param.name: param.default for param in decoder.params}
    known = {param.name: param for param in decoder.params}
    return values | {name: known[name].parse(value) for name, value in job.values.items() if name in known}
