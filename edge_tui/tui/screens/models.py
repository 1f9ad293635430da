"""The models of this machine: what they are, what they would take, which of them play."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from rich.cells import cell_len
from textual import work
from textual.content import Content
from textual.widgets import OptionList, Static

from edge_tui.engine.port import ModelSpec
from edge_tui.sanitise import sanitise
from edge_tui.tui.actions import bindings
from edge_tui.tui.format import bar, clip, number, size
from edge_tui.tui.screens.pick import Item, PickScreen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.binding import Binding

    from edge_tui.engine.events import Event, Loaded
    from edge_tui.engine.forecast import Forecast
    from edge_tui.engine.port import Precision
    from edge_tui.hub import Listing
    from edge_tui.settings import Settings
    from edge_tui.tui.app import EdgeApp
    from edge_tui.tui.session import Session

PRECISIONS: tuple[Precision, ...] = ("auto", "float32", "bfloat16", "float16", "int8", "4bit")
_COLUMNS = 8 + 9 + 10 + 13


@dataclass(slots=True)
class Outlook:
    """What a model would take on a device, by precision, and why a precision cannot be had."""

    name: str
    device: str
    forecasts: dict[str, Forecast] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)


class ModelsScreen(PickScreen[None]):
    """Stays open while models load; esc leaves."""

    app: EdgeApp
    DEFAULT_CSS = """
    ModelsScreen OptionList { height: 1fr; max-height: 100%; }
    ModelsScreen .hint { height: 9; padding: 1 0 0 0; border-top: solid $border-blurred; }
    """
    BINDINGS: ClassVar[list[Binding]] = bindings("models")
    heading = "models"
    hint = "↵ load · ^a amateur · ^x unload · ←→ precision · ^d device · esc leave"

    def __init__(self, session: Session, settings: Settings) -> None:
        super().__init__()
        self._session = session
        self._settings = settings
        self._listings: dict[str, Listing] | None = None
        self._devices = ["auto"]
        self._device = settings.device
        self._precision: Precision = settings.precision
        self._outlook: Outlook | None = None
        self._said = ""

    def on_mount(self) -> None:
        self.query_one(OptionList).loading = True
        self._scan()

    @work(thread=True)
    def _scan(self) -> None:
        from edge_tui.engine.devices import devices
        from edge_tui.hub import local_models

        listings = local_models(self._settings.models.folders)
        names = ["auto", *(device.name for device in devices())]
        self.app.call_from_thread(self._found, listings, names)

    def _found(self, listings: Sequence[Listing], devices: list[str]) -> None:
        if not self.is_attached:
            return
        self._listings = {listing.name: listing for listing in listings}
        self._devices = devices
        if self._device not in devices:
            self._device = "auto"
        self.query_one(OptionList).loading = False
        self.reload()

    # The list.

    def items(self) -> list[Item]:
        room = max(self.query_one(OptionList).size.width - _COLUMNS - 5, 16)
        return [self._item(listing, room) for listing in (self._listings or {}).values()]

    def _item(self, listing: Listing, room: int) -> Item:
        name = sanitise(listing.name, keep_newlines=False)
        shown = clip(name, room)
        roles = [role for role, loaded in self._session.loaded.items() if _same(loaded, listing.name)]
        mark = "●" if roles else " "
        lead = [
            (f"{mark} ", "$success"),
            (shown + " " * (room - cell_len(shown) + 1), "bold" if roles else ""),
        ]
        if listing.refusal:
            reason = clip(sanitise(listing.refusal, keep_newlines=False), _COLUMNS)
            parts = [
                (f"  {shown}{' ' * (room - cell_len(shown) + 1)}", "$text-muted"),
                (reason, "$text-muted italic"),
            ]
        else:
            tags = ", ".join(roles) or listing.tier
            parts = [
                *lead,
                (f"{number(listing.parameters):>7} ", ""),
                (f"{size(listing.bytes):>8} ", ""),
                (f"{sanitise(listing.dtype, keep_newlines=False):>9} ", "$text-muted"),
                (f" {tags}", "$success" if roles else "$text-muted"),
            ]
        search = f"{name} {listing.architecture} {listing.origin}"
        return Item(listing.name, search, Content.assemble(*parts))

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        self._said = ""
        self._look()

    # The outlook.

    def _look(self) -> None:
        listing = self._listing()
        self._outlook = None
        self._paint()
        if listing is not None and listing.ready:
            self._forecast(listing.name, self._device)

    @work(thread=True, exclusive=True, group="forecast")
    def _forecast(self, name: str, asked: str) -> None:
        from edge_tui.engine.checkpoint import CheckpointError, open_checkpoint
        from edge_tui.engine.devices import devices
        from edge_tui.engine.forecast import forecast
        from edge_tui.engine.loader import available_precisions

        there = devices()
        device = asked
        if asked == "auto":
            device = max(there, key=lambda d: (d.name != "cpu", d.name != "mps", d.free or 0)).name
        outlook = Outlook(name, device)
        try:
            checkpoint = open_checkpoint(name)
        except CheckpointError as error:
            outlook.reasons = dict.fromkeys(PRECISIONS, str(error))
        else:
            outlook.reasons = {p: why for p, why in available_precisions(device).items() if why}
            stored = checkpoint.quantization
            for precision in PRECISIONS:
                if stored and precision not in ("auto", stored):
                    outlook.reasons[precision] = f"Its weights are stored in {stored}."
                if precision in outlook.reasons:
                    continue
                seen = forecast(checkpoint, precision, self._settings.context, 1, device)
                outlook.forecasts[precision] = seen
                if not seen.fits:
                    outlook.reasons[precision] = seen.sentence
        self.app.call_from_thread(self._foreseen, outlook)

    def _foreseen(self, outlook: Outlook) -> None:
        listing = self._listing()
        if self.is_attached and listing is not None and listing.name == outlook.name:
            self._outlook = outlook
            self._paint()

    def _paint(self) -> None:
        if not self.is_attached:
            return
        listing = self._listing()
        parts: list[tuple[str, str]] = []
        if self._listings is None:
            parts.append(("Looking for models …", "$text-muted"))
        elif listing is None:
            parts.append(("Nothing matches.", "$text-muted"))
        elif listing.refusal:
            parts.append((sanitise(listing.refusal), "$warning"))
        else:
            parts += self._facts(listing)
        parts += self._progress()
        self.query_one(".hint", Static).update(Content.assemble(*parts))

    def _facts(self, listing: Listing) -> list[tuple[str, str]]:
        context = f"{listing.context:,} positions" if listing.context else "no stated limit"
        chat = "chat template" if listing.chat else "no chat template"
        facts = f"{sanitise(listing.architecture)} · {listing.tier} · {context} · {chat}\n"
        outlook = self._outlook
        device = self._device
        if outlook is not None and device == "auto":
            device = f"auto: {outlook.device}"
        parts = [(facts, "$foreground"), ("device     ", "$text-muted"), (f"{device}\n", "$primary bold")]
        parts.append(("precision ", "$text-muted"))
        for precision in PRECISIONS:
            why = outlook.reasons.get(precision) if outlook is not None else None
            style = "$text-disabled strike" if why else "$foreground"
            if precision == self._precision:
                style = "reverse bold" + (" strike" if why else "")
            parts += [(f" {precision} ", style), (" ", "")]
        parts.append(("\n", ""))
        if outlook is None:
            return [*parts, ("forecast   …\n", "$text-muted")]
        if why := outlook.reasons.get(self._precision):
            return [*parts, (sanitise(why) + "\n", "$warning")]
        seen = outlook.forecasts[self._precision]
        free = f"of {size(seen.free)} free" if seen.free is not None else "free memory unknown"
        share = seen.total / seen.free if seen.free else None
        parts += [
            ("forecast   ", "$text-muted"),
            (f"{size(seen.total)} ", "$foreground bold"),
            (f"{free} ", "$foreground"),
            ("▕", "$text-muted"),
            (bar(share, 16), "$primary" if (share or 0) < 0.85 else "$warning"),
            ("▏\n", "$text-muted"),
            ("           ", ""),
            (
                f"weights {size(seen.weights)} · KV cache {size(seen.kv)} · logits {size(seen.logits)}",
                "$text-muted",
            ),
            (f" · working {size(seen.overhead)}\n", "$text-muted"),
        ]
        return parts

    def _progress(self) -> list[tuple[str, str]]:
        for role, (name, done, total) in self._session.loading.items():
            share = done / total if total else 0.0
            said = f"loading {sanitise(name, keep_newlines=False)} as {role} "
            return [(said, "$warning"), (bar(share, 24), "$warning"), (f" {share:>4.0%}", "$warning")]
        return [(self._said, "$error")] if self._said else []

    # What happens.

    def tick(self, news: Sequence[Event]) -> None:
        """The engine did something: roles and progress may have changed."""
        if not news or self._listings is None:
            return
        from edge_tui.engine import events

        if any(isinstance(event, events.Loaded | events.Unloaded) for event in news):
            self.reload()
        for event in news:
            if isinstance(event, events.Failed):
                self._said = sanitise(event.message)
        if self._session.loading or any(not isinstance(event, events.TokenBatch) for event in news):
            self._paint()

    def _listing(self) -> Listing | None:
        return (self._listings or {}).get(self._highlighted())

    def picked(self, id: str) -> None:
        self.action_load("model")

    def action_load(self, role: str) -> None:
        listing = self._listing()
        if listing is None:
            return
        why = listing.refusal
        if not why and self._outlook is not None:
            why = self._outlook.reasons.get(self._precision, "")
        if why:
            self._said = sanitise(why)
            self._paint()
            self.app.bell()
            return
        self._said = ""
        spec = ModelSpec(listing.name, self._precision, self._device, self._settings.context)
        self.app.assign(role, spec)

    def action_unload(self) -> None:
        listing, engine = self._listing(), self._session.engine
        if listing is None or engine is None:
            return
        roles = [role for role, loaded in self._session.loaded.items() if _same(loaded, listing.name)]
        for role in roles:
            engine.unload(role)
        if not roles:
            self._said = "It is not in memory."
            self._paint()

    def action_precision(self, step: int) -> None:
        at = PRECISIONS.index(self._precision)
        self._precision = PRECISIONS[(at + step) % len(PRECISIONS)]
        self._paint()

    def action_device(self) -> None:
        at = self._devices.index(self._device) if self._device in self._devices else -1
        self._device = self._devices[(at + 1) % len(self._devices)]
        self._look()


def _same(loaded: Loaded, name: str) -> bool:
    """A folder is loaded by its path and known by its name."""
    return loaded.name in (name, name.rstrip("/").rpartition("/")[2])
