"""`edge-tui models`: lists models, inspects those on the hub and downloads them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from edge_tui.cli.flag_settings import load_settings
from edge_tui.cli.messages import fail, print_line
from edge_tui.errors import UsageError
from edge_tui.hub.listing import local_models
from edge_tui.hub.precision_options import PRECISIONS, estimate_model
from edge_tui.hub.remote import Download, Progress, RemoteModel, inspect, repository_id
from edge_tui.util.formatting import size
from edge_tui.util.safe_stream import write_control

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edge_tui.config.settings import Settings
    from edge_tui.engine.checkpoints.checkpoint import Checkpoint
    from edge_tui.hub.listing import Listing


def run(flags: Mapping[str, Any]) -> int:
    """Runs `edge-tui models …`; returns the exit status.

    Raises:
        HubError: the hub cannot be reached, or refuses.
        UsageError: a repository's name is none.
    """
    settings, _ = load_settings({})
    command = flags.get("models") or "list"
    if command == "list":
        return _list(settings)
    name = repository_id(flags["repository"])
    if not name:
        raise UsageError(
            f"{flags['repository']!r} is not a repository id: write one like Qwen/Qwen2.5-0.5B-Instruct."
        )
    remote = inspect(name)
    if remote.checkpoint is None:
        return fail(remote.refusal)
    _describe(remote, remote.checkpoint, settings)
    return 0 if command == "look" else _pull(name)


def _list(settings: Settings) -> int:
    for listing in local_models(settings.models.folders):
        print_line(_line(listing))
    return 0


def _line(listing: Listing) -> str:
    if not listing.ready:
        return f"{listing.name}  not ready: {listing.refusal}"
    facts = f"{listing.parameters / 1e9:.3g}B {listing.dtype}, {size(listing.bytes)}, {listing.architecture}"
    return f"{listing.name}  {facts}, {listing.tier}"


def _describe(remote: RemoteModel, checkpoint: Checkpoint, settings: Settings) -> None:
    """Prints what is known before the download."""
    listing = remote.listing
    count = f"{listing.parameters / 1e9:.3g}B parameters"
    print_line(f"{remote.name}: {listing.architecture}, {count}, {listing.dtype}")
    print(f"  download  {size(remote.bytes)} in {len(remote.files)} files")
    print(f"  tier      {listing.tier}")
    seen = estimate_model(checkpoint, settings.device, settings.context)
    for precision in PRECISIONS:
        if precision in seen.reasons:
            print_line(f"  {precision:<9} {seen.reasons[precision]}")
        else:
            print(f"  {precision:<9} {size(seen.estimates[precision].total)} on {seen.device.name}")


def _pull(name: str) -> int:
    """Downloads a repository with a progress line; returns the exit status."""
    pull = Download(name).start()
    shown = sys.stderr.isatty()
    try:
        while pull.progress.active:
            pull.wait(0.2)
            if shown:
                write_control(sys.stderr, f"\r\x1b[K{progress_text(pull.progress)}")
    except KeyboardInterrupt:
        pull.cancel()
        pull.wait(3)
        print(file=sys.stderr)
        return fail(f"{name} was not fetched; what has come whole is kept for the next time.", 130)
    end = pull.wait()
    if shown:
        print(file=sys.stderr)
    if end.phase != "done":
        return fail(end.sentence)
    print(f"{name} is ready.")
    return 0


def progress_text(progress: Progress) -> str:
    """Writes a download's state in a line: bytes, rate, and the time that is left."""
    if not progress.total:
        return "looking …"
    parts = [f"{size(progress.done)} of {size(progress.total)}", f"{progress.done / progress.total:.0%}"]
    if progress.rate is not None:
        parts.append(f"{size(int(progress.rate))}/s")
    return " · ".join(part for part in [*parts, progress.left] if part)
