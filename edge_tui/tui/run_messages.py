"""Writes the sentences of the message line about runs and models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_tui.engine.events import FINISH_REASONS
from edge_tui.util import formatting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edge_tui.engine.events import Finished, Loaded, Started, Unloaded
    from edge_tui.tui.session import Run


def started(event: Started, title: str) -> str:
    """Names the strategy of a run that has started, its seed and its limits.

    Args:
        event: The start.
        title: The strategy's title.
    """
    reused = f" · {event.reused_tokens:,} of {event.prompt_tokens:,} prompt tokens reused"
    sentence = f"{title} · seed {event.seed} · at most {event.max_new_tokens} tokens"
    return sentence + (reused if event.reused_tokens else "")


def finished(event: Finished, run: Run) -> str:
    """Names the reason of a run's end, its length and speed, and repeats its notices.

    A short run has passed before its notices could be read.
    """
    parts = [
        FINISH_REASONS.get(event.reason, event.reason),
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


def loaded(event: Loaded) -> str:
    """Names a model that has loaded, its role and its size."""
    note = f" {' '.join(event.notices)}" if event.notices else ""
    # A model on somebody else's machine may be known by its name alone.
    size = formatting.size(event.weight_bytes) if event.weight_bytes else ""
    facts = ", ".join(fact for fact in (event.architecture, size) if fact) or event.device
    return f"{event.name} ready as {event.role} in {formatting.duration(event.seconds)}: {facts}.{note}"


def unloaded(event: Unloaded) -> str:
    """Names a model that has unloaded, and the memory that it gave back."""
    return f"{event.name} unloaded: {formatting.size(event.before_bytes - event.after_bytes)} came back."


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
