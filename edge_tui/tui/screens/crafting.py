"""Recalls, edits, loads and saves prompts and presets on the main screen, and reopens runs."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from textual import work

from edge_tui import decoders as registry
from edge_tui.config.precedence import TEMPERATURE
from edge_tui.tui.conversation import Exchange, of_messages
from edge_tui.tui.prompt_history import PromptHistory
from edge_tui.tui.run_params import ParamPatch
from edge_tui.tui.screens.talking import Talking
from edge_tui.tui.services import services
from edge_tui.tui.session import Meter, Run

if TYPE_CHECKING:
    from pathlib import Path

    from edge_tui.config.presets import Preset
    from edge_tui.history.runs import StoredRun
    from edge_tui.history.store import Store
    from edge_tui.transcript.transcript import Transcript
    from edge_tui.tui.conversation import Conversation
    from edge_tui.tui.screens.history import HistoryChoice
    from edge_tui.tui.widgets.prompt import Prompt

_RECALLED = 500
"""Prompts of earlier sessions that up and down go through."""


class Crafting(Talking):
    """Handles prompts before they run, and runs after they ended."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.past = PromptHistory(lambda: self._past_prompts("", _RECALLED))

    def choose(self, name: str) -> None:
        raise NotImplementedError

    def _past_prompts(self, query: str, most: int) -> list[str]:
        from edge_tui.history.schema import HistoryError

        store = services(self).history()
        try:
            return store.prompts(query, most) if store is not None else []
        except HistoryError as error:
            self.say(str(error), "error")
            return []

    # Earlier prompts.

    def on_prompt_recall(self, event: Prompt.Recall) -> None:
        event.stop()
        found = self.past.older(self.prompt.text) if event.step < 0 else self.past.newer()
        if found is not None:
            self.prompt.put(found, at_start=event.step < 0)

    def action_past_prompts(self) -> None:
        from edge_tui.tui.screens.prompts import PromptsScreen

        if services(self).history() is None:
            self.say("No history is kept; up and down in the prompt recall this session's.", "warning")
            return
        self.app.push_screen(PromptsScreen(self._past_prompts), self._put)

    def _put(self, text: str | None) -> None:
        if text is not None:
            self.prompt.put(text)
            self.prompt.focus()

    # Elsewhere.

    def action_editor(self) -> None:
        # This key overtakes those before it, which may still wait to be typed into the prompt.
        self.prompt.call_later(self._edit)

    def _edit(self) -> None:
        from textual.app import SuspendNotSupported

        from edge_tui.tui import editor

        try:
            editor.command()
            with self.app.suspend():
                text = editor.edit(self.prompt.text)
        except editor.EditorError as error:
            self.say(str(error), "error")
        except SuspendNotSupported:
            self.say("This terminal cannot be lent to an editor; ctrl+o loads a file instead.", "error")
        else:
            if text != self.prompt.text:
                self._put(text)
        # What the editor left on the screen is painted over.
        self.app.refresh(layout=True)

    def action_load_file(self) -> None:
        from edge_tui.tui.screens.files import FilesScreen

        self.app.push_screen(FilesScreen(), self._load)

    def _load(self, path: Path | None) -> None:
        from edge_tui.tui.editor import EditorError, read_text

        if path is None:
            return
        try:
            text = read_text(path)
        except EditorError as error:
            self.say(str(error), "error")
        else:
            self._put(text)
            self.say(f"{path.name} is in the prompt; ctrl+z takes it out again.", "good")

    # Presets.

    def action_presets(self) -> None:
        from edge_tui.tui.screens.presets import PresetsScreen

        self.app.push_screen(PresetsScreen(), self._take_preset)

    def _take_preset(self, preset: Preset | None) -> None:
        if preset is None:
            return
        patch = ParamPatch(
            preset.parameters, preset.mode, preset.max_length, stop=preset.stop, system=preset.system
        )
        if self._take_values(preset.strategy, patch, preset.name):
            sentence = f"{preset.title or preset.name}: ctrl+j runs the prompt with it."
            outranked = self.run_params.outranked()
            self.say(f"{sentence} {outranked}" if outranked else sentence, "warning" if outranked else "good")
        if preset.prompt:
            self._put(preset.prompt)

    def _take_values(self, strategy: str, patch: ParamPatch, preset: str = "") -> bool:
        """Takes a strategy with its values; False, after a message, where some are refused."""
        try:
            decoder = registry.find(strategy)
        except registry.UnknownStrategy as error:
            self.say(str(error), "error")
            return False
        rejected = self.run_params.take(decoder, patch, preset)
        self.strategy_list.chosen = decoder.name
        self.parameters.reload()
        self._title_parameters()
        self._title_model()
        if rejected:
            self.say(f"{decoder.title} does not take {', '.join(rejected)}; the rest is set.", "warning")
        return not rejected

    def action_save_preset(self) -> None:
        from edge_tui.config import presets
        from edge_tui.tui.screens.presets import NameScreen

        overrides = self.run_params.overrides()
        strategy = self.run_params.decoder.name
        values = (
            " · ".join(f"{name} {value}" for name, value in overrides.values.items())
            or "no values of its own"
        )

        def named(title: str | None) -> None:
            if not title:
                return
            preset = presets.Preset(
                presets.name_of(title),
                strategy,
                title=title,
                parameters=overrides.values,
                mode=overrides.mode,
                max_length=overrides.max_length,
                stop=overrides.stop,
                system=overrides.system,
            )
            try:
                path = presets.save(preset)
            except presets.PresetError as error:
                self.say(str(error), "error")
            else:
                self.say(f"Saved as {path}; d takes it again.", "good")

        self.app.push_screen(NameScreen("save preset", f"{strategy}: {values}"), named)

    # Runs that are kept.

    def action_history(self) -> None:
        from edge_tui.tui.screens.history import HistoryScreen

        store = services(self).history()
        if store is None:
            why = self.session.recorder.problem if self.session.recorder is not None else ""
            self.say(
                why or "No history is kept: keep = true under [history] in config.toml starts one.", "warning"
            )
            return
        titles = {decoder.name: decoder.title for decoder in self.decoders}
        self.app.push_screen(HistoryScreen(store, titles), self._open_choice)

    def _open_choice(self, choice: HistoryChoice | None) -> None:
        if choice is not None:
            self.reopen(choice.run, again=choice.action == "again")

    @work(exclusive=True, group="reopen")
    async def reopen(self, run: int, again: bool = False) -> None:
        """Shows a stored run as it was, with its settings; or runs its prompt again with them."""
        from edge_tui.history.schema import HistoryError

        store = services(self).history()
        if store is None:
            return
        try:
            turns = await asyncio.to_thread(_read, store, run)
        except HistoryError as error:
            self.say(str(error), "error")
            return
        stored = turns[0][0]
        running = self.session.run
        if running is not None and running.uid == stored.entry.uid and running.active and not again:
            self.look_at(running)
            self.call_after_refresh(self.pane.focus)
            self.say("This is the run in progress.")
            return
        self._take_values(stored.entry.strategy, _values_of(stored, at_end=not again))
        loaded = self.session.loaded.get("model")
        other = loaded is not None and bool(stored.model) and loaded.name != stored.model
        talk = _talk_of(turns)
        self._resume_talk(talk)
        if talk is None:
            self.prompt.put(stored.prompt)
        if again:
            seed = stored.started.seed if stored.started is not None else stored.request.seed
            sources = dict.fromkeys(stored.request.sources, f"run {stored.entry.id}")
            self._start(replace(stored.request, prefix=(), seed=seed, sources=sources))
            if other and loaded is not None:
                self.say(f"It was {stored.model} then; it is {loaded.name} now.", "warning")
            return
        self.look_at(talk.exchanges[-1].run if talk is not None else _run_of(*turns[0]))
        # The dialog before this one gives the focus back to where it was.
        self.call_after_refresh(self.pane.focus)
        self._paint_talk()
        ends = "it ended by itself; g runs its prompt again" if stored.entry.reason == "eos" else "c goes on"
        sentence = f"Opened with its settings: {ends}."
        if other:
            sentence = f"Written by {stored.model}; load that with m to go on from its last token."
        if self.session.busy:
            sentence = f"The run in progress goes on: o leads back to it. {sentence}"
        self.say(sentence, "warning" if other else "good")


