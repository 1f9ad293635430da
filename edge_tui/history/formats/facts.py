"""Lists the facts about a run that every format shows."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from edge_tui.engine import seeds
from edge_tui.engine.events import FINISH_REASONS
from edge_tui.engine.port import Message
from edge_tui.engine.text.template_variables import write_assignments

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
    lines.append(("strategy", entry.strategy))
    if started is not None:
        for name, resolved in started.values.items():
            lines.append((name, f"{value_text(resolved.value)} ({resolved.source})"))
        lines.append(("seed", seeds.span(started.seed, stored.request.samples)))
        lines.append(("control tokens", " ".join(started.control_tokens)))
    lines.append(("template", write_assignments(stored.request.template)))
    lines += [(f"{each.name} from token {each.index}", f"{each.value:.6g}") for each in stored.changes]
    lines.append(("tokens", f"{entry.tokens:,}"))
    if finished is not None:
        lines.append(("first token after", f"{finished.time_to_first_token * 1000:.0f} ms"))
        lines.append(("tokens per second", f"{finished.tokens_per_second:.1f}"))
    lines.append(("ended", ending(stored)))
    lines.append(("versions", ", ".join(f"{name} {number}" for name, number in stored.versions.items())))
    return [(name, value) for name, value in lines if value]


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
