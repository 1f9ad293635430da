"""`edge-tui config`: shows every setting with its source, writes a first file, imports an old YAML file."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from edge_tui import decoders
from edge_tui.cli.flag_settings import load_settings
from edge_tui.cli.messages import fail, print_line
from edge_tui.config import resources
from edge_tui.config.names import shared_parameters, with_chains
from edge_tui.config.precedence import Decision
from edge_tui.config.reader import flatten, read
from edge_tui.config.schema import QUANTIZATION, SCHEMA, RawText
from edge_tui.config.settings import COMMON, Settings, user_config
from edge_tui.config.writer import ConfigError, change, table_text, toml_text, write
from edge_tui.decoders.base import ParamError, TextParam
from edge_tui.util.sanitise import sanitise
from edge_tui.util.user_file import error_reason, exists, expand, read_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from edge_tui.decoders.base import AnyParam, Value

_ALIASES = {
    "models.name": ("model", "model_name", "model_id", "model_path", "default_model", "base_model"),
    "models.expert": ("expert", "expert_model", "expert_name"),
    "models.amateur": ("amateur", "amateur_model", "amateur_name"),
    "precision": ("quantization", "quantisation", "dtype", "torch_dtype"),
    "context": ("context_length", "max_context", "context_size", "n_ctx"),
    "strategy": ("decoding", "decoding_method", "decoding_strategy", "method", "decoder"),
    "stream": ("streaming",),
    "max_length": ("max_new_tokens", "max_tokens"),
    "stop": ("stop_sequences", "stop_strings"),
    "chat": ("chat_template", "use_chat_template"),
    "system": ("system_prompt", "system_message"),
    "num_beams": ("beam_width", "beam_size", "beams"),
    "amateur_temperature": ("student_temperature",),
    "temperature": ("temp",),
}
"""Names that old files use for our keys, the last part of a path being what counts."""


def run(flags: dict[str, Any]) -> int:
    """Runs `edge-tui config …`; returns the exit status: 1 where a value cannot be used.

    Raises:
        ConfigError: a file cannot be read or written.
    """
    command, old = flags.pop("what", "show"), flags.pop("old", "")
    settings, notices = load_settings(flags)
    file = settings.file or user_config()
    if command == "init":
        return _init(file)
    if command == "import":
        return _import(expand(old), file)
    for line in show(settings):
        print_line(line)
    statuses = [fail(notice.precise()) for notice in notices if notice.origin]
    return max(statuses, default=0)


# Showing.


def show(settings: Settings) -> Iterator[str]:
    """Yields every setting as TOML, with its source behind it."""
    entries = list(_entries(settings))
    width = min(max(len(f"{key} = {toml_text(value)}") for _, key, value, _ in entries), 40)
    heading = ""
    for table, key, value, source in entries:
        if table != heading:
            yield from ("", f"[{table_text(table)}]")
            heading = table
        # TOML has no null; a variable that JSON gave it cannot be written as one.
        is_null = value is None and table == "template"
        written = f"# {key} = null" if is_null else f"{key} = {toml_text(value)}"
        yield f"{written:<{width}}  # {source}"


def _entries(settings: Settings) -> Iterator[tuple[str, str, Any, str]]:
    """Yields (table, key, value, source with losers) of everything, those outside a table first."""
    keys = sorted(SCHEMA, key=lambda key: key.count("."))
    for dotted in (*keys, *(f"template.{name}" for name in settings.template)):
        table, _, name = dotted.rpartition(".")
        yield table, name, settings.value_of(dotted), _source(settings, dotted)
    shared = shared_parameters()
    for name, param in shared.items():
        yield _parameter_entry("parameters", param, settings.decision(COMMON, name))
    for decoder in with_chains((settings.strategy, *settings.parameters)):
        decisions = settings.decisions(decoder.name)
        for param in decoder.params:
            if param.name not in shared or param.name in settings.parameters.get(decoder.name, {}):
                yield _parameter_entry(f"parameters.{decoder.name}", param, decisions.get(param.name))
    for action, key in settings.keys.items():
        yield "keys", action, key, _source(settings, f"keys.{action}")


def _parameter_entry(table: str, param: AnyParam, decision: Decision | None) -> tuple[str, str, Any, str]:
    if decision is None:
        return table, param.name, _toml_value(param, param.default), "default"
    winner = decision.winner
    losers = tuple(replace(claim, value=param.text(claim.value)) for claim in decision.losers)
    source = f"mode {winner.word}, {winner.source}" if winner.word else winner.source
    value = _toml_value(param, winner.value)
    return table, param.name, value, _with_losers(source, replace(decision, losers=losers))


def _source(settings: Settings, key: str) -> str:
    """Returns the source of a setting, and the values that lost."""
    claims = settings.claims_of(key)
    return _with_losers(settings.source(key), Decision(claims[-1], claims[-2::-1]) if claims else None)


def _with_losers(source: str, decision: Decision | None) -> str:
    losers = decision.losers_text() if decision is not None else ""
    return f"{source}; {losers}" if losers else source


def _toml_value(param: AnyParam, value: Value) -> Any:
    """Returns a value as the file has it: a word for a choice, a whole number without a point."""
    if isinstance(param, TextParam):
        return list(value) if isinstance(value, tuple) else value
    text = param.text(param.parse(value))
    if param.choices:
        return text
    return int(text) if re.fullmatch(r"-?\d+", text) else float(text)


# Beginning.


def _init(path: Path) -> int:
    if exists(path):
        return fail(f"{path} is there already and stays as it is; `edge-tui config` shows what it says.")
    write(path, template())
    print_line(f"{path} is written: every key with its default, commented out.")
    return 0


def template() -> str:
    """Returns config.toml and the strategies' tables, every key commented out below its own comment."""
    lines = resources.config_file().read_text(encoding="utf-8").splitlines()
    keep = re.compile(r"\[|#|\s*$")
    lines += strategy_tables()
    return "\n".join(line if keep.match(line) else f"# {line}" for line in lines) + "\n"


