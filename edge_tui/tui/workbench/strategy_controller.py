"""Chooses strategies with their values, and follows the files that strategies come from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edge_tui import decoders
from edge_tui.config import presets
from edge_tui.config.names import find
from edge_tui.config.precedence import value_text
from edge_tui.engine.events import Failed, Finished, Loaded, Started
from edge_tui.tui.run_params import ParamPatch
from edge_tui.tui.workbench.controller import Controller
from edge_tui.tui.workbench.ports import Messages

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from edge_tui.config.presets import Preset
    from edge_tui.decoders import Problem
    from edge_tui.decoders.base import Decoder
    from edge_tui.engine.events import Event
    from edge_tui.engine.port import Request
    from edge_tui.tui.session import Run


class StrategyView(Messages, Protocol):
    """Shows the strategies, and the values of the chosen one."""

    def show_strategies(self, decoders: Sequence[Decoder], refusals: Mapping[str, str]) -> None:
        """Lists strategies, and the reasons against those that are refused."""

    def show_values(self) -> None:
        """Shows strategy and values again."""

    def refuse(self, key: str, message: str) -> None:
        """Shows at a value why it is refused."""


class ErrorPanel(Protocol):
    """Shows the error of a strategy that does not work."""

    problem: Problem | None
    while_running: bool

    def show(self, problem: Problem | None, *, while_running: bool = False, reverted: bool = False) -> None:
        """Shows a problem, or nothing."""


@dataclass(eq=False)
class StrategyController(Controller[StrategyView]):
    """Holds the strategies and chooses one of them, alone or with its values.

    Attributes:
        panel: Shows errors.
        run: Runs a request.
    """

    panel: ErrorPanel
    run: Callable[[Request], None]

    def __post_init__(self) -> None:
        self.decoders = decoders.strategies()
        self.refusals: dict[str, str] = {}
        """The engine's reasons for strategies that it cannot run, by name."""
        self._show_strategies()

    def _show_strategies(self) -> None:
        self.view.show_strategies(self.decoders, self.refusals)

    # Choosing.

    def choose_number(self, number: int) -> None:
        """Chooses one of the list, counted from 1."""
        if number <= len(self.decoders):
            self.choose(self.decoders[number - 1].name)

    def choose(self, name: str | None) -> None:
        """Takes another strategy; the prompt that runs, or has just run, runs again. None leaves it."""
        if name is None:
            return
        before = self.run_params.decoder
        if why := self.switch(name, keep_values=False):
            self.say(why, "warning")
        else:
            self.follow_choice(before, is_told=True)

    def switch(self, name: str, keep_values: bool = True) -> str:
        """Takes another strategy and runs nothing; returns the reason against it, or "".

        Args:
            name: A strategy or a chain.
            keep_values: True gives the new one the values of parameters that both have.
        """
        try:
            decoder = decoders.find(name)
        except decoders.UnknownStrategy as error:
            return str(error)
        if why := self.refusal(decoder):
            return why
        if keep_values:
            self.run_params.switch(decoder)
        else:
            self.run_params.decoder = decoder
        self.view.show_values()
        return ""

    def follow_choice(self, before: Decoder, is_told: bool = False) -> None:
        """Runs the prompt again that runs, or has just run, where the strategy is another than before.

        Args:
            before: The strategy before.
            is_told: True says which strategy it is, though it is no other.
        """
        decoder = self.run_params.decoder
        changed, run = decoder is not before, self.session.run
        if not (changed or is_told):
            return
        if changed and run is not None and (self.session.busy or self._has_just_run(run)):
            self.run(self.run_params.request(run.request.prompt, seed=run.seed))
            return
        hint = ""
        if changed and run is not None and run is self.session.current and self._is_as_sent(run):
            hint = "r runs the prompt again with its seed. "
        elif changed and run is not None and self.prompt.text.strip():
            hint = "^j runs it. "
        self.say(f"{decoder.title}: {hint}{decoder.summary}")

    def refusal(self, decoder: Decoder) -> str:
        """Returns the engine's reason against a strategy; "" where there is none, or none is known."""
        if decoder in self.decoders:
            return self.refusals.get(decoder.name, "")
        engine = self.session.engine
        return engine.refusal(decoder.name) if engine is not None else ""

    def _has_just_run(self, run: Run) -> bool:
        """Tells whether a run came to its own end, and the prompt has not changed since."""
        ended = run.finished is not None and run.finished.reason != "cancelled"
        return ended and run is self.session.current and self._is_as_sent(run)

    def _is_as_sent(self, run: Run) -> bool:
        """Tells whether the prompt is still the run's; a conversation clears the prompt that it has sent."""
        prompt = run.request.prompt
        return self.prompt.text == (prompt if isinstance(prompt, str) else "")

    def take_values(self, strategy: str, patch: ParamPatch, preset: str = "") -> bool:
        """Takes a strategy with its values; False, after a message, where some are refused."""
        try:
            decoder = decoders.find(strategy)
        except decoders.UnknownStrategy as error:
            self.say(str(error), "error")
            return False
        rejected = self.run_params.take(decoder, patch, preset)
        self.view.show_values()
        if rejected:
            self.say(f"{decoder.title} does not take {', '.join(rejected)}; the rest is set.", "warning")
        return not rejected

    # Presets.

    def take_preset(self, preset: Preset | None) -> None:
        """Takes the strategy, the values and the prompt of a preset; None leaves them."""
        if preset is None:
            return
        patch = ParamPatch(
            preset.parameters, preset.mode, preset.max_length, stop=preset.stop, system=preset.system
        )
        if self.take_values(preset.strategy, patch, preset.name):
            sentence = f"{preset.title or preset.name}: ctrl+j runs the prompt with it."
            note = self.run_params.flags_note()
            self.say(f"{sentence} {note}".rstrip(), "warning" if note else "good")
        if preset.prompt:
            self.prompt.put(preset.prompt)
            self.prompt.focus()

    def describe_values(self) -> str:
        """Names the strategy and the values that a preset would hold."""
        values = self.run_params.overrides().values.items()
        described = " · ".join(f"{name} {value_text(value)}" for name, value in values)
        return f"{self.run_params.decoder.name}: {described or 'no values of its own'}"

    def save_preset(self, title: str | None) -> None:
        """Saves the strategy with its values under a title; None saves nothing."""
        if not title:
            return
        own = self.run_params.overrides()
        preset = presets.Preset(
            presets.name_of(title),
            self.run_params.decoder.name,
            title=title,
            parameters=own.values,
            mode=own.mode,
            max_length=own.max_length,
            stop=own.stop,
            system=own.system,
        )
        try:
            self.say(f"Saved as {presets.save(preset)}; d takes it again.", "good")
        except presets.PresetError as error:
            self.say(str(error), "error")

    # Files and the engine.

    def show_problem(self) -> None:
        """Shows the error of the first of the user's own strategies that does not work, if any."""
        strategies = decoders.current()
        problems = (each for each in strategies.problems if Path(each.source).parent in strategies.folders)
        self.panel.show(next(problems, None))

    def apply_strategies(self, files: set[Path]) -> None:
        """Goes on with the strategies as they are now, after these files have changed."""
        chosen, known = self.run_params.decoder.name, {decoder.name for decoder in self.decoders}
        self.decoders = decoders.strategies()
        decoder = find(chosen)
        if decoder is None:
            if self.session.busy:
                self.session.stop()
            # A strategy that was renamed is found again by its file; one that is gone gives way to the first.
            decoder = next((each for each in self.decoders if each.name not in known), self.decoders[0])
        self.run_params.decoder = decoder
        self._show_strategies()
        self.view.show_values()
        self.show_problem()
        if not files:
            return
        written = ", ".join(sorted(file.name for file in files))
        if self.panel.problem is None:
            self.say(f"{written} was read again: r runs the same prompt with it.", "good")
        else:
            self.say(f"{written} was read again, but something in it is wrong.", "error")

    def apply(self, event: Event) -> None:
        """Takes the values that a run used, the errors of its strategy, and what a model cannot run."""
        run, engine = self.session.run, self.session.engine
        match event:
            case Started():
                if self.panel.while_running:
                    self.panel.show(None)
                if run is not None and run.id == event.run:
                    run.decoder = find(event.strategy)
                self.run_params.learn(event.strategy, event.values)
                self.view.show_values()
            case Finished() if run is not None and run.id == event.run and run.decoder and event.new_tokens:
                decoders.current().mark_working(run.decoder)
            case Failed():
                if event.problem is not None:
                    reverted = run is not None and run.id == event.run and self._revert(run)
                    self.panel.show(event.problem, while_running=True, reverted=reverted)
                if event.field:
                    self.view.refuse(event.field, event.message)
            case Loaded() if engine is not None:
                self.run_params.forget()
                refusals = {decoder.name: engine.refusal(decoder.name) for decoder in self.decoders}
                self.refusals = {name: why for name, why in refusals.items() if why}
                self._show_strategies()

    def _revert(self, run: Run) -> bool:
        """Restores the version of a failed run's strategy that last decoded, if there is one."""
        if run.decoder is None or not decoders.current().revert(run.decoder):
            return False
        self.apply_strategies(set())
        return True
