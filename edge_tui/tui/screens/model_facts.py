"""Writes the facts about one model: its kind, its device, its memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_tui.hub.precision_options import PRECISIONS
from edge_tui.util.formatting import bar, clip_path, size
from edge_tui.util.sanitise import one_line, sanitise

if TYPE_CHECKING:
    from edge_tui.engine.models.memory_estimate import MemoryEstimate
    from edge_tui.engine.port import Precision
    from edge_tui.hub.listing import Listing
    from edge_tui.hub.precision_options import ModelEstimate
    from edge_tui.hub.remote import Progress
    from edge_tui.tui.widgets.line_panel import Parts

_INDENT = " " * 11


def facts(
    listing: Listing, estimate: ModelEstimate | None, device: str, precision: Precision, other: str = ""
) -> Parts:
    """Writes all facts about a model.

    Args:
        listing: The model.
        estimate: The memory that it would take; None while that is being found out.
        device: As chosen.
        precision: As chosen.
        other: The model that it would play with, "" where there is none to be loaded.
    """
    context = f"{listing.context:,} positions" if listing.context else "no stated limit"
    processes = estimate.contexts.get(precision, 0) if estimate is not None else 0
    if 0 < processes < listing.context:
        context = f"{processes:,} of {context}"
    chat = "chat template" if listing.chat else "no chat template"
    kind = f"{sanitise(listing.architecture)} · {listing.tier} · {context} · {chat}\n"
    parts = [(kind, "$foreground"), ("device     ", "$text-muted")]
    parts += [(f"{device}\n", "$primary bold")] if estimate is None else _where(estimate, device)
    parts.append(("precision ", "$text-muted"))
    for each in PRECISIONS:
        why = estimate.reasons.get(each) if estimate is not None else None
        style = "$text-disabled strike" if why else "$foreground"
        if each == precision:
            style = "reverse bold" + (" strike" if why else "")
        parts += [(f" {each} ", style), (" ", "")]
    parts.append(("\n", ""))
    if estimate is None:
        return [*parts, ("forecast   …\n", "$text-muted")]
    if why := estimate.reasons.get(precision):
        return [*parts, (sanitise(why) + "\n", "$warning")]
    parts += _memory(estimate.estimates[precision], estimate.rows)
    if other and precision in estimate.together:
        parts += _together(estimate.together[precision], other)
    return parts


def _where(estimate: ModelEstimate, asked: str) -> Parts:
    """Writes the device, its free memory, and the processes that hold the rest."""
    device = estimate.device
    name = f"auto: {device.name}" if asked == "auto" else device.name
    known = device.title.casefold() == device.name
    about = [] if known else [one_line(device.title)]
    if device.free is not None and device.total is not None:
        about.append(f"{size(device.free)} of {size(device.total)} free")
    parts = [(f"{name} ", "$primary bold"), (" · ".join(about) + "\n", "$foreground")]
    if estimate.others:
        processes = [
            f"{one_line(each.name) or 'a process'} ({each.pid}) {size(each.bytes)}"
            for each in estimate.others[:3]
        ]
        more = f" and {len(estimate.others) - 3} more" if len(estimate.others) > 3 else ""
        parts += [(_INDENT, ""), (f"held by {', '.join(processes)}{more}\n", "$warning")]
    return parts


def _memory(seen: MemoryEstimate, count: int) -> Parts:
    """Writes the forecast beside the free memory, and its parts."""
    free = f"of {size(seen.free)} free" if seen.free is not None else "free memory unknown"
    share = seen.total / seen.free if seen.free else None
    rows = f" for {count} rows" if count > 1 else ""
    return [
        ("forecast   ", "$text-muted"),
        (f"{size(seen.total)} ", "$foreground bold"),
        (f"{free} ", "$foreground"),
        ("▕", "$text-muted"),
        (bar(share, 16), "$primary" if (share or 0) < 0.85 else "$warning"),
        (f"▏\n{_INDENT}", "$text-muted"),
        (
            f"weights {size(seen.weights)} · KV {size(seen.kv)}{rows} · logits {size(seen.logits)}",
            "$text-muted",
        ),
        (f" · working {size(seen.overhead)}\n", "$text-muted"),
    ]


def _together(devices: tuple[MemoryEstimate, ...], other: str) -> Parts:
    """Writes the pair's memory on each device that it would be on."""
    sentence = ", ".join(f"{size(each.total)} of {size(each.free)} free on {each.device}" for each in devices)
    name = clip_path(one_line(other), 30)
    style = "$foreground" if all(each.fits for each in devices) else "$warning"
    return [(f"{_INDENT}with {name} ", "$text-muted"), (f"{sentence}\n", style)]


def downloading(name: str, progress: Progress) -> Parts:
    """Writes the progress of a download."""
    if not progress.total:
        return [(f"Asking the hub for the files of {name} …\n", "$text-muted")]
    rate = f"{size(progress.rate)}/s" if progress.rate is not None else "…"
    progress_text = f"{size(progress.done)} of {size(progress.total)} · {rate} · {progress.left}\n\n"
    return [
        (f"Downloading {name}\n\n", "$foreground bold"),
        ("▕", "$text-muted"),
        (bar(share(progress), 40), "$primary"),
        ("▏", "$text-muted"),
        (f" {share(progress):>4.0%}\n\n", "$foreground"),
        (progress_text, "$foreground"),
        (
            "It goes on when this screen is left; ^x gives it up, and what has come whole stays.",
            "$text-muted",
        ),
    ]


def share(progress: Progress) -> float:
    """Computes the share of a download that has come."""
    return progress.done / progress.total if progress.total else 0.0