def strategy_tables() -> Iterator[str]:
    """Yields the lines of a table `[parameters.NAME]` for each strategy with parameters of its own."""
    shared = shared_parameters()
    for decoder in decoders.strategies():
        own = [param for param in decoder.params if param.name not in shared]
        about = decoder.summary
        if decoder.reads_checkpoint:
            own, about = [], "A value that you set here wins over the checkpoint's generation_config.json."
        elif not own:
            continue
        yield from ("", *_comment(about), f"[parameters.{decoder.name}]")
        for param in own:
            limits = re.sub("^a ", "A ", param.limits())
            yield from _comment(f"{param.help} {limits}.")
            yield f"{param.name} = {toml_text(_toml_value(param, param.default))}"


def _comment(text: str) -> list[str]:
    """Wraps a text into lines of comments; control characters, which TOML forbids there, are replaced."""
    return [f"# {line}" for line in wrap(sanitise(text), 106)]


# Importing.


def _import(old: Path, path: Path) -> int:
    """Writes an old file's settings into the user's own; values that stand there stay."""
    values, remarks = translate(_yaml(old))
    present = read(path)[0].values
    for key in [key for key in values if key in present]:
        remarks.append(
            f"{key} stays as your file has it, {toml_text(present[key])}, not {toml_text(values.pop(key))}."
        )
    if values:
        change(path, values)
    for key, value in values.items():
        print_line(f"{key} = {toml_text(value)}")
    for sentence in remarks:
        fail(sentence)
    print_line(f"{len(values)} settings were written to {path}.")
    return 0


def _yaml(path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        data = yaml.safe_load(read_text(path))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error_reason(error)}).") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark is not None else str(path)
        raise ConfigError(f"{where} is not valid YAML; nothing was taken over.") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} holds no settings: a YAML mapping was expected.")
    return data


def translate(data: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Translates an old file's entries into today's keys.

    Returns:
        TOML values by dotted key, and a sentence for each entry that was not, or not quite, taken over.
    """
    names = {alias: key for key, aliases in _ALIASES.items() for alias in aliases}
    values: dict[str, Any] = {}
    remarks: list[str] = []
    for old, value in flatten({str(key): each for key, each in data.items()}):
        if value is None or (isinstance(value, list) and old.lower() in ("models", "available_models")):
            continue
        last = old.rpartition(".")[2].lower().replace("-", "_")
        name = names.get(last, last)
        try:
            found = _setting(old, name, value) or _parameter(old, name, value)
        except (ParamError, decoders.UnknownStrategy) as error:
            remarks.append(str(error))
        except ValueError as error:
            remarks.append(f"{old} {error}")
        else:
            if found is None:
                remarks.append(f"{old} has no counterpart here and was left out.")
                continue
            values[found[0]] = found[1]
            if name == "head_parameter":
                remarks.append(
                    'head_parameter does nothing: under formula = "seed" it multiplies a score whose argmax'
                    " is taken. It is not alpha."
                )
    return values, remarks


def _setting(old: str, name: str, value: Any) -> tuple[str, Any] | None:
    """Finds a setting of the schema by its name, or by its table and the end of its dotted key."""
    table = old.rpartition(".")[0].rpartition(".")[2].lower()
    choices = [name, f"{table}.{name}", f"ui.{name}"]
    choices += [f"models.{name}"] if name == "name" else []
    key = next((choice for choice in choices if choice in SCHEMA), None)
    if key is None:
        return None
    if key == "precision":
        lower = str(value).lower()
        value = {**QUANTIZATION, "8bit": "int8", "nf4": "4bit"}.get(lower, value)
    if key == "strategy":
        return key, decoders.find(str(value)).name
    checked = SCHEMA[key](RawText(value) if isinstance(value, str) else value)
    return key, "auto" if checked is None else list(checked) if isinstance(checked, tuple) else checked


def _parameter(old: str, name: str, value: Any) -> tuple[str, Any] | None:
    """Finds a strategy's parameter; its table decides where several strategies have it."""
    owners = [each for each in decoders.strategies() if any(param.name == name for param in each.params)]
    if not owners:
        return None
    tables = [part.lower() for part in old.split(".")[:-1]]
    of_table = [each for each in owners if each.name in tables]
    decoder = (of_table or [each for each in owners if not each.reads_checkpoint] or owners)[0]
    param = next(param for param in decoder.params if param.name == name)
    number = param.parse(value)
    if isinstance(number, float) and not math.isfinite(number):
        raise ValueError(f"must be {param.limits()}.")
    is_common = name in shared_parameters() and not of_table
    key = f"parameters.{name}" if is_common else f"parameters.{decoder.name}.{name}"
    return key, _toml_value(param, number)