StoredTurns = list[tuple["StoredRun", "Transcript", dict[int, str]]]


def _read(store: Store, run: int) -> StoredTurns:
    """Reads a run, and those that led to it in its conversation, newest first."""
    from edge_tui.history.restore import transcript_of

    found: StoredTurns = []
    token_strings: dict[str, dict[int, str]] = {}
    seen: set[int] = set()
    # A file from elsewhere may name itself as what came before.
    while run not in seen:
        seen.add(run)
        stored = store.load(run)
        known = token_strings.setdefault(stored.model, store.token_strings(stored.model))
        found.append((stored, transcript_of(stored), known))
        before = store.find(stored.entry.parent)
        run = before.id if before is not None else run
    return found


def _run_of(stored: StoredRun, transcript: Transcript, token_strings: dict[int, str]) -> Run:
    """Builds a screen's run from a stored one."""
    from edge_tui.history.restore import finished_of, started_of

    finished = finished_of(stored)
    run = Run(-stored.entry.id, stored.request, Meter(lambda: 0.0), phase="done", transcript=transcript)
    run.started, run.finished = started_of(stored), finished
    run.first_token = finished.time_to_first_token or None
    run.meter.total = finished.new_tokens
    run.uid, run.model, run.token_strings = stored.entry.uid, stored.model, token_strings
    return run


def _talk_of(turns: StoredTurns) -> Conversation | None:
    """Builds the conversation of which a run is the newest turn."""
    stored = turns[0][0]
    if isinstance(stored.request.prompt, str):
        return None
    talk = of_messages(stored.request.prompt, stored.entry.conversation)
    for exchange, each in zip(reversed(talk.exchanges), turns, strict=False):
        # An answer that was changed since is not the one that was read.
        run = _run_of(*each)
        if each is turns[0] or Exchange("", run).answer == exchange.stored_answer:
            exchange.run = run
    return talk


def _values_of(stored: StoredRun, at_end: bool) -> ParamPatch:
    """Reads the settings of a run at its start, or at its last token."""
    request, started = stored.request, stored.started
    values = {name: each.value for name, each in started.values.items()} if started else request.values
    changes = {each.name: each.value for each in stored.changes} if at_end else {}
    return ParamPatch(
        {**values, **changes},
        mode="custom" if TEMPERATURE in changes else request.mode,
        max_length=request.max_length,
        stop=request.stop,
        chat=request.chat,
        system=request.system,
        template=request.template,
    )
