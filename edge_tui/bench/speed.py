"""`edge-tui bench speed`: tokens per second, against the hardware's floor and against `generate()`.

All contestants live in one process and take turns, so that whatever slows the machine slows them alike; the
median of the rounds is reported with its spread. Each round has a prompt of its own, or the engine would
reuse what it has read before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import nan

from edge_tui import decoders
from edge_tui.bench.edge_runner import NAME, Ours, prompt_ids
from edge_tui.bench.job import Job, Summary, Timing
from edge_tui.bench.session import Session, Target
from edge_tui.bench.transformers_runner import KINDS, Peer, can_run
from edge_tui.engine.port import Precision

Decode = Callable[[Job, int], Timing]
"""One contestant's decode of a job in a round."""

_WARM = 16
"""Tokens of a first, uncounted decode, which tells how many fit the time allowed for one."""


@dataclass(frozen=True, slots=True)
class Row:
    """One contestant under one strategy: a line of the table. Seconds and bytes; NaN and None: not known.

    Attributes:
        model, parameters, device, device_name, precision: What decoded, and where.
        tier: The engine's path ("flat", …); "transformers" for a peer.
        strategy: With the parameters that were set.
        who: The contestant.
        batch: Answers decoded side by side.
        prompt, tokens, rounds: Tokens read and written in each of them, and how often.
        tokens_per_second: Of the whole batch, median.
        step, spread: Time of a step, and half the range of the rounds as a share of it.
        floor, of_floor: Seconds that reading weights and cache would take, and their share of `step`.
        first: To the first token.
        setup: From nothing to the first token at full speed: loading, compiling, capturing.
        peak: Most bytes of GPU memory.
        ratio: Our rate over this contestant's; NaN in our own row.
    """

    model: str
    parameters: int
    device: str
    device_name: str
    precision: str
    tier: str
    strategy: str
    who: str
    batch: int
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
        peers: Keys of `edge_tui.bench.transformers_runner.KINDS`.
        rounds: Counted decodes of each contestant.
        seconds: Most time for one decode; a slow contestant writes fewer tokens.

    Raises:
        BenchError: the model cannot be loaded.
    """
    session.measure_bandwidth()
    before = session.allocated()
    ours = session.ours(target, precision, second)
    peer: Peer | None = None
    entries: list[_Entry] = []
    try:
        began = time.perf_counter()
        facts = ours.load()
        loading = time.perf_counter() - began
        with session.noting(target.title, precision):
            for job in jobs:
                with session.noting(target.title, precision, job.title):
                    warm = _warm(session, job, _decode(ours), loading, before, seconds)
                    entries.append(_Entry(job, NAME, facts.info.precision, _decode(ours), warm))
            theirs = _peer_precision(session, facts.info.precision)
            wanted = [(e.job, k) for e in entries for k in peers if can_run(k, e.job.strategy, theirs)]
            if wanted:
                base = session.allocated()
                peer = session.peer(target, theirs)
                for job, kind in wanted:
                    with session.noting(target.title, precision, job.title, KINDS[kind]):
                        decode = _generate(peer, kind, ours, target)
                        probe = kind != "static"
                        warm = _warm(session, job, decode, peer.seconds, base, seconds, probe)
                        entries.append(_Entry(job, KINDS[kind], theirs, decode, warm))
        return _take_turns(session, ours, target, entries, rounds)
    finally:
        if peer is not None:
            peer.close()
        ours.close()
        session.free()


@dataclass(slots=True)
class _Entry:
    """A contestant under one job, and its counted decodes."""

    job: Job
    who: str
    precision: str
    decode: Decode
    warm: _Warm
    taken: list[Timing] = field(default_factory=list)
    remarks: tuple[str, ...] = ()


def _peer_precision(session: Session, precision: str) -> str:
    """Bitsandbytes is no match for a CPU: what users have there is float32."""
    return "float32" if session.device == "cpu" and precision in ("int8", "4bit") else precision


def _decode(ours: Ours) -> Decode:
    def decode(job: Job, number: int) -> Timing:
        return ours.run(job, prompt_ids(ours.facts[ours.specs["model"].name].tokenizer, job.prompt, number))

    return decode


def _generate(peer: Peer, kind: str, ours: Ours, target: Target) -> Decode:
    tokenizer = ours.facts[target.name].tokenizer

    def decode(job: Job, number: int) -> Timing:
        return peer.run(kind, job, [prompt_ids(tokenizer, job.prompt, number)] * job.batch)

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
    return _Warm(job, loading + first.first + once, session.peak(before))


def _take_turns(
    session: Session, ours: Ours, target: Target, entries: list[_Entry], rounds: int
) -> list[Row]:
    """Counts `rounds` decodes of every entry in turn; what there is when the time is up counts."""
    rows: list[Row] = []
    order = {key: i for i, key in enumerate(dict.fromkeys(id(entry.job) for entry in entries))}
    try:
        for number in range(rounds):
            session.progress.say(f"round {number + 1}/{rounds}", number / rounds)
            for entry in entries:
                if entry.taken and session.progress.left <= 0:
                    continue
                with session.noting(target.title, entry.job.title, entry.who):
                    entry.taken.append(entry.decode(entry.warm.job, 2 + number))
                    entry.remarks = tuple(ours.notices) if entry.who == NAME else ()
    finally:
        entries.sort(key=lambda entry: order[id(entry.job)])
        own = {id(e.job): Summary.of(e.taken).step for e in entries if e.who == NAME and e.taken}
        for entry in entries:
            if entry.taken:
                rows.append(_row(session, ours, target, entry, own.get(id(entry.job), nan)))
                session.ledger.add(asdict(rows[-1]))
                for sentence in entry.remarks:
                    session.ledger.note(f"{target.title}, {entry.job.title}: {sentence}")
    return rows


def _row(session: Session, ours: Ours, target: Target, entry: _Entry, own: float) -> Row:
    summary = Summary.of(entry.taken)
    done = replace(entry.job, prompt=summary.prompt, tokens=summary.tokens)
    decoder = decoders.find(done.strategy)
    facts = ours.facts[target.name]
    floor = nan
    # What a step of speculation reads is known, but not how many tokens come of it.
    if entry.precision == facts.info.precision and decoder.kind != "propose":
        side_by_side = decoder.rows(_numbers(done)) * done.batch
        floor = ours.floor_bytes(decoder.roles, done, side_by_side) / session.bandwidth
    return Row(
        model=target.title,
        parameters=facts.info.parameters,
        device=session.device,
        device_name=session.device_name,
        precision=entry.precision,
        tier=facts.info.tier if entry.who == NAME else "transformers",
        strategy=entry.job.title,
        who=entry.who,
        batch=done.batch,
        prompt=summary.prompt,
        tokens=summary.tokens,
        rounds=summary.rounds,
        tokens_per_second=done.batch / summary.step,
        step=summary.step,
        spread=summary.spread,
        floor=floor,
        of_floor=floor / summary.step,
        first=summary.first,
        setup=entry.warm.setup,
        peak=entry.warm.peak,
        ratio=nan if entry.who == NAME else summary.step / own,
    )


def _numbers(job: Job) -> dict[str, float]:
    decoder = decoders.find(job.strategy)
    values = {param.name: param.default for param in decoder.params}
    known = {param.name: param for param in decoder.params}
    return values | {name: known[name].parse(value) for name, value in job.values.items() if name in known}
