"""Lists the models of this machine and of the hub, with their memory, and loads and downloads them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from textual import work
from textual.content import Content
from textual.worker import Worker, get_current_worker

from edge_tui.decoders.base import numbers
from edge_tui.engine.port import ModelSpec
from edge_tui.hub.browse import browse, split_path
from edge_tui.hub.precision_options import PRECISIONS
from edge_tui.hub.remote import repository_id
from edge_tui.tui.actions import bindings
from edge_tui.tui.screens.filter_list import FilterListScreen, Item
from edge_tui.tui.screens.model_facts import downloading, facts
from edge_tui.tui.screens.model_lines import COLUMNS, folder_line, hub_line, model_line
from edge_tui.tui.services import services
from edge_tui.util.formatting import bar, size
from edge_tui.util.sanitise import one_line, sanitise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.widgets import OptionList

    from edge_tui.config.settings import Settings
    from edge_tui.engine.events import Event, Loaded
    from edge_tui.engine.port import Precision
    from edge_tui.hub.listing import Listing
    from edge_tui.hub.precision_options import ModelEstimate
    from edge_tui.hub.remote import RemoteModel
    from edge_tui.tui.run_params import RunParams
    from edge_tui.tui.session import Session
    from edge_tui.tui.widgets.line_panel import Parts

_PAUSE = 0.4
"""Seconds without a key before the hub is asked about what was typed."""


class ModelsScreen(FilterListScreen[None]):
    """Lists models; stays open while they load; esc leaves."""

    BINDINGS = bindings("models")
    heading = "models"
    placeholder = "filter, a repository of the hub (Qwen/Qwen2.5-0.5B), or a path"
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
        self.estimate: ModelEstimate | None = None
        self._message = ""
        self._offer = ""
        self._remotes: dict[str, RemoteModel] = {}
        self._refusals: dict[str, str] = {}
        self._folder = ""
        """The folder of a path that is being typed; "" where something else is."""
        self._folders: list[str] = []
        self._browsed: dict[str, Listing] = {}

    @property
    def opened(self) -> bool:
        """True while it is on the stack of screens; one that is left stays attached while its parts go."""
        return self in self.app.screen_stack

    def on_mount(self) -> None:
        """Looks for models in a thread."""
        self.options.loading = True
        self._scan()

    @work(thread=True, exclusive=True, group="scan")
    def _scan(self) -> None:
        from edge_tui.hub import recent_models
        from edge_tui.hub.listing import describe_local, local_models
        from edge_tui.machine.devices import devices

        last = recent_models.names()
        listings = local_models(self._settings.models.folders)
        here = {listing.name for listing in listings}
        loaded = list(self._session.loaded.values())
        used = [name for name in last if os.sep in name and any(_same(each, name) for each in loaded)]
        used += [spec.name for spec in self._settings.specs().values()]
        listings += [describe_local(name, "cache") for name in dict.fromkeys(used) if name not in here]
        listings.sort(key=lambda listing: last.index(listing.name) if listing.name in last else len(last))
        names = ["auto", *(device.name for device in devices())]
        self.app.call_from_thread(self._show_listings, get_current_worker(), listings, names)

    def _show_listings(self, scan: Worker[None], listings: Sequence[Listing], devices: list[str]) -> None:
        if scan.is_cancelled or not self.opened:
            return  # a later scan may have seen more, and ended before
        self._listings = {listing.name: listing for listing in listings}
        self._devices = devices
        if self._device not in devices:
            self._device = "auto"
        self.options.loading = False
        self.reload()

    @work(thread=True, exclusive=True, group="browse")
    def _browse(self, folder: str) -> None:
        """Looks into a folder, in a thread."""
        found = browse(folder)
        self.app.call_from_thread(self._show_inside, folder, *found)

    def _show_inside(self, folder: str, folders: list[str], models: list[Listing]) -> None:
        if self.opened and folder == self._folder:
            self._folders, self._browsed = folders, {each.name: each for each in models}
            self.reload()

    def action_complete(self) -> None:
        """Completes a typed path by the entry under the cursor."""
        name = self.highlighted
        if self._folder and name:
            last = name.rstrip(os.sep).rpartition(os.sep)[2]
            self.field.value = f"{self._folder}{last}{os.sep if name in self._folders else ''}"
            self.field.cursor_position = len(self.field.value)

    # The list.

    def items(self) -> list[Item]:
        """Lists the models here, then those that are downloaded and the one that the hub offers."""
        room = max(self.options.size.width - COLUMNS - 5, 16)
        if self._folder:
            return self._inside(room)
        listings = self._listings or {}
        coming = [name for name in services(self).downloads.active if name not in listings]
        offered = [self._offer] if self._offer and self._offer not in coming else []
        active = services(self).downloads.active
        found = [
            self._hub_line(each.name, room)
            if each.name in active
            else model_line(each, self._roles(each), room)
            for each in listings.values()
        ]
        return found + [self._hub_line(name, room) for name in coming + offered]

    def _hub_line(self, name: str, room: int) -> Item:
        return hub_line(name, services(self).downloads.progress(name), room)

    def _inside(self, room: int) -> list[Item]:
        """Lists what is in the folder whose path is being typed."""
        folders = [folder_line(name, name.removeprefix(self._folder)) for name in self._folders]
        models = [
            model_line(each, self._roles(each), room, each.name.rpartition(os.sep)[2])
            for each in self._browsed.values()
        ]
        return folders + models

    def _filter(self, query: str) -> None:
        """Offers a repository of the hub among the local models; of a path what is in its folder."""
        folder, wanted = split_path(query)
        if folder and folder != self._folder:
            self._folders, self._browsed = [], {}
            self._browse(folder)
        self._folder = folder
        name = "" if folder else repository_id(query)
        self._offer = name if name not in (self._listings or {}) else ""
        self._items = self.items()
        super()._filter(name or wanted)
        if not self.highlighted:
            self._paint()

    def _roles(self, listing: Listing) -> list[str]:
        """Lists the roles that a model is in memory for."""
        return [role for role, loaded in self._session.loaded.items() if _same(loaded, listing.name)]

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        """Estimates the memory of the model under the cursor."""
        self._message = ""
        self._look()

    # The memory estimate.

    def _look(self) -> None:
        listing, name = self._listing(), self.highlighted
        self.workers.cancel_group(self, "estimate")  # the files may be others since it read them
        self._refusals.pop(name, None)
        self.estimate = None
        self._paint()
        if listing is not None and listing.ready:
            self._start_estimate(name, self._device)
        elif name and name == self._offer:
            self.set_timer(_PAUSE, lambda: self._ask(name))

    def _ask(self, name: str) -> None:
        """Asks the hub about a repository, if the cursor has stayed and it is not here since."""
        if self.opened and name == self.highlighted == self._offer and self.estimate is None:
            self._start_estimate(name, self._device)

    @work(thread=True, exclusive=True, group="estimate")
    def _start_estimate(self, name: str, asked: str) -> None:
        """Estimates a model's memory, in a thread; asks the hub first where it is not here."""
        from edge_tui.engine.checkpoints.checkpoint import CheckpointError, open_checkpoint
        from edge_tui.hub.precision_options import estimate_model
        from edge_tui.hub.remote import HubError, inspect

        remote, why, seen = self._remotes.get(name), "", None
        try:
            if name == self._offer:
                remote = remote or inspect(name)
                checkpoint, why = remote.checkpoint, remote.refusal
            else:
                checkpoint = open_checkpoint(name)
            if checkpoint is not None:
                run_params, decoder, other = self._run_params, self._run_params.decoder, self._other(name)
                values = {param.name: run_params.value(param)[0] for param in numbers(decoder.params)}
                seen = estimate_model(
                    checkpoint,
                    asked,
                    self._settings.context,
                    decoder.rows(values),
                    run_params.max_length,
                    other,
                    decoder.needs_of(values, checkpoint.layers, False).past,
                    sum(stream.role == decoder.roles[0] for stream in decoder.streams),
                )
        except (CheckpointError, HubError) as error:
            why = str(error)
        self.app.call_from_thread(self._show_estimate, get_current_worker(), name, remote, seen, why)

    def _other(self, name: str) -> ModelSpec | None:
        """Finds the model that the strategy would pair it with, if that one is not in memory yet."""
        specs = self._settings.specs()
        pair = [specs[role] for role in self._run_params.decoder.roles if role in specs]
        other = next((spec for spec in reversed(pair) if spec.name != name), None) if len(pair) > 1 else None
        if other is None or any(_same(loaded, other.name) for loaded in self._session.loaded.values()):
            return None
        return other

    def _show_estimate(
        self, asked: Worker[None], name: str, remote: RemoteModel | None, seen: ModelEstimate | None, why: str
    ) -> None:
        if remote is not None:
            self._remotes[name] = remote
        if asked.is_cancelled or not self.opened or self.highlighted != name:
            return
        if why:
            self._refusals[name] = why
        self.estimate = seen
        self._paint()

    def _paint(self) -> None:
        """Writes what is known about the model under the cursor."""
        if not self.opened:
            return
        listing, name = self._listing(), self.highlighted
        progress = services(self).downloads.progress(name)
        parts: Parts = []
        if self._listings is None:
            parts.append(("Looking for models …", "$text-muted"))
        elif progress is not None and progress.active:
            parts += downloading(name, progress)
        elif why := self._refusals.get(name) or (listing.refusal if listing is not None else ""):
            parts.append((f"{sanitise(why)}\n", "$warning"))
            if listing is not None and listing.resumable and name not in self._refusals:
                parts.append(("Enter goes on with its download.\n", "$primary"))
        elif listing is not None:
            parts += self._facts(listing)
        elif remote := self._remotes.get(name):
            offer = f"on the hub: {size(remote.bytes)} in {len(remote.files)} files; enter downloads them"
            terms = ", once its terms are accepted." if remote.gated else "."
            parts.append((f"{offer}{terms}\n", "$primary"))
            parts += self._facts(remote.listing)
        elif self._folder:
            inside = "Enter goes into it, tab completes its name."
            parts.append((inside if name else "There is no model and no folder of that name.", "$text-muted"))
        elif name:
            parts.append((f"Asking the hub about {name} …", "$text-muted"))
        else:
            parts.append(("Nothing matches; type a repository like Qwen/Qwen2.5-0.5B.", "$text-muted"))
        parts += (each for each in self._progress() if (f"{each[0]}\n", "$warning") not in parts)
        self.about.update(Content.assemble(*parts))

    def _facts(self, listing: Listing) -> Parts:
        other = self._other(listing.name)
        name = other.name if other is not None else ""
        return facts(listing, self.estimate, self._device, self._precision, name)

    def _progress(self) -> Parts:
        for role, (name, done, total) in self._session.loading.items():
            come = done / total if total else 0.0
            sentence = f"loading {one_line(name)} as {role} "
            return [(sentence, "$warning"), (bar(come, 24), "$warning"), (f" {come:>4.0%}", "$warning")]
        return [(self._message, "$error")] if self._message else []

    # Events of the engine.

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
            self._listings |= {name: each for name, each in self._browsed.items() if self._roles(each)}
            self.reload()
        for event in news:
            if isinstance(event, events.Failed):
                self._message = sanitise(event.message)
        if self._session.loading or any(not isinstance(event, events.TokenBatch) for event in news):
            self._paint()

    def _refresh_downloads(self) -> None:
        """Writes the new numbers into the list in place, so that it does not jump under the cursor."""
        options = self.options
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
        return self._browsed.get(self.highlighted) or (self._listings or {}).get(self.highlighted)

    def choose(self, id: str) -> None:
        """Goes into the folder under the cursor, or loads the model there as the main one."""
        if id in self._folders:
            self.action_complete()
        else:
            self.action_load("model")

    def action_load(self, role: str) -> None:
        """Loads the model under the cursor for a role, or downloads it."""
        listing, name = self._listing(), self.highlighted
        if name in services(self).downloads.active:
            return
        if listing is None or listing.resumable:
            self._fetch(name)
            return
        reasons = self.estimate.reasons if self.estimate is not None else {}
        self._message = sanitise(listing.refusal or reasons.get(self._precision, ""))
        if self._message:
            self._paint()
            self.app.bell()
            return
        spec = ModelSpec(listing.name, self._precision, self._device, self._settings.context)
        self._session.assign(role, spec, self._settings.models)

    def _fetch(self, name: str) -> None:
        """Downloads a repository, unless the hub has refused it already."""
        remote = self._remotes.get(name)
        if not name or (remote is not None and remote.refusal):
            self.app.bell()
            return
        self._message = ""
        services(self).downloads.start(name)
        self.reload()
        self._paint()

    def action_unload(self) -> None:
        """Unloads the model under the cursor, or gives its download up."""
        if services(self).downloads.cancel(self.highlighted):
            self._paint()
            return
        listing, engine = self._listing(), self._session.engine
        if listing is None or engine is None:
            return
        roles = self._roles(listing)
        for role in roles:
            engine.unload(role)
        if not roles:
            self._message = "It is not in memory."
            self._paint()

    def action_precision(self, step: int) -> None:
        """Goes to the next or previous precision."""
        at = PRECISIONS.index(self._precision)
        self._precision = PRECISIONS[(at + step) % len(PRECISIONS)]
        self._paint()

    def action_device(self) -> None:
        """Goes to the next device."""
        at = self._devices.index(self._device) if self._device in self._devices else -1
        self._device = self._devices[(at + 1) % len(self._devices)]
        self._look()


def _same(loaded: Loaded, name: str) -> bool:
    """Tells whether a loaded model is the one of that name; a folder is loaded by its path."""
    return loaded.name in (name, name.rstrip("/").rpartition("/")[2])
