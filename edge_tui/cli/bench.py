"""`edge-tui bench`: runs a bench and writes its results to the screen and to files."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import product
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from edge_tui import decoders
from edge_tui.bench import report
from edge_tui.bench.job import BenchError, Job
from edge_tui.bench.progress import Progress
from edge_tui.bench.report import Column, Results
from edge_tui.cli.flag_settings import split_parameter
from edge_tui.cli.messages import print_line
from edge_tui.config.schema import QUANTIZATION, SCHEMA
from edge_tui.decoders.base import ParamError, numbers
from edge_tui.decoders.registry.chain_text import join
from edge_tui.engine.port import Precision
from edge_tui.errors import UsageError
from edge_tui.util.sanitise import sanitise

if TYPE_CHECKING:
    from edge_tui.bench.quality import EvalSpec
    from edge_tui.bench.session import Session

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
    files = {name: Path(options[f]) for name, f in _FILES.items() if options[f]}
    for file in files.values():
        if not file.parent.is_dir():
            raise UsageError(f"there is no folder {file.parent} for the results; make it, or name another.")
    results = Results(str(options["bench"]), files.get("json"))
    bench, columns = _BENCHES[results.kind]
    default = _default_file(results) if results.file is None and bench is not _compare else None
    status = 0
    try:
        columns = bench(options, results) or columns
    except KeyboardInterrupt:
        results.note("Interrupted: what was measured until then is kept.")
        status = 130
    except BenchError as error:
        results.note(str(error))
        status = 1
    _show(files, results, columns)
    if default is not None and results.rows:
        message = f"Results are in {default}; edge-tui bench compare shows the ratios of two such files."
        print_line(message, sys.stderr)
    elif default is not None:
        default.unlink(missing_ok=True)
    return status or (0 if results.rows or results.head.get("starts") else 1)


def _default_file(results: Results) -> Path | None:
    """Gives results a file in the data folder, so that no flag is needed to keep results."""
    import platformdirs

    folder = platformdirs.user_data_path("edge-tui", appauthor=False) / "bench"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        results.note(f"Results cannot be kept in {folder} ({error.strerror}): name a file with --json.")
    else:
        results.file = folder / f"{results.kind}-{datetime.now():%Y%m%d-%H%M%S}.json"
        if results.file.exists():  # of a bench in the same second
            results.file = results.file.with_stem(f"{results.file.stem}-{datetime.now():%f}")
    return results.file


_FILES = {"json": "json_file", "markdown": "markdown", "csv": "csv"}


def _speed(options: Options, results: Results) -> None:
    prompts = [_positive_int(text, "--context") for text in options["context"].split(",")]
    jobs = [
        Job(name, values, prompt, options["tokens"])
        for name, values in _strategies(options).items()
        for prompt in prompts
    ]
    _measure(options, results, [jobs])


def _table(options: Options, results: Results) -> None:
    batches = [_positive_int(text, "--batches") for text in options["batches"]]
    prompt = _positive_int(options["context"], "--context")
    # Each in a fresh engine: what an earlier one keeps would count as the next one's memory.
    groups = [
        [Job(name, values, prompt, options["tokens"], batch=batch)]
        for name, values in _strategies(options).items()
        for batch in batches
    ]
    _measure(options, results, groups)


def _measure(options: Options, results: Results, groups: Sequence[Sequence[Job]]) -> None:
    """Runs `bench speed`: every model in every precision, one group of jobs at a time."""
    from edge_tui.bench.speed import measure

    peers = [name for name in options["peers"] if name != "none"]
    if unknown := [name for name in peers if name not in ("eager", "static")]:
        raise UsageError(f"there is no peer {unknown[0]!r}; there is eager, static and none.")
    models = list(product(_names(options), _precisions(options), groups))
    with _session(options, results, len(models)) as session:
        for (name, random_weights), precision, jobs in models:
            title = jobs[0].title if len(groups) > 1 else f"{len(jobs)} strategies"
            with session.attempt(f"{name} · {precision} · {title}", f"{name}, {precision}") as has_time:
                if has_time:
                    second = session.model(options["second"], random_weights) if options["second"] else None
                    measure(
                        session,
                        session.model(name, random_weights),
                        precision,
                        jobs,
                        second=second,
                        peers=peers,
                        rounds=options["rounds"],
                        seconds=options["seconds"],
                    )


def _quality(options: Options, results: Results) -> None:
    """Runs `bench quality`: every model in every precision."""
    from edge_tui.bench.quality import measure

    names, precisions = _names(options), _precisions(options)
    jobs = [Job(name, values) for name, values in _strategies(options).items()]
    spec = _eval_spec(options, names)
    questions = Path(options["qa"]).read_text(encoding="utf-8") if options["qa"] else ""
    with _session(options, results, 1, prompts=spec.text + questions) as session:
        results.head |= {"window": spec.window, "stride": spec.stride, "remark": report.QUALITY_REMARK}
        models = list(product(names, precisions or _default_precisions(session.device)))
        session.progress.total = len(models)
        for (name, random_weights), precision in models:
            with session.attempt(f"{name} · {precision}", f"{name}, {precision}") as has_time:
                if has_time:
                    measure(session, session.model(name, random_weights), precision, jobs, spec)


def _eval_spec(options: Options, names: Sequence[tuple[str, bool]]) -> EvalSpec:
    """Reads the texts and questions of an evaluation from the flags."""
    from edge_tui.bench.quality import EvalSpec, continuations, dataset_text, held_out, read_questions

    if not 1 <= options["stride"] <= options["window"]:
        raise UsageError("--stride must lie between 1 and --window.")
    count, answer = options["questions"], options["answer"]
    demo = all(name.startswith("demo/") for name, _ in names)
    if options["dataset"]:
        text = dataset_text(options["dataset"])
    elif options["text"]:
        try:
            text = Path(options["text"]).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{options['text']} cannot be read ({error}).") from error
    elif demo:
        text = held_out()
    else:
        raise UsageError("there is no text for the perplexity; give --text FILE or --dataset NAME.")
    questions = read_questions(Path(options["qa"]), count) if options["qa"] else []
    return EvalSpec(
        text,
        lambda tokenizer: questions or continuations(tokenizer, text, count, answer=answer),
        window=options["window"],
        stride=options["stride"],
        tokens=options["text_tokens"],
        answer=answer,
        line=bool(questions),
        raw=not questions,
    )


def _compare(options: Options, results: Results) -> Sequence[Column]:
    from edge_tui.bench import compare

    results.rows, results.notes = compare.compare(Path(options["a"]), Path(options["b"]))
    results.save()
    return compare.columns(results.rows)


def _figures(options: Options, results: Results) -> None:
    from edge_tui.bench import targets
    from edge_tui.bench.scenarios import SCENARIOS

    turns = {"rounds": options["rounds"], "seconds": options["seconds"]}
    with _session(options, results, 1) as session:
        targets.run(session, SCENARIOS, **turns, only=options["only"])


def _session(options: Options, results: Results, total: int, prompts: str = "") -> Session:
    """Makes the session, and writes device and versions to the head of the results."""
    import inspect
    import random

    from edge_tui.bench.session import Session
    from edge_tui.engine.models.manager import import_torch
    from edge_tui.machine.devices import resolve_device

    progress = Progress(total, options["budget"] or inf, quiet=options["quiet"])
    try:
        device = resolve_device(options["device"])
        second = options.get("second_device")
        second_device = resolve_device(second) if second else ""
    except LookupError as error:
        raise UsageError(str(error)) from error
    progress.say("importing torch")
    import_torch()
    results.head.update(report.manifest(device, Job("greedy").seed, prompts or inspect.getsource(random)))
    return Session(device, results, progress, second_device=second_device)


def _names(options: Options) -> list[tuple[str, bool]]:
    """Returns the models, each with True if its weights are random."""
    names = [(name, False) for name in options["models"]]
    names += [(name, True) for name in options["random"]]
    return names or [("demo/expert", False)]


def _precisions(options: Options) -> list[Precision]:
    names = [QUANTIZATION.get(name, name) for name in options["precisions"]]
    for name in names:
        if name not in SCHEMA["precision"].choices:
            known = ", ".join(SCHEMA["precision"].choices)
            raise UsageError(f"there is no precision {name!r}; there is {known}.")
    return [cast("Precision", name) for name in names]


def _default_precisions(device: str) -> list[Precision]:
    """Returns 16 or 32, 8 and 4 bits; processors compute float16 slowly, if at all."""
    return ["float32" if device == "cpu" else "float16", "int8", "4bit"]


def _strategies(options: Options) -> dict[str, dict[str, float | str]]:
    """Returns the named strategies, with the chain around each, and the parameters that were set.

    Raises:
        UsageError: one of them, or a parameter, is unknown, or a value is not for it.
    """
    try:
        chain = options["chain"]
        found = [decoders.find(join(name, chain) if chain else name) for name in options["strategies"]]
    except decoders.UnknownStrategy as error:
        raise UsageError(str(error)) from error
    values: dict[str, dict[str, float | str]] = {decoder.name: {} for decoder in found}
    for pair in options["set"]:
        name, value = split_parameter(pair)
        params = [(decoder.name, param) for decoder in found for param in numbers(decoder.params)]
        known = dict.fromkeys(param.name for _, param in params)
        if name not in known:
            raise UsageError(f"{', '.join(values)}: none has {name!r}; there is {', '.join(known)}.")
        for strategy, param in params:
            if param.name == name:
                try:
                    number = param.parse(value)
                except ParamError as error:
                    raise UsageError(str(error)) from error
                values[strategy][name] = param.text(number) if param.choices else number
    return values


def _positive_int(text: str, flag: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise UsageError(f"{flag} takes whole numbers above 0, not {text!r}.")
    return int(text)


def _show(files: Mapping[str, Path], results: Results, columns: Sequence[Column]) -> None:
    """Writes the files that the flags name, and prints the tables."""
    figures = results.head.get("figures", [])
    remark = [results.head["remark"]] if "remark" in results.head else []
    if "markdown" in files:
        tables = [report.markdown_table(report.FIGURES, figures)] if figures else []
        text = "\n\n".join([*tables, report.markdown_table(columns, results.rows), *remark, *results.notes])
        files["markdown"].write_text(text + "\n", encoding="utf-8")
    if "csv" in files:
        files["csv"].write_text(report.csv_table(columns, results.rows), encoding="utf-8")
    if bandwidth := results.head.get("read_bandwidth"):
        print_line(f"{results.head['device_name']}, reads {report.number(bandwidth / 1e9)} GB/s")
    if figures:
        print(sanitise(report.text_table(report.FIGURES, figures)) + "\n")
    if starts := results.head.get("starts"):
        print(sanitise(report.text_table(report.STARTS, starts)) + "\n")
    if results.rows:
        print(sanitise("\n".join([report.text_table(columns, results.rows), *remark])))
    for sentence in results.notes:
        print_line(sentence, sys.stderr)


_BENCHES: dict[str, tuple[Callable[[Options, Results], Sequence[Column] | None], Sequence[Column]]] = {
    "speed": (_speed, report.SPEED),
    "table": (_table, report.TABLE),
    "quality": (_quality, report.QUALITY),
    "compare": (_compare, ()),
    "figures": (_figures, report.SPEED),
}
"""Each bench, and the columns of its table."""
