"""From the command line to a bench, and from its results to the screen and files."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any, cast

import decoders
from edge_tui.bench.job import BenchError, Job
from edge_tui.bench.progress import Progress
from edge_tui.bench.report import (
    FIGURES,
    SPEED,
    Column,
    Ledger,
    comma_separated,
    manifest,
    markdown,
    number,
    plain,
)
from edge_tui.cli import UsageError
from edge_tui.engine.port import Precision
from edge_tui.settings_types import QUANTIZATION

_PRECISIONS = ("auto", "float32", "bfloat16", "float16", "int8", "4bit")
Options = Mapping[str, Any]


def run(options: Options) -> int:
    """Runs a bench.

    Args:
        options: The flags, by name.

    Returns:
        0, 1 if nothing could be measured, 130 after ctrl-c (what was measured is kept and shown).

    Raises:
        UsageError: a flag asks for what does not exist.
    """
    kind = str(options["bench"])
    file = Path(options["json_file"]) if options["json_file"] else None
    ledger = Ledger(kind, file)
    if file is not None and not file.parent.is_dir():
        raise UsageError(f"there is no folder {file.parent} for the results; make it, or name another.")
    bench, columns = _BENCHES[kind]
    status = 0
    try:
        bench(options, ledger)
    except KeyboardInterrupt:
        ledger.note("Interrupted: what was measured until then is kept.")
        status = 130
    except BenchError as error:
        ledger.note(str(error))
        status = 1
    _show(options, ledger, columns)
    return status or (0 if ledger.rows else 1)


def _speed(options: Options, ledger: Ledger) -> None:
    from edge_tui.bench.speed import measure

    targets = [(name, False) for name in _list(options["models"])]
    targets += [(name, True) for name in _list(options["random"])]
    if not targets:
        targets = [("demo/expert", False)]
    strategies = [_strategy(name) for name in _list(options["strategies"])]
    precisions = [_precision(name) for name in _list(options["precisions"])]
    peers = [name for name in _list(options["peers"]) if name != "none"]
    if unknown := [name for name in peers if name not in ("eager", "static")]:
        raise UsageError(f"there is no peer {unknown[0]!r}; there is eager, static and none.")
    prompts = [_whole(name, "--context") for name in _list(options["context"])]
    jobs = [
        Job(name, _values(name, options["set"]), prompt, int(options["tokens"]))
        for name in strategies
        for prompt in prompts
    ]
    progress = _progress(options, len(targets) * len(precisions))
    with _session(options, ledger, progress) as session:
        second = options["second"]
        for name, invented in targets:
            for precision in precisions:
                progress.step(f"{name} · {precision}")
                if progress.left <= 0:
                    ledger.note(f"{name}, {precision}: not measured, the time was up.")
                    continue
                try:
                    measure(
                        session,
                        session.target(name, invented),
                        precision,
                        jobs,
                        second=session.target(second, invented) if second else None,
                        peers=peers,
                        rounds=int(options["rounds"]),
                        seconds=float(options["seconds"]),
                    )
                except BenchError as error:
                    ledger.note(f"{name}, {precision}: {error}")


def _figures(options: Options, ledger: Ledger) -> None:
    from edge_tui.bench.figures import run as measure_figures

    with _session(options, ledger, _progress(options, 1)) as session:
        measure_figures(
            session,
            rounds=int(options["rounds"]),
            seconds=float(options["seconds"]),
            only=str(options["only"]),
        )


def _session(options: Options, ledger: Ledger, progress: Progress) -> Any:
    from edge_tui.bench.session import Session
    from edge_tui.engine.devices import resolve_device

    try:
        device = resolve_device(str(options["device"]))
    except LookupError as error:
        raise UsageError(str(error)) from error
    from edge_tui.engine.residents import settle_imports

    progress.say("importing torch")
    settle_imports()
    import inspect
    import random

    ledger.head.update(manifest(device, 0, inspect.getsource(random)))
    return Session(device, ledger, progress)


def _progress(options: Options, total: int) -> Progress:
    return Progress(total, float(options["budget"]) or inf, quiet=bool(options["quiet"]))


def _list(text: str) -> list[str]:
    return [part.strip() for part in str(text).split(",") if part.strip()]


def _strategy(name: str) -> str:
    try:
        return decoders.find(name).name
    except decoders.UnknownStrategy as error:
        raise UsageError(str(error)) from error


def _precision(name: str) -> Precision:
    name = QUANTIZATION.get(name, name)
    if name not in _PRECISIONS:
        raise UsageError(f"there is no precision {name!r}; there is {', '.join(_PRECISIONS)}.")
    return cast("Precision", name)


def _whole(text: str, flag: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise UsageError(f"{flag} takes whole numbers above 0, not {text!r}.")
    return int(text)


def _values(strategy: str, pairs: Sequence[str]) -> dict[str, float | str]:
    """What was set and this strategy has."""
    known = {param.name: param for param in decoders.find(strategy).params}
    values: dict[str, float | str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"--set takes NAME=VALUE, for example --set temperature=0.7, not {pair!r}.")
        if param := known.get(name.strip()):
            number = param.parse(value.strip())
            values[param.name] = param.format(number) if param.choices else number
    return values


def _show(options: Options, ledger: Ledger, columns: Sequence[Column]) -> None:
    figures = ledger.head.get("figures", [])
    if options["markdown"]:
        tables = [markdown(FIGURES, figures)] if figures else []
        text = "\n\n".join([*tables, markdown(columns, ledger.rows), *ledger.notes])
        Path(options["markdown"]).write_text(text + "\n", encoding="utf-8")
    if options["csv"]:
        Path(options["csv"]).write_text(comma_separated(columns, ledger.rows), encoding="utf-8")
    bandwidth = ledger.head.get("read_bandwidth")
    if bandwidth:
        print(f"{ledger.head.get('device_name')}, reads {number(bandwidth / 1e9)} GB/s")
    if figures:
        print(plain(FIGURES, figures) + "\n")
    if ledger.rows:
        print(plain(columns, ledger.rows))
    for sentence in ledger.notes:
        print(sentence, file=sys.stderr)


_BENCHES: dict[str, tuple[Callable[[Options, Ledger], None], Sequence[Column]]] = {
    "speed": (_speed, SPEED),
    "figures": (_figures, SPEED),
}
