"""Every action of the app, declared once: key bindings, command palette, help screen, docs/keys.md.

An action names the method that does it (`action_<id>` on the class of its scope), so adding one is a line
here and a method there. Keys can be remapped by id through Textual's keymap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from textual.binding import Binding

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Scope = Literal[
    "app", "main", "tokens", "inspector", "turns", "parameters", "models", "presets", "history", "settings"
]

SCOPES: dict[Scope, str] = {
    "app": "Everywhere",
    "main": "Workbench (single letters: wherever no text is being typed)",
    "tokens": "Token pane",
    "inspector": "Alternatives of a token",
    "turns": "Turns of a conversation",
    "parameters": "Parameters (up and down choose one)",
    "models": "Models",
    "presets": "Presets",
    "history": "History (typing searches)",
    "settings": "Settings (typing searches)",
}
"""Headings of the help screen, in its order."""


@dataclass(frozen=True, slots=True)
class Action:
    """One thing the user can do.

    Attributes:
        id: Name of the method without `action_`, arguments included; also the keymap's id.
        keys: Textual key names, separated by commas; "" for the palette only.
        label: A word or two, for the footer.
        help: One sentence, for help, tooltips and the palette.
        scope: Where the keys work.
        shown: Whether the footer shows it.
        palette: Whether the command palette offers it.
        priority: Whether it also works while text is being typed.
        display: How the keys are written; derived from `keys` when empty.
    """

    id: str
    keys: str
    label: str
    help: str
    scope: Scope = "main"
    shown: bool = False
    palette: bool = True
    priority: bool = False
    display: str = ""

    @property
    def written(self) -> str:
        """The keys as help and footer write them."""
        return self.display or written(self.keys)

    def binding(self) -> Binding:
        """The Textual binding of this action."""
        return Binding(
            self.keys,
            self.id,
            self.label,
            show=self.shown,
            key_display=self.written.split(" ")[0] if not self.display else self.display,
            priority=self.priority,
            tooltip=self.help,
            id=f"{self.scope}.{self.id}",
        )


_WRITTEN = {
    "question_mark": "?",
    "slash": "/",
    "escape": "esc",
    "backspace": "⌫",
    "delete": "del",
    "left": "←",
    "right": "→",
    "up": "↑",
    "down": "↓",
    "equals_sign": "=",
    "full_stop": ".",
    "comma": ",",
}


def written(keys: str) -> str:
    """Keys separated by commas, as help and footer write them."""
    return " ".join(_written(key) for key in keys.split(",") if key)


def _written(key: str) -> str:
    *modifiers, last = key.split("+")
    return "".join("^" if m == "ctrl" else f"{m}-" for m in modifiers) + _WRITTEN.get(last, last)


ACTIONS: tuple[Action, ...] = (
    Action("quit", "ctrl+q", "quit", "Stop everything and leave; the terminal is as it was.", "app",
           priority=True),
    Action("command_palette", "ctrl+p", "palette", "Every action, by name.", "app", shown=True, palette=False,
           priority=True),
    Action("suspend_process", "ctrl+z", "suspend", "Put the app in the background; `fg` brings it back.",
           "app",
           palette=False, priority=True),
    Action("run", "ctrl+j", "run", "Decode the prompt under the chosen strategy.", shown=True, priority=True),
    Action("stop", "escape", "stop", "Stop the run, or leave what is open.", shown=True),
    Action("digit", "1,2,3,4,5,6,7,8,9", "strategy",
           "Choose one of the first nine strategies; the prompt that runs, or has run to its end, "
           "runs again under it with the same seed. After esc it only chooses.",
           palette=False, display="1-9"),
    Action("strategies", "s", "strategies", "Search the list of all strategies.", shown=True),
    Action("models", "m", "models", "Choose, load and unload models.", shown=True),
    Action("resume", "c", "continue", "Go on from where the run stopped."),
    Action("rerun", "r", "rerun", "The same prompt and seed, under the strategy and values as they are now."),
    Action("again", "g", "again", "The same prompt with another seed."),
    Action("toggle_final", "f", "raw/final",
           "Colour by the model's own probabilities, or by those the strategy drew from."),
    Action("inspector", "i", "inspect", "Show or hide the alternatives of the token under the cursor."),
    Action("sidebar", "b", "sidebar", "Fold the sidebar away, or bring it back."),
    Action("board", "w", "beams", "Show the board of beams, or the text alone."),
    Action("fold", "z", "thoughts", "Unfold what the model thought before its answer, or fold it again."),
    Action("conversation", "v", "conversation",
           "Talk: each prompt goes on from the answers before it; once more completes prompts on their own."),
    Action("new_conversation", "V", "new talk", "Begin another conversation; the history keeps the old one."),
    Action("focus_turns", "u", "turns", "Go to the turns of the conversation."),
    Action("history", "o", "history", "Open, compare, export and delete earlier runs."),
    Action("presets", "d", "presets", "Take a strategy with its values from a list."),
    Action("save_preset", "D", "save preset", "Save the strategy with its present values under a name."),
    Action("past_prompts", "ctrl+r", "past prompts", "Search the prompts that were run.", priority=True),
    Action("editor", "ctrl+g", "editor", "Write the prompt in $EDITOR.", priority=True),
    Action("load_file", "ctrl+o", "load", "Load a file into the prompt.", priority=True),
    Action("focus_prompt", "p,slash", "prompt", "Go to the prompt."),
    Action("focus_parameters", "e", "parameters", "Go to the parameters."),
    Action("themes", "t", "theme", "Try a theme; it shows while you choose."),
    Action("copy", "y", "copy", "Copy the answer to your own clipboard, through SSH as well."),
    Action("save", "Y", "save", "Write the answer to a file in the folder that the app was started in."),
    Action("settings", "comma", "settings", "Every setting, parameter and key, kept in your own file."),
    Action("clear", "x", "clear", "Clear the tokens (never the prompt); once more brings them back."),
    Action("help", "question_mark,f1", "help", "Keys, colours and what they mean.", shown=True),
    Action("choose(-1)", "up,k", "↑", "The exchange before; its answer is shown.", "turns", palette=False),
    Action("choose(1)", "down,j", "↓", "The exchange after.", "turns", palette=False),
    Action("read", "enter", "tokens", "Go to the tokens of the answer.", "turns", palette=False),
    Action("edit_turn", "e", "edit", "Change what you said, and go on from there.", "turns", palette=False),
    Action("parameter_down", "left", "less",
           "Turn the parameter down by one step (live while a run goes on).",
           "parameters", palette=False),
    Action("parameter_up", "right", "more", "Turn the parameter up by one step.", "parameters",
           palette=False),
    Action("parameter_down(10)", "shift+left", "much less", "Ten steps down.", "parameters", palette=False),
    Action("parameter_up(10)", "shift+right", "much more", "Ten steps up.", "parameters", palette=False),
    Action("tour", "f2", "tour", "The tour of five steps; once more leaves it."),
    Action("explain", "space", "explain", "What it does, in a picture of the token that you look at.",
           "parameters", palette=False),
    Action("edit", "enter", "type", "Type the value.", "parameters", palette=False),
    Action("reset", "backspace,delete", "reset", "Back to the default.", "parameters", palette=False),
    Action("load('model')", "enter", "load", "Load the model under the cursor (the expert of a pair).",
           "models",
           palette=False),
    Action("load('amateur')", "ctrl+a", "amateur", "Load it as the amateur of a contrastive pair.", "models",
           palette=False, priority=True),
    Action("unload", "ctrl+x", "unload", "Give its memory back; it loads again on its next use.", "models",
           palette=False, priority=True),
    Action("precision(1)", "right", "precision", "The next precision.", "models", palette=False,
           priority=True),
    Action("precision(-1)", "left", "precision", "The precision before.", "models", palette=False,
           priority=True),
    Action("device", "ctrl+d", "device", "The next device.", "models", palette=False, priority=True),
    Action("delete_preset", "ctrl+x", "delete", "Delete one of your own when you leave; once more keeps it.",
           "presets", palette=False, priority=True),
    Action("open_run", "enter", "open", "Look at the run under the cursor as if it had just ended.",
           "history", palette=False, priority=True),
    Action("run_again", "ctrl+g", "again", "Run its prompt again with its settings and seed.", "history",
           palette=False, priority=True),
    Action("mark", "ctrl+d", "compare", "Mark it; on another run, compare the two.", "history", palette=False,
           priority=True),
    Action("export", "ctrl+s", "export", "Write it to a file.", "history", palette=False, priority=True),
    Action("delete", "ctrl+x", "delete", "Delete it when you leave; once more keeps it.", "history",
           palette=False, priority=True),
    Action("step(1)", "right", "more", "The next value.", "settings", palette=False, priority=True),
    Action("step(-1)", "left", "less", "The value before.", "settings", palette=False, priority=True),
    Action("unset", "ctrl+x", "default", "Take it out of your file: the default holds again.", "settings",
           palette=False, priority=True),
)  # fmt: skip
"""The registry. Order is the order of help and footer."""


def bindings(scope: Scope) -> list[Binding]:
    """The bindings of one scope, for a class's `BINDINGS`.

    The digits become one binding each, because the method wants to know which was pressed.
    """
    found: list[Binding] = []
    for action in ACTIONS:
        if action.scope != scope:
            continue
        if action.id == "digit":
            found.extend(
                Binding(
                    digit,
                    f"digit({digit})",
                    action.label,
                    # One entry in the footer stands for all nine.
                    show=digit == "1",
                    key_display=action.display,
                    tooltip=action.help,
                    id=f"main.digit.{digit}",
                )
                for digit in action.keys.split(",")
            )
        else:
            found.append(action.binding())
    return found


@dataclass(frozen=True, slots=True)
class KeyHelp:
    """One line of the help screen."""

    keys: str
    label: str
    help: str


def key_help(
    extra: Mapping[Scope, Sequence[Binding]] | None = None,
    own: Mapping[str, str] | None = None,
    first: Sequence[Scope] = (),
) -> dict[str, list[KeyHelp]]:
    """Lines of help under their headings.

    Args:
        extra: Bindings that a widget declares itself, by scope.
        own: The user's keys by binding id, where they are not the built-in ones.
        first: Scopes to begin with.
    """
    own = own or {}
    table: dict[str, list[KeyHelp]] = {}
    for scope in (*first, *(scope for scope in SCOPES if scope not in first)):
        lines = [
            KeyHelp(_mapped(f"{scope}.{a.id}", own) or a.written, a.label, a.help)
            for a in ACTIONS
            if a.scope == scope
        ]
        for binding in (extra or {}).get(scope, []):
            keys = _mapped(binding.id or "", own) or binding.key_display or written(binding.key)
            lines.append(KeyHelp(keys, binding.description, binding.tooltip))
        if lines:
            table[SCOPES[scope]] = lines
    return table


def _mapped(id: str, own: Mapping[str, str]) -> str:
    """The user's keys of a binding, "" if they are the built-in ones; the nine of the digits together."""
    if id == "main.digit":
        return " ".join(written(own[f"{id}.{n}"]) for n in range(1, 10) if f"{id}.{n}" in own)
    return written(own[id]) if id in own else ""


def key_table(extra: Mapping[Scope, Sequence[Binding]] | None = None) -> str:
    """Lists the keys as a Markdown table, for docs/keys.md."""
    rows = ["| key | action | |", "|---|---|---|"]
    for heading, lines in key_help(extra).items():
        rows.append(f"| **{heading}** | | |")
        rows.extend(f"| `{line.keys}` | {line.label} | {line.help} |" for line in lines)
    return "\n".join(rows)
