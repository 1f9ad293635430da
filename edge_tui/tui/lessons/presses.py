"""Reads from a step's condition which key brings it nearer, as a learner would press it.

Actions are named as the keymap names them ("main.run"); a name without a scope is a key that a list reads as
text, or as the choice of a line.

| missing | pressed |
|---|---|
| `run`, `ended`, `new`, `ran.NAME` | the strategy's digit, the parameter's arrows, then run |
| `curve` | the key of the curve, until it shows that number |
| `token.NAME` | `walk` of the step, until the cursor is there |
| `inspecting` | the key that opens the inspector |
| `rival` | the key of a duel, then the strategy in its list |
| `screen` | `path` of the step, one after another |
| `value.NAME` | the parameter's arrows, there or in the sidebar |
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_tui.tui.actions import leaving
from edge_tui.tui.lessons.lesson import holds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edge_tui.tui.lessons.facts import Scene
    from edge_tui.tui.lessons.lesson import Fact, Step

AGAIN = "main.again"
"""Pressed where the text has no token that the step asks for."""
RUN = frozenset({"run", "ended", "new", "ran"})
"""Kinds of facts that a run makes hold."""
_DIGITS = 9


def next_press(
    step: Step,
    facts: Mapping[str, Fact],
    scene: Scene,
    strategies: Sequence[str],
    *,
    decoding: bool,
    there: bool,
) -> str | None:
    """Returns the action, or the key, that is pressed next; None where there is something to wait for.

    Args:
        step: The step.
        facts: What is true now.
        scene: The screen, and what hears keys.
        strategies: Names in the order of their digits.
        decoding: True while a run goes on.
        there: False where the text has no token that the step asks for.
    """
    missing = step.missing(facts)
    kinds = {name.partition(".")[0] for name in missing}
    wanted = step.done.get("run" if kinds & RUN else "rival")
    if scene.listed in strategies and isinstance(wanted, str):
        return _list(scene, wanted)
    if scene.screen != "workbench" and scene.screen != step.done.get("screen"):
        return leaving(scene.scopes) or "escape"  # Textual's own screens have no actions of ours
    if scene.typing:
        return None if decoding else leaving(scene.scopes)
    if kinds & RUN:
        return _run(step, facts, scene, strategies, decoding)
    if decoding:
        return None
    if "curve" in kinds:
        return "main.curve"
    if "token" in kinds:
        return _heard(f"tokens.{step.walk}", scene) if there else AGAIN
    if "inspecting" in kinds:
        return _heard("tokens.open", scene)
    if "rival" in kinds:
        return "main.duel"
    if "screen" in kinds:
        heard = [each for each in step.path if each.partition(".")[0] in scene.scopes]
        return heard[-1] if heard else leaving(scene.scopes)
    turned = next((name for name in missing if name.startswith("value.")), None)
    return _turn(turned, step.done[turned], facts, scene) if turned is not None else None


def _run(
    step: Step, facts: Mapping[str, Fact], scene: Scene, strategies: Sequence[str], decoding: bool
) -> str | None:
    """Chooses the strategy, turns its parameters and runs."""
    wanted = step.done.get("run", facts["strategy"])
    if facts["strategy"] != wanted:
        number = strategies.index(str(wanted)) + 1 if wanted in strategies else _DIGITS + 1
        return f"main.digit.{number}" if number <= _DIGITS else "main.strategies"
    if step.missing(facts) == ["ended"] and decoding:
        return None
    for name, bound in step.done.items():
        kind, _, param = name.partition(".")
        if kind == "ran" and not holds(facts.get(f"value.{param}"), bound):
            return _turn(f"value.{param}", bound, facts, scene)
    return None if "run" not in facts and decoding else "main.run"


def _turn(name: str, wanted: Fact, facts: Mapping[str, Fact], scene: Scene) -> str | None:
    """Goes to a parameter, and turns it towards a bound."""
    value = facts.get(name)
    if value is None:
        return None
    explained = scene.screen == "explain"
    if not explained and "parameters" not in scene.scopes:
        return "main.focus_parameters"
    param = name.partition(".")[2]
    if not {param, scene.row} <= set(scene.rows):
        return None
    if scene.row != param:
        count = len(scene.rows)
        after = (scene.rows.index(param) - scene.rows.index(scene.row)) % count <= count / 2
        if explained:
            return f"explain.choose({1 if after else -1})"
        return "parameters.next" if after else "parameters.previous"
    down = isinstance(wanted, str) and wanted.startswith("<=")
    if isinstance(wanted, float | int) and isinstance(value, float | int):
        down = value > wanted
    if explained:
        return f"explain.step({-1 if down else 1})"
    return "parameters.parameter_down" if down else "parameters.parameter_up"


def _list(scene: Scene, wanted: str) -> str:
    """Types a name into the filter of a list, and takes the line once the cursor is on it."""
    if scene.listed == wanted:
        return "enter"
    if wanted.startswith(scene.typed) and scene.typed != wanted:
        return wanted[len(scene.typed)]
    return "list.move(1)"


def _heard(action: str, scene: Scene) -> str | None:
    """Returns an action, or the one that leads to where it is heard."""
    return action if action.partition(".")[0] in scene.scopes else leaving(scene.scopes)
