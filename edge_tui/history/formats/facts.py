"""Lists the facts about a run that every format shows."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from edge_tui.engine import seeds
from edge_tui.engine.events import FINISH_REASONS
from edge_tui.engine.port import Message
from edge_tui.engine.text.template_variables import write_assignments
from edge_tui.history.reproduce import NOT_RECORDED

if TYPE_CHECKING:
    from edge_tui.decoders.base import Value
    from edge_tui.history.runs import StoredRun


def facts(stored: StoredRun) -> list[tuple[str, str]]:
    """Lists names and values, the most important first."""
    entry, started, finished = stored.entry, stored.started, stored.finished
    lines = [("date", time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.created)))]
    for role, model in stored.models.items():
        size = f"{model.parameters / 1e6:,.0f} M parameters"
        lines.append((role, f"{model.name} · {model.precision} · {model.device} · {size}"))
    lines += _machine(stored)
    lines.append(("strategy", entry.strategy))
    if started is not None:
        for name, resolved in started.values.items():
            lines.append((name, f"{value_text(resolved.value)} ({resolved.source})"))
        lines.append(("seed", seeds.span(started.seed, stored.request.samples)))
        lines.append(("rows", str(started.rows)))
        lines.append(("control tokens", " ".join(started.control_tokens)))
    lines.append(("chat template", _chat(stored)))
    lines.append(("template", write_assignments(stored.request.template)))
    lines += [(f"{each.name} from token {each.index}", f"{each.value:.6g}") for each in stored.changes]
    lines.append(("tokens", f"{entry.tokens:,}"))
    if finished is not None:
        lines.append(("first token after", f"{finished.time_to_first_token * 1000:.0f} ms"))
        lines.append(("tokens per second", f"{finished.tokens_per_second:.1f}"))
    lines.append(("ended", ending(stored)))
    lines.append(("versions", ", ".join(f"{name} {number}" for name, number in stored.versions.items())))
    return [(name, value) for name, value in lines if value]


def _machine(stored: StoredRun) -> list[tuple[str, str]]:
    """Names what decoded: the program's version, the device and the way that the model's step ran."""
    started = stored.started
    if started is None:
        return []
    version = started.version or stored.versions.get("edge-tui", "")
    threads = f"{started.threads} thread{'s' * (started.threads > 1)}" if started.threads else ""
    tier = next((model.tier for model in stored.models.values()), "")
    kernels = ", ".join(part for part in (tier, started.kernels, threads) if part)
    return [
        ("edge-tui", version or NOT_RECORDED),
        ("device", started.device_name or NOT_RECORDED),
        ("kernels", kernels if started.kernels else NOT_RECORDED),
    ]


def settings_line(stored: StoredRun) -> str:
    """Writes what decides a run in one line: version, device, kernels, rows, seed and values."""
    values = stored.started.values if stored.started is not None else {}
    named = {"edge-tui", "device", "kernels", "rows", "chat template", "seed", *values}
    return " · ".join(f"{name} {value}" for name, value in facts(stored) if name in named)


def _chat(stored: StoredRun) -> str:
    """Tells whether the model's chat template wrote the prompt."""
    main = next(iter(stored.models.values()), None)
    if main is None or stored.request.ids:
        return ""
    return "on" if main.chat and stored.request.chat is not False else "off"


def value_text(value: Value) -> str:
    """Writes a parameter's value; a text in quotes where it would not be seen as it is."""
    if value in ("", ()):
        return "none"
    if isinstance(value, tuple):
        return ", ".join(map(repr, value))
    if isinstance(value, str):
        return value if value.strip() == value and value.isprintable() else repr(value)
    return f"{value:.6g}"


def ending(stored: StoredRun) -> str:
    """Describes the end of a run in a few words."""
    if stored.message:
        return stored.message
    return FINISH_REASONS.get(stored.entry.reason, stored.entry.reason or stored.entry.state)


def turns(stored: StoredRun) -> list[Message]:
    """Lists the turns before the answer, oldest first; a raw prompt is one user turn."""
    request = stored.request
    before = [Message("system", request.system)] if request.system else []
    if isinstance(request.prompt, str):
        return [*before, Message("user", request.prompt)]
    return [*before, *request.prompt]


SPEAKERS = {"system": "system prompt", "user": "prompt", "assistant": "answer"}
"""Headings of turns."""
