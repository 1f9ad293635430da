"""Declares every action of the app once, for key bindings, the command palette, the help and docs/keys.md.

An action names its method (`action_<id>` on the class of its scope), so adding one is a line here and a
method there. Keys can be remapped by id through Textual's keymap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from textual.binding import Binding

if TYPE_CHECKING:
    from collections.abc import Iterable

    from textual.dom import DOMNode

Scope = Literal[
    "app", "main", "tokens", "inspector", "turns", "parameters", "lesson", "lessons", "models", "presets",
    "history", "settings", "chain", "list", "value", "explain", "compare", "side", "reading", "prompt",
    "confirm", "name", "help",
]  # fmt: skip

SCOPES: dict[Scope, str] = {
    "app": "Everywhere",
    "main": "Workbench (single letters: wherever no text is being typed)",
    "tokens": "Token pane",
    "inspector": "Why a token was taken",
    "turns": "Turns of a conversation",
    "parameters": "Parameters (up and down choose one)",
    "lesson": "The question of a lesson",
    "lessons": "Lessons",
    "models": "Models",
    "presets": "Presets",
    "history": "History (typing searches)",
    "settings": "Settings (typing searches)",
    "chain": "The chain of a strategy",
    "list": "Lists (typing filters)",
    "value": "Typing a value",
    "explain": "A parameter explained",
    "compare": "Two runs side by side (tab goes to the other)",
    "side": "Tokens of one of the two",
    "reading": "The prompt as the model reads it",
    "prompt": "Tokens of the prompt",
    "confirm": "Questions",
    "name": "Typing a name",
    "help": "Help",
}
"""Headings of the help screen, in its order."""
INNER: dict[Scope, frozenset[Scope]] = {
    "main": frozenset({"tokens", "inspector", "turns", "parameters", "lesson"}),
    "list": frozenset({"lessons", "models", "presets", "settings"}),
    "compare": frozenset({"side"}),
    "reading": frozenset({"prompt"}),
}
"""Scopes that are heard together with a scope around them."""


@dataclass(frozen=True, slots=True)
class Action:
    """Describes one thing that the user can do.

    Attributes:
        id: Name of the method without `action_`, arguments included; also the keymap's id.
        keys: Textual key names, separated by commas; "" for the palette only.
        label: A word or two, for the footer.
        help: One sentence, for help, tooltips and the palette.
        scope: Part of the screen that hears the keys.
        footer: True where the footer lists it.
        palette: True where the command palette offers it.
        priority: True where it also works while text is being typed.
        display: The keys as text; derived from `keys` when empty.
    """

    id: str
    keys: str
    label: str
    help: str
    scope: Scope = "main"
    footer: bool = False
    palette: bool | None = None
    priority: bool = False
    display: str = ""

    @property
    def key_text(self) -> str:
        """The keys as help and footer write them."""
        return self.display or key_text(self.keys)

    @property
    def in_palette(self) -> bool:
        """True where the command palette offers it: what the workbench and the app do, unless refused."""
        return self.scope in ("app", "main") if self.palette is None else self.palette

    def bindings(self) -> list[Binding]:
        """Builds the Textual bindings of this action: one for each digit, else one."""
        if self.id != "digit":
            return [self._binding(self.keys, self.id, self.id, self.footer)]
        # One entry in the footer stands for all nine.
        return [
            self._binding(key, f"digit({key})", f"digit.{key}", key == "1") for key in self.keys.split(",")
        ]

    def _binding(self, keys: str, action: str, name: str, footer: bool) -> Binding:
        return Binding(
            keys,
            action,
            self.label,
            show=footer,
            key_display=self.display or self.key_text.split(" ")[0],
            priority=self.priority,
            tooltip=self.help,
            id=f"{self.scope}.{name}",
        )


_SYMBOLS = {
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
    "vertical_line": "|",
    "plus": "+",
    "minus": "-",
}


def key_text(keys: str) -> str:
    """Writes keys separated by commas as help and footer show them."""
    return " ".join(_key_text(key) for key in keys.split(",") if key)


def _key_text(key: str) -> str:
    *modifiers, last = key.split("+")
    return "".join("^" if m == "ctrl" else f"{m}-" for m in modifiers) + _SYMBOLS.get(last, last)


ACTIONS: tuple[Action, ...] = (
    Action("quit", "ctrl+q", "quit", "Stop everything and leave; the terminal is as it was.", "app",
           priority=True),
    Action("command_palette", "ctrl+p", "palette", "Every action, by name.", "app", footer=True,
           palette=False, priority=True),
    Action("suspend_process", "ctrl+z", "suspend", "Put the app in the background; `fg` brings it back.",
           "app", palette=False, priority=True),
    Action("show_me", "f3", "show me",
           "Do the step of the lesson, key by key, or go to its question; any key ends that.", "app",
           priority=True),
    Action("run", "ctrl+j", "run", "Decode the prompt under the chosen strategy.", footer=True,
           priority=True),
    Action("stop", "escape", "stop", "Stop the run, or leave what is open.", footer=True),
    Action("digit", "1,2,3,4,5,6,7,8,9", "strategy",
           "Choose one of the first nine strategies; the prompt that runs, or has run to its end, runs again "
           "under it with the same seed. After esc it only chooses.", palette=False, display="1-9"),
    Action("strategies", "s", "strategies", "Search the list of all strategies.", footer=True),
    Action("chain", "S", "chain", "The stages of the strategy: their order, more of them, mute one."),
    Action("models", "m", "models", "Choose, load and unload models.", footer=True),
    Action("resume", "c", "continue", "Go on from where the run stopped."),
    Action("rerun", "r", "rerun", "The same prompt and seed, under the strategy and values as they are now."),
    Action("again", "g", "again", "The same prompt with another seed."),
    Action("duel", "vertical_line", "duel",
           "The same prompt and seed under another strategy too, both in turn, side by side."),
    Action("toggle_final", "f", "raw/final",
           "Colour by the model's own probabilities, or by those the strategy drew from."),
    Action("colours", "F", "colours",
           "Colour by rank, by entropy, by margin (where another token was nearly taken), or by p again."),
    Action("inspector", "i", "inspect", "Show or hide why the token under the cursor was taken."),
    Action("widen", "W", "widen", "Give that more room: a column for each stage; once more takes it back."),
    Action("sidebar", "b", "sidebar", "Fold the sidebar away, or bring it back."),
    Action("board", "w", "beams", "Show the board of beams, or the text alone."),
    Action("curve", "C", "curve", "The whole answer as a curve under the tokens; once more another number."),
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
    Action("read_prompt", "P", "read prompt",
           "The prompt as the model reads it, how it surprises the model, and what would come next."),
    Action("focus_parameters", "e", "parameters", "Go to the parameters."),
    Action("themes", "t", "theme", "Try a theme; it shows while you choose."),
    Action("copy", "y", "copy", "Copy the answer to your own clipboard, through SSH as well."),
    Action("save", "Y", "save", "Write the answer to a file in the folder that the app was started in."),
    Action("settings", "comma", "settings", "Every setting, parameter and key, kept in your own file."),
    Action("clear", "x", "clear", "Clear the tokens (never the prompt); once more brings them back."),
    Action("help", "question_mark,f1", "help", "Keys, colours and what they mean.", footer=True),
    Action("lessons", "f2", "lessons", "Six lessons of ninety seconds; during one, leave it as it is."),
    Action("cursor_left", "left,h", "token ←", "The token before.", "tokens"),
    Action("cursor_right", "right,l", "token →", "The token after.", "tokens"),
    Action("cursor_up", "up,k", "line ↑", "The token above.", "tokens"),
    Action("cursor_down", "down,j", "line ↓", "The token below.", "tokens"),
    Action("cursor_first", "home", "first", "The first token.", "tokens"),
    Action("live", "end", "live", "Follow the newest token again.", "tokens"),
    Action("surprise(1)", "n", "surprise →", "The next token that the model found unlikely.", "tokens"),
    Action("surprise(-1)", "N", "surprise ←", "The previous token that the model found unlikely.", "tokens"),
    Action("open", "enter", "inspect", "See why the token under the cursor was taken.", "tokens"),
    Action("runner_up", "a", "runner-up", "Cut here and go on with the likeliest other token.", "tokens"),
    Action("mark(-1)", "up,k", "↑", "The alternative above.", "inspector"),
    Action("mark(1)", "down,j", "↓", "The alternative below.", "inspector"),
    Action("token(-1)", "left,h", "token ←", "Inspect the token before.", "inspector"),
    Action("token(1)", "right,l", "token →", "Inspect the token after.", "inspector"),
    Action("take", "enter", "take", "Cut here and go on with the marked token; on ⋮ unfold the others.",
           "inspector"),
    Action("order", "o", "order", "In the order of p, or of the sums again.", "inspector"),
    Action("turn", "space", "turn", "Turn a parameter, and see what becomes of this token.", "inspector"),
    Action("watch", "plus", "watch", "Type a text whose token is listed at every position.", "inspector"),
    Action("unwatch", "minus,delete", "unwatch", "Watch the marked token no more.", "inspector"),
    Action("choose(-1)", "up,k", "↑", "The exchange before; its answer is shown.", "turns"),
    Action("choose(1)", "down,j", "↓", "The exchange after.", "turns"),
    Action("read", "enter", "tokens", "Go to the tokens of the answer.", "turns"),
    Action("edit_turn", "e", "edit", "Change what you said, and go on from there.", "turns"),
    Action("parameter_down", "left", "less",
           "Turn the parameter down by one step (live while a run goes on).", "parameters"),
    Action("parameter_up", "right", "more", "Turn the parameter up by one step.", "parameters"),
    Action("parameter_down(10)", "shift+left", "much less", "Ten steps down.", "parameters"),
    Action("parameter_up(10)", "shift+right", "much more", "Ten steps up.", "parameters"),
    Action("explain", "space", "explain", "The parameter's effect on the token in sight.",
           "parameters"),
    Action("edit", "enter", "type", "Type the value.", "parameters"),
    Action("reset", "backspace,delete", "reset", "Back to the default.", "parameters"),
    Action("previous", "up", "↑", "The parameter above.", "parameters"),
    Action("next", "down", "↓", "The parameter below.", "parameters"),
    Action("first", "home", "first", "The first parameter.", "parameters"),
    Action("last", "end", "last", "The last parameter.", "parameters"),
    Action("choose(-1)", "left,up,h,k", "←", "The choice before; without a question, scroll up.", "lesson"),
    Action("choose(1)", "right,down,l,j", "→", "The choice after; without a question, scroll down.",
           "lesson"),
    Action("answer", "enter", "answer", "Take the choice; a wrong one can be followed by another.", "lesson"),
    Action("restart", "ctrl+x", "again", "Begin the lesson under the cursor from its first step.", "lessons",
           priority=True),
    Action("load('model')", "enter", "load", "Load the model under the cursor (the expert of a pair).",
           "models"),
    Action("load('amateur')", "ctrl+a", "amateur", "Load it as the amateur of a contrastive pair.", "models",
           priority=True),
    Action("unload", "ctrl+x", "unload", "Give its memory back; it loads again on its next use.", "models",
           priority=True),
    Action("complete", "tab", "complete", "Complete a typed path by the entry under the cursor.", "models",
           priority=True),
    Action("precision(1)", "right", "precision", "The next precision.", "models", priority=True),
    Action("precision(-1)", "left", "precision", "The precision before.", "models", priority=True),
    Action("device", "ctrl+d", "device", "The next device.", "models", priority=True),
    Action("delete_preset", "ctrl+x", "delete", "Delete one of your own when you leave; once more keeps it.",
           "presets", priority=True),
    Action("open_run", "enter", "open", "Look at the run under the cursor as if it had just ended.",
           "history", priority=True),
    Action("run_again", "ctrl+g", "again", "Run its prompt again with its settings and seed.", "history",
           priority=True),
    Action("mark", "ctrl+d", "compare", "Mark it; on another run, compare the two.", "history",
           priority=True),
    Action("export", "ctrl+s", "export", "Write it to a file.", "history", priority=True),
    Action("copy_command", "ctrl+y", "command", "Copy the command that makes it again.", "history",
           priority=True),
    Action("delete", "ctrl+x", "delete", "Delete it when you leave; once more keeps it.", "history",
           priority=True),
    Action("leave", "escape", "leave", "Back to the workbench.", "history"),
    Action("move(-1)", "up", "↑", "The run above.", "history", priority=True),
    Action("move(1)", "down", "↓", "The run below.", "history", priority=True),
    Action("move(-10)", "pageup", "page ↑", "Ten runs up.", "history", priority=True),
    Action("move(10)", "pagedown", "page ↓", "Ten runs down.", "history", priority=True),
    Action("move(-1000000)", "ctrl+home", "first", "The newest run.", "history", priority=True),
    Action("move(1000000)", "ctrl+end", "last", "The oldest run.", "history", priority=True),
    Action("step(1)", "right", "more", "The next value.", "settings", priority=True),
    Action("step(-1)", "left", "less", "The value before.", "settings", priority=True),
    Action("unset", "ctrl+x", "default", "Take it out of your file: the default holds again.", "settings",
           priority=True),
    Action("move(-1)", "shift+up,K", "move ↑", "Move the stage one place up.", "chain"),
    Action("move(1)", "shift+down,J", "move ↓", "Move the stage one place down.", "chain"),
    Action("add", "a", "add", "Add a stage behind this one.", "chain"),
    Action("remove", "x,delete", "remove", "Remove the stage.", "chain"),
    Action("mute", "space,m", "mute",
           "Make its parameters neutral (live while a run goes on); once more restores them.", "chain"),
    Action("put_in_order('transformers')", "t", "transformers", "Put the stages into transformers' order.",
           "chain"),
    Action("put_in_order('llama_cpp')", "l", "llama.cpp", "Put the stages into llama.cpp's order.", "chain"),
    Action("leave", "escape,enter,q", "leave",
           "Back to the workbench; under another chain the prompt runs again.", "chain"),
    Action("show_help", "f1,question_mark", "help", "The keys of where you are.", "chain"),
    Action("leave", "escape", "leave", "Leave everything as it was.", "list"),
    Action("show_help", "f1", "help", "The keys of where you are.", "list"),
    Action("move(-1)", "up", "↑", "The line above.", "list", priority=True),
    Action("move(1)", "down", "↓", "The line below.", "list", priority=True),
    Action("move(-8)", "pageup", "page ↑", "Eight lines up.", "list", priority=True),
    Action("move(8)", "pagedown", "page ↓", "Eight lines down.", "list", priority=True),
    Action("leave", "escape", "leave", "Leave the value as it was.", "value"),
    Action("dismiss", "escape,space,q", "leave", "Back to the workbench.", "explain"),
    Action("step(-1)", "left,h", "less", "One step down.", "explain"),
    Action("step(1)", "right,l", "more", "One step up.", "explain"),
    Action("step(-10)", "shift+left", "much less", "Ten steps down.", "explain"),
    Action("step(10)", "shift+right", "much more", "Ten steps up.", "explain"),
    Action("choose(-1)", "up,k", "↑", "The parameter above.", "explain"),
    Action("choose(1)", "down,j", "↓", "The parameter below.", "explain"),
    Action("reset", "backspace,delete", "reset", "Back to the default.", "explain"),
    Action("dismiss", "escape,q", "leave", "Back to where you were; the second run of a duel is stopped.",
           "compare"),
    Action("take", "enter", "take", "Go on with this run in the workbench; the history keeps the other.",
           "compare"),
    Action("parting", "n", "parting", "The next place at which the two part.", "compare"),
    Action("difference", "d", "difference", "Back to the first token that differs.", "compare"),
    Action("show_help", "f1,question_mark", "help", "The keys of where you are.", "compare"),
    Action("cursor_left", "left,h", "token ←", "The token before, in both runs.", "side"),
    Action("cursor_right", "right,l", "token →", "The token after, in both runs.", "side"),
    Action("cursor_up", "up,k", "line ↑", "The token above.", "side"),
    Action("cursor_down", "down,j", "line ↓", "The token below.", "side"),
    Action("cursor_first", "home", "first", "The first token.", "side"),
    Action("live", "end", "live", "Follow the newest token again.", "side"),
    Action("leave", "escape,q", "leave", "Back to the workbench; nothing has run.", "reading"),
    Action("chat", "c", "chat template", "Read the prompt without the chat template, or with it.", "reading"),
    Action("system", "s", "system prompt", "Read it without the system prompt, or with it.", "reading"),
    Action("answer", "w", "answer", "Read the answer on the screen behind its prompt, or leave it out.",
           "reading"),
    Action("prompt", "p", "prompt", "From a text back to the prompt.", "reading"),
    Action("load_file", "ctrl+o", "score", "Score a file: perplexity and bits per byte. So does a paste.",
           "reading", priority=True),
    Action("show_help", "f1,question_mark", "help", "The keys of where you are.", "reading"),
    Action("cursor_left", "left,h", "token ←", "The token before.", "prompt"),
    Action("cursor_right", "right,l", "token →", "The token after.", "prompt"),
    Action("cursor_up", "up,k", "line ↑", "The token above.", "prompt"),
    Action("cursor_down", "down,j", "line ↓", "The token below.", "prompt"),
    Action("cursor_first", "home", "first", "The first token.", "prompt"),
    Action("live", "end", "next token", "Leave the cursor: what comes next.", "prompt"),
    Action("surprise(1)", "n", "surprise →", "The next token that the model found unlikely.", "prompt"),
    Action("surprise(-1)", "N", "surprise ←", "The previous token that the model found unlikely.", "prompt"),
    Action("answer(True)", "enter,y", "yes", "Do it.", "confirm"),
    Action("answer(False)", "escape,n", "no", "Leave it.", "confirm"),
    Action("leave", "escape", "leave", "Save nothing.", "name"),
    Action("dismiss", "escape,question_mark,f1,q", "leave", "Back to where you were.", "help"),
)  # fmt: skip
"""The registry. Order is the order of help and footer."""


def bindings(scope: Scope) -> list[Any]:
    """Builds the bindings of one scope, for a class's `BINDINGS`, which Textual declares as a wider list."""
    return [binding for action in ACTIONS if action.scope == scope for binding in action.bindings()]


def scope_of(binding: Binding) -> Scope:
    """Reads the scope out of a registry binding's id."""
    return cast("Scope", (binding.id or "").partition(".")[0])


def scopes_heard(node: DOMNode) -> list[Scope]:
    """Lists the scopes of the keys that are heard at a widget or screen, the nearest first."""
    scopes: list[Scope] = []
    for each in node.ancestors_with_self:
        bound = [binding for found in each._bindings.key_to_bindings.values() for binding in found]
        # A list's own keys come before those that all lists have.
        scopes += sorted(filter(SCOPES.__contains__, map(scope_of, bound)), key=INNER.__contains__)
    return list(dict.fromkeys(scopes))


def leaving(scopes: Iterable[str]) -> str | None:
    """Finds the binding that leaves where the user is; None where there is none."""
    actions = (action for scope in scopes for action in ACTIONS if action.scope == scope)
    return next((f"{each.scope}.{each.id}" for each in actions if "escape" in each.keys.split(",")), None)
