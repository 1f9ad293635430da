"""Writes the sentences of the message line about runs and models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_tui.engine import events
from edge_tui.util import formatting

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from edge_tui.engine.events import Event, Finished, Loaded, Started
    from edge_tui.tui.session import Run, Session
    from edge_tui.tui.widgets.message_line import Kind


def message_of(event: Event, session: Session, title_of: Callable[[str], str]) -> tuple[str, Kind] | None:
    """Writes a sentence about an event and gives its weight; None where nothing is to be said.

    Args:
        event: The event, which the session has taken already.
        session: The engine's state; the end of a run is silent while another one waits for it.
        title_of: Gives a strategy's title.
    """
    match event:
        case events.Started(notices=[_, *_]):
            return " ".join(event.notices), "warning"
        case events.Started():
            return _started(event, title_of(event.strategy)), "info"
        case events.Finished():
            run = session.run
            if run is None or run.id != event.run or session.waiting:
                return None
            return _finished(event, run), "good" if event.reason in ("eos", "stop", "done") else "info"
        case events.Failed():
            return event.message, "error"
        case events.Loading():
            return f"Loading {event.name} as {event.role} …", "info"
        case events.Loaded():
            return _loaded(event), "good"
        case events.Unloaded():
            size = formatting.size(event.before_bytes - event.after_bytes)
            return f"{event.name} unloaded: {size} came back.", "good"
        case events.Noticed():
            return event.message, "warning"
        case events.ParamChanged():
            return f"{event.name} is {event.value:.4g} from token {event.index} on.", "info"
    return None


def _started(event: Started, title: str) -> str:
    sentence = f"{title} · seed {event.seed} · at most {event.max_new_tokens} tokens"
    if event.reused_tokens:
        sentence += f" · {event.reused_tokens:,} of {event.prompt_tokens:,} prompt tokens reused"
    return sentence


def _finished(event: Finished, run: Run) -> str:
    """Names the reason of a run's end, its length and speed, and repeats its notices.

    A short run has passed before its notices could be read.
    """
    parts = [
        events.FINISH_REASONS.get(event.reason, event.reason),
        f"{event.new_tokens:,} tokens",
        f"{formatting.rate(event.tokens_per_second)} tok/s",
    ]
    if event.score is not None:
        parts.append(f"score {event.score:.3f}")
    if run.started is not None:
        parts.append(f"seed {run.started.seed}")
        if run.started.reused_tokens:
            parts.append(f"{run.started.reused_tokens:,} reused")
        parts += run.started.notices
    return " · ".join([*parts, *run.notices])


def _loaded(event: Loaded) -> str:
    note = f" {' '.join(event.notices)}" if event.notices else ""
    # A model on somebody else's machine may be known by its name alone.
    size = formatting.size(event.weight_bytes) if event.weight_bytes else ""
    facts = ", ".join(fact for fact in (event.architecture, size) if fact) or event.device
    return f"{event.name} ready as {event.role} in {formatting.duration(event.seconds)}: {facts}.{note}"


def model_title(main: Loaded, models: Mapping[str, Loaded], roles: Sequence[str]) -> str:
    """Names the main model, and the amateur or draft that a strategy pairs it with.

    Args:
        main: The main model.
        models: The loaded models by role.
        roles: The strategy's roles.
    """
    title = main.name
    other = [event.name for role, event in models.items() if role not in ("model", "expert")]
    for role, sign in (("amateur", "−"), ("draft", "+")):
        if other and role in roles:
            title = f"{title} {sign} {other[0]}"
    return title


def model_facts(main: Loaded) -> tuple[str, ...]:
    """Names precision and device, as far as a server tells them, and a base model as one."""
    return tuple(filter(None, (main.precision, main.device, "" if main.chat else "base model")))
