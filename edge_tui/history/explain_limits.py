"""Says what keeps a token of a stored run from being explained as it was: what is gone, or has changed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edge_tui import decoders
from edge_tui.decoders.base import names_of
from edge_tui.history.recorder import versions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edge_tui.engine.events import Loaded, Started
    from edge_tui.engine.explanation import Explanation
    from edge_tui.history.runs import StoredRun
    from edge_tui.transcript.token_table import TokenView

_LEAST_EPSILON = 1e-3
_FAR = 4
"""Times the error of a sum: what is further off the record on the same machine comes of other weights."""


def refusal(stored: StoredRun) -> str:
    """Says why no token of a run can be computed again, one sentence; "" where that may be tried."""
    started, models = stored.started, stored.models.values()
    if started is None or not models:
        return "What is kept of this run does not say which model wrote it: this is its record."
    if any(model.tier == "remote" and not model.architecture for model in models):
        return f"{stored.model} wrote this on a server that tells too little of a token: this is its record."
    return _changed(started, stored.versions)


def _changed(started: Started, before: Mapping[str, str]) -> str:
    """Says how the strategy differs from the one that wrote a run; "" where nothing shows it."""
    try:
        decoder = decoders.find(started.strategy)
    except decoders.UnknownStrategy:
        return f"There is no strategy {started.strategy} here: name its folder with --decoders."
    if gone := started.values.keys() - {param.name for param in decoder.params}:
        return f"{decoder.title} has no parameter {min(gone)} any more, so it has changed since this run."
    files = decoders.current().file_versions(decoder)
    if changed := [name for name, version in files.items() if before.get(name, version) != version]:
        return f"The {changed[0]} has changed since this run, so {decoder.title} may decide otherwise now."
    if files and names_of(decoder.all_columns) != started.columns:
        return f"{decoder.title} records other numbers than in this run, so its file has changed since."
    return ""


def compare(
    answer: Explanation, stored: StoredRun, token: TokenView, loaded: Mapping[str, Loaded]
) -> Explanation:
    """Adds to an explanation how far its numbers are off the record, where something is not as it was.

    Args:
        answer: The explanation.
        stored: The run; its tokens are not read.
        token: Its record.
        loaded: The models here, by role.
    """
    changes = _differences(stored, loaded)
    notes = [answer.note, _unknown_file(stored)]
    recorded = {each.id: each.logp for each in token.top}
    errors = [abs(each.raw_logp - recorded[each.id]) for each in answer.candidates if each.id in recorded]
    error = max(errors, default=0.0)
    is_other = not changes and error > _FAR * max(answer.epsilon, _LEAST_EPSILON)
    if is_other:
        notes.append(f"{stored.model} gives other numbers than in this run, so its files have changed since.")
    if changes:
        notes.append(f"{'; '.join(changes)}: the numbers are nearly those of the draw.")
    if changes or is_other:
        facts = (*answer.facts, ("off the record", f"{error:.2g}"))
        answer = replace(answer, exactness="near", epsilon=max(answer.epsilon, error), facts=facts)
    return replace(answer, note=" ".join(filter(None, notes)))


def _unknown_file(stored: StoredRun) -> str:
    """Says that nothing tells whether a user's file has changed since a run; "" where that is known."""
    files = decoders.current().file_versions(decoders.find(stored.entry.strategy))
    unknown = [name for name in files if name not in stored.versions]
    return f"Whether the {unknown[0]} has changed since this run was not recorded." if unknown else ""


def _differences(stored: StoredRun, loaded: Mapping[str, Loaded]) -> list[str]:
    """Lists what is not as it was when a run was written: precision, device, programs' versions."""
    found = []
    for role, then in stored.models.items():
        now = loaded.get(role)
        if now is not None and (then.precision, then.device) != (now.precision, now.device):
            found.append(
                f"{then.name} was {then.precision} on {then.device}, here {now.precision} on {now.device}"
            )
    here = versions()
    for name, version in stored.versions.items():
        if name != "python" and here.get(name, version) != version:
            found.append(f"{name} was {version}, here {here[name]}")
    return found
