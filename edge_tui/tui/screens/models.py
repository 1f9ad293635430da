"""Lists the models of this machine and of the hub, with their memory, and loads and downloads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len
from textual import work
from textual.content import Content
from textual.widgets import Input, OptionList, Static

from edge_tui.engine.port import ModelSpec
from edge_tui.hub.memory_estimate import PRECISIONS
from edge_tui.hub.remote import repository_id
from edge_tui.tui.actions import bindings
from edge_tui.tui.screens.filter_list import FilterListScreen, Item
from edge_tui.tui.screens.model_facts import downloading, facts, share
from edge_tui.tui.services import services
from edge_tui.util.formatting import bar, clip, clip_path, compact_count, size
from edge_tui.util.sanitise import one_line, sanitise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge_tui.config.settings import Settings
    from edge_tui.engine.events import Event, Loaded
    from edge_tui.engine.port import Precision
    from edge_tui.hub import Listing
    from edge_tui.hub.memory_estimate import ModelEstimate
    from edge_tui.hub.remote import RemoteModel
    from edge_tui.tui.run_params import RunParams
    from edge_tui.tui.screens.model_facts import Parts
    from edge_tui.tui.session import Session

_COLUMNS = 8 + 9 + 10 + 13
_PAUSE = 0.4
"""Seconds without a key before the hub is asked about what was typed."""


class ModelsScreen(FilterListScreen[None]):
    """Lists models; stays open while they load; esc leaves."""

    DEFAULT_CSS = """
    ModelsScreen OptionList { height: 1fr; max-height: 100%; }
    ModelsScreen .hint { height: 10; padding: 1 0 0 0; border-top: solid $border-blurred; }
    """
    BINDINGS = bindings("models")
    heading = "models"
    hint = "↵ load · ^a amateur · ^x unload · ←→ precision · ^d device · esc leave"

    def __init__(self, session: Session, settings: Settings, run_params: RunParams) -> None:
        super().__init__()
        self._session = session
        self._settings = settings
        self._run_params = run_params
        self._listings: dict[str, Listing] | None = None
        self._devices = ["auto"]
        self._device = settings.device
        self._precision: Precision = settings.precision
        self._estimate: ModelEstimate | None = None
        self._message = ""
        self._offer = ""
        self._remotes: dict[str, RemoteModel] = {}
        self._refusals: dict[str, str] = {}

    @property
    def opened(self) -> bool:
        """True while it is on the stack of screens; one that is left stays attached while its parts go."""
        return self in self.app.screen_stack

    def on_mount(self) -> None:
        self.query_one(Input).placeholder = "filter, or a repository of the hub, like Qwen/Qwen2.5-0.5B"
        self.query_one(OptionList).loading = True
        self._scan()

    @work(thread=True)
    def _scan(self) -> None:
        from edge_tui.hub import local_models, recent_models
        from edge_tui.machine.devices import devices

        last = recent_models.names()
        listings = local_models(self._settings.models.folders)
        listings.sort(key=lambda listing: last.index(listing.name) if listing.name in last else len(last))
        names = ["auto", *(device.name for device in devices())]
        self.app.call_from_thread(self._show_listings, listings, names)

    def _show_listings(self, listings: Sequence[Listing], devices: list[str]) -> None:
        if not self.opened:
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
        listings = self._listings or {}
        coming = [name for name in services(self).downloads.active if name not in listings]
        offered = [self._offer] if self._offer and self._offer not in coming else []
        found = [self._item(listing, room) for listing in listings.values()]
        return found + [self._hub_item(name, room) for name in coming + offered]

    def _filter(self, query: str) -> None:
        """Offers a repository of the hub among the local models."""
        name = repository_id(query)
        self._offer = name if name not in (self._listings or {}) else ""
        self._items = list(self.items())
        super()._filter(name or query)

    def _hub_item(self, name: str, room: int) -> Item:
        shown = clip(name, room)
        progress = services(self).downloads.progress(name)
        if progress is not None and progress.active:
            share_text = f"{share(progress):>4.0%} fetched" if progress.total else "…"
            state, style = share_text, "$warning" if progress.total else ""
        else:
            state, style = "on the hub", "$text-muted"
        lead = (f"⇣ {shown}{' ' * (room - cell_len(shown) + 1)}", "$foreground")
        return Item(name, name, Content.assemble(lead, (clip(state, _COLUMNS), style)))

    def _item(self, listing: Listing, room: int) -> Item:
        name = one_line(listing.name)
        shown = clip_path(name, room)
        roles = [role for role, loaded in self._session.loaded.items() if _same(loaded, listing.name)]
        mark = "●" if roles else " "
        progress = services(self).downloads.progress(listing.name)
        if progress is not None and progress.active:
            return self._hub_item(listing.name, room)
        lead = [
            (f"{mark} ", "$success"),
            (shown + " " * (room - cell_len(shown) + 1), "bold" if roles else ""),
        ]
        if listing.refusal:
            reason = one_line(listing.refusal).removeprefix(f"{name} ")
            reason = clip(reason.removeprefix("is "), _COLUMNS)
            parts = [
                (f"  {shown}{' ' * (room - cell_len(shown) + 1)}", "$text-muted"),
                (reason, "$text-muted italic"),
            ]
        else:
            tags = ", ".join(roles) or listing.tier
            parts = [
                *lead,
                (f"{compact_count(listing.parameters):>7} ", ""),
                (f"{size(listing.bytes):>8} ", ""),
                (f"{one_line(listing.dtype):>9} ", "$text-muted"),
                (f" {tags}", "$success" if roles else "$text-muted"),
            ]
        search = f"{name} {listing.architecture} {listing.origin}"
        return Item(listing.name, search, Content.assemble(*parts))

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        self._message = ""
        self._look()

    # The memory estimate.

    def _look(self) -> None:
        listing, name = self._listing(), self._highlighted()
        self._estimate = None
        self._paint()
        if listing is not None and listing.ready:
            self._start_estimate(name, self._device)
        elif name and name == self._offer:
            self._refusals.pop(name, None)
            self.set_timer(_PAUSE, lambda: self._ask(name))

    def _ask(self, name: str) -> None:
        """Asks the hub about a repository, if the cursor has stayed."""
        if self.opened and self._highlighted() == name and self._estimate is None:
            self._start_estimate(name, self._device)

    @work(thread=True, exclusive=True, group="estimate")
    def _start_estimate(self, name: str, asked: str) -> None:
        from edge_tui.engine.checkpoints.checkpoint import CheckpointError, open_checkpoint
        from edge_tui.hub.memory_estimate import estimate_model
        from edge_tui.hub.remote import HubError, inspect

        remote, why, seen = self._remotes.get(name), "", None
        try:
            if name == self._offer:
                remote = remote or inspect(name)
                checkpoint, why = remote.checkpoint, remote.refusal
            else:
                checkpoint = open_checkpoint(name)
            if checkpoint is not None:
                run_params, other = self._run_params, self._other(name)
                rows = run_params.decoder.rows(
                    {p.name: run_params.value(p)[0] for p in run_params.decoder.params}
                )
                seen = estimate_model(
                    checkpoint, asked, self._settings.context, rows, run_params.max_length, other
                )
        except (CheckpointError, HubError) as error:
            why = str(error)
        self.app.call_from_thread(self._show_estimate, name, remote, seen, why)

    def _other(self, name: str) -> ModelSpec | None:
        """Finds the model that the strategy would pair it with, if that one is not in memory yet."""
        specs = self._settings.specs()
        pair = [specs[role] for role in self._run_params.decoder.roles if role in specs]
        other = next((spec for spec in reversed(pair) if spec.name != name), None) if len(pair) > 1 else None
        if other is None or any(_same(loaded, other.name) for loaded in self._session.loaded.values()):
            return None
        return other

    def _show_estimate(
        self, name: str, remote: RemoteModel | None, seen: ModelEstimate | None, why: str
    ) -> None:
        if remote is not None:
            self._remotes[name] = remote
        if why:
            self._refusals[name] = why
        if self.opened and self._highlighted() == name:
            self._estimate = seen
            self._paint()

    def _paint(self) -> None:
        if not self.opened:
            return
        listing, name = self._listing(), self._highlighted()
        progress = services(self).downloads.progress(name)
        parts: Parts = []
        if self._listings is None:
            parts.append(("Looking for models …", "$text-muted"))
        elif progress is not None and progress.active:
            parts += downloading(name, progress)
        elif why := self._refusals.get(name) or (listing.refusal if listing is not None else ""):
            parts.append((sanitise(why), "$warning"))
            if listing is not None and listing.resumable and name not in self._refusals:
                parts.append(("\nEnter goes on with its download.", "$primary"))
        elif listing is not None:
            parts += self._facts(listing)
        elif remote := self._remotes.get(name):
            offer = f"on the hub: {size(remote.bytes)} in {len(remote.files)} files; enter downloads them"
            terms = ", once its terms are accepted." if remote.gated else "."
            parts.append((f"{offer}{terms}\n", "$primary"))
            parts += self._facts(remote.listing)
        elif name:
            parts.append((f"Asking the hub about {name} …", "$text-muted"))
        else:
            parts.append(("Nothing matches; type a repository like Qwen/Qwen2.5-0.5B.", "$text-muted"))
        parts += self._progress()
        self.query_one(".hint", Static).update(Content.assemble(*parts))

    def _facts(self, listing: Listing) -> Parts:
        other = self._other(listing.name)
        name = other.name if other is not None else ""
        return facts(listing, self._estimate, self._device, self._precision, name)

    def _progress(self) -> Parts:
        for role, (name, done, total) in self._session.loading.items():
            come = done / total if total else 0.0
            sentence = f"loading {one_line(name)} as {role} "
            return [(sentence, "$warning"), (bar(come, 24), "$warning"), (f" {come:>4.0%}", "$warning")]
        return [(self._message, "$error")] if self._message else []

    # What happens.

    def tick(self, news: Sequence[Event]) -> None:
        """Shows roles and progress as the engine's events have changed them."""
        if self._listings is None:
            return
        if services(self).downloads.active:
            self._refresh_downloads()
        if not news:
            return
        from edge_tui.engine import events

        if any(isinstance(event, events.Loaded | events.Unloaded) for event in news):
            self.reload()
        for event in news:
            if isinstance(event, events.Failed):
                self._message = sanitise(event.message)
        if self._session.loading or any(not isinstance(event, events.TokenBatch) for event in news):
            self._paint()

    def _refresh_downloads(self) -> None:
        """Writes the new numbers into the list in place, so that it does not jump under the cursor."""
        options = self.query_one(OptionList)
        names = {option.id for option in options.options}
        for item in self.items():
            if item.id in names and item.id in services(self).downloads.active:
                options.replace_option_prompt(item.id, item.content)
        self._paint()

    def download_ended(self, name: str) -> None:
        """Lists the local models again after a download."""
        self._remotes.pop(name, None)
        progress = services(self).downloads.progress(name)
        self._message = sanitise(progress.sentence) if progress is not None else ""
        self._scan()

    def _listing(self) -> Listing | None:
        return (self._listings or {}).get(self._highlighted())

    def choose(self, id: str) -> None:
        self.action_load("model")

    def action_load(self, role: str) -> None:
        listing, name = self._listing(), self._highlighted()
        if name in services(self).downloads.active:
            return
        if listing is None or listing.resumable:
            self._fetch(name)
            return
        why = listing.refusal
        if not why and self._estimate is not None:
            why = self._estimate.reasons.get(self._precision, "")
        if why:
            self._message = sanitise(why)
            self._paint()
            self.app.bell()
            return
        self._message = ""
        spec = ModelSpec(listing.name, self._precision, self._device, self._settings.context)
        services(self).assign(role, spec)

    def _fetch(self, name: str) -> None:
        """Downloads a repository, unless the hub has refused it already."""
        remote = self._remotes.get(name)
        if not name or (remote is not None and remote.refusal):
            self.app.bell()
            return
        self._refusals.pop(name, None)
        self._message = ""
        services(self).downloads.start(name)
        self.reload()
        self._paint()

    def action_unload(self) -> None:
        if services(self).downloads.cancel(self._highlighted()):
            self._paint()
            return
        listing, engine = self._listing(), self._session.engine
        if listing is None or engine is None:
            return
        roles = [role for role, loaded in self._session.loaded.items() if _same(loaded, listing.name)]
        for role in roles:
            engine.unload(role)
        if not roles:
            self._message = "It is not in memory."
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
    """Tells whether a loaded model is the one of that name; a folder is loaded by its path."""
    return loaded.name in (name, name.rstrip("/").rpartition("/")[2])
