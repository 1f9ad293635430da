"""`edge-tui models`: the list of what is here, and downloads from the hub, for shells and scripts."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from edge_tui.hub import local_models
from edge_tui.hub.memory_estimate import PRECISIONS, estimate_model
from edge_tui.hub.remote import HubError, Progress, Pull, Remote, look, repository_id
from edge_tui.util.format import size
from edge_tui.util.safe_stream import control
from edge_tui.util.sanitise import sanitise

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edge_tui.config.settings import Settings
    from edge_tui.hub.listing import Listing


def run(settings: Settings, given: Mapping[str, Any]) -> int:
    """Does what `edge-tui models …` asks; returns the exit status."""
    if given.get("models") in (None, "list"):
        return _list(settings)
    name = repository_id(given["repository"])
    if not name:
        shown = sanitise(repr(given["repository"]), keep_newlines=False)
        return _fail(f"{shown} is not a repository id: write one like Qwen/Qwen2.5-0.5B-Instruct.", 2)
    try:
        remote = look(name)
    except HubError as error:
        return _fail(str(error))
    _describe(remote, settings)
    if remote.checkpoint is None:
        return _fail(remote.refusal)
    return 0 if given["models"] == "look" else _pull(name)


def _list(settings: Settings) -> int:
    for listing in local_models(settings.models.folders):
        print(sanitise(_line(listing), keep_newlines=False))
    return 0


def _line(listing: Listing) -> str:
    if not listing.ready:
        return f"{listing.name}  not ready: {listing.refusal}"
    facts = f"{listing.parameters / 1e9:.3g}B {listing.dtype}, {size(listing.bytes)}, {listing.architecture}"
    return f"{listing.name}  {facts}, {listing.tier}"


def _describe(remote: Remote, settings: Settings) -> None:
    """What is known before the download."""
    checkpoint, listing = remote.checkpoint, remote.listing
    if checkpoint is None:
        return
    count = f"{listing.parameters / 1e9:.3g}B parameters"
    said = f"{remote.name}: {listing.architecture}, {count}, {listing.dtype}"
    print(sanitise(said, keep_newlines=False))
    print(f"  download  {size(remote.bytes)} in {len(remote.files)} files")
    print(f"  tier      {listing.tier}")
    seen = estimate_model(checkpoint, settings.device, settings.context)
    for precision in PRECISIONS:
        if precision in seen.reasons:
            print(sanitise(f"  {precision:<9} {seen.reasons[precision]}", keep_newlines=False))
        else:
            print(f"  {precision:<9} {size(seen.estimates[precision].total)} on {seen.device.name}")


def _pull(name: str) -> int:
    pull = Pull(name).start()
    shown = sys.stderr.isatty()
    try:
        while pull.progress.active:
            pull.wait(0.2)
            if shown:
                control(sys.stderr, f"\r\x1b[K{written(pull.progress)}")
    except KeyboardInterrupt:
        pull.cancel()
        pull.wait(3)
        print(file=sys.stderr)
        return _fail(f"{name} was not fetched; what has come whole is kept for the next time.", 130)
    end = pull.wait()
    if shown:
        print(file=sys.stderr)
    if end.phase != "done":
        return _fail(end.sentence)
    print(f"{name} is ready.")
    return 0


def written(progress: Progress) -> str:
    """A download's state in a line: bytes, rate, and the time that is left."""
    if not progress.total:
        return "looking …"
    parts = [f"{size(progress.done)} of {size(progress.total)}", f"{progress.done / progress.total:.0%}"]
    if progress.rate is not None:
        parts.append(f"{size(int(progress.rate))}/s")
    return " · ".join(part for part in [*parts, progress.left] if part)


def _fail(said: str, status: int = 1) -> int:
    print(f"edge-tui: {sanitise(said, keep_newlines=False)}", file=sys.stderr)
    return status
