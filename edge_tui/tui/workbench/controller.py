"""Defines the parts that the controllers of strategies and of runs have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from edge_tui.tui.workbench.ports import Messages

if TYPE_CHECKING:
    from edge_tui.tui.run_params import RunParams
    from edge_tui.tui.session import Session
    from edge_tui.tui.widgets.message_line import Kind
    from edge_tui.tui.workbench.ports import PromptField

View = TypeVar("View", bound=Messages)


@dataclass(eq=False)
class Controller(Generic[View]):
    """Holds the parts of a controller that acts on the next request.

    Attributes:
        session: Engine and runs.
        run_params: Values of the next request.
        prompt: The prompt of the next request.
        view: Shows what the controller decides.
    """

    session: Session
    run_params: RunParams
    prompt: PromptField
    view: View

    def say(self, message: str, kind: Kind = "info") -> None:
        """Puts a sentence on the message line."""
        self.view.say(message, kind)
