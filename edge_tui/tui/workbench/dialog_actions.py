"""Opens dialogs on keys: the workbench's actions that do nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_tui.tui.widgets.inspector import Inspector

if TYPE_CHECKING:
    from edge_tui.tui.workbench.dialogs import WorkbenchDialogs


class DialogActions:
    """Has a method for each key that opens a dialog.

    Attributes:
        dialogs: Pushes the dialogs.
    """

    dialogs: WorkbenchDialogs

    def action_past_prompts(self) -> None:
        """Opens the search of earlier prompts."""
        self.dialogs.show_past_prompts()

    def action_load_file(self) -> None:
        """Opens the choice of a file."""
        self.dialogs.show_files()

    def action_read_prompt(self) -> None:
        """Opens the prompt as the model reads it."""
        self.dialogs.show_read_prompt()

    def action_strategies(self) -> None:
        """Opens the list of strategies."""
        self.dialogs.show_strategies()

    def action_chain(self) -> None:
        """Opens the chain of the strategy."""
        self.dialogs.show_chain()

    def action_presets(self) -> None:
        """Opens the list of presets."""
        self.dialogs.show_presets()

    def action_save_preset(self) -> None:
        """Asks for the name of a preset."""
        self.dialogs.save_preset()

    def action_history(self) -> None:
        """Opens the history."""
        self.dialogs.show_history()

    def action_settings(self) -> None:
        """Opens the settings."""
        self.dialogs.show_settings()

    def on_parameter_table_explain(self) -> None:
        """Opens the explanation of the parameter."""
        self.dialogs.show_explanation()

    def on_inspector_turn(self) -> None:
        """Turns parameters, and shows what becomes of the token."""
        self.dialogs.show_explanation()

    def on_inspector_watch(self, event: Inspector.Watch) -> None:
        """Asks for a text to watch, or watches a token no more."""
        self.dialogs.watch(event.token_id)
