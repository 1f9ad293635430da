"""Collects what a lesson may ask about: the run on the screen, the token under the cursor, the next values.

| fact | |
|---|---|
| `run`, `ended`, `new` | strategy of the run on the screen; it has ended; it began during this step |
| `ran.NAME` | a parameter that this run was started with |
| `strategy`, `value.NAME` | of the next run: its strategy, and a parameter |
| `rival` | strategy of the second run of a duel |
| `token.p`, `token.entropy` | of the token under the cursor: the model's probability, its entropy in nats |
| `token.rank`, `token.place` | 1 is the model's likeliest; 0 is the text's first token, 1 its last |
| `token.NAME` | the strategy's own columns (`token.drafted`) |
| `inspecting` | the inspector is open |
| `screen` | what lies on top: "workbench", "explain", "compare", … |
| `curve` | the number that the curve shows |
| `answer` | the choice that was made where the step is a question |
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge_tui.transcript.transcript import Transcript
    from edge_tui.tui.lessons.lesson import Fact, Place
    from edge_tui.tui.run_params import RunParams
    from edge_tui.tui.session import Session


class Scene(NamedTuple):
    """Describes what is on the screen; from `scopes` on only while keys are pressed for the reader.

    Attributes:
        screen: Name of the screen on top.
        inspecting: True while the inspector is open.
        curve: Name of the number that the curve shows.
        token: Index of the token under the cursor, None without a cursor.
        scopes: Scopes of the keys that are heard, the nearest first.
        rows: Names of the parameters in order.
        row: The one under the cursor.
        typing: True while keys are text.
        typed: Text in the filter of a list.
        listed: Id of the line under the cursor of a list, "" without one.
    """

    screen: str
    inspecting: bool
    curve: str
    token: int | None
    scopes: Sequence[str] = ()
    rows: Sequence[str] = ()
    row: str = ""
    typing: bool = False
    typed: str = ""
    listed: str = ""


def facts(
    scene: Scene, session: Session, run_params: RunParams, before: int | None, answer: str = ""
) -> dict[str, Fact]:
    """Collects the facts.

    Args:
        scene: The screen.
        session: Has the run on the screen.
        run_params: Values of the next run.
        before: Id of the run that was on the screen when the step began.
        answer: The choice that was made, "" for none.
    """
    found: dict[str, Fact] = {
        "screen": scene.screen,
        "inspecting": scene.inspecting,
        "curve": scene.curve,
        "strategy": run_params.decoder.name,
        "answer": answer,
    }
    for param in run_params.decoder.params:
        value = run_params.value(param)[0]
        if isinstance(value, str | int | float):
            found[f"value.{param.name}"] = value
    if session.beside is not None:
        found["rival"] = session.beside.request.strategy
    run = session.current
    if run is None or run.started is None:
        return found
    found |= {"run": run.started.strategy, "ended": run.phase == "done", "new": run.id != before}
    for name, resolved in run.started.values.items():
        if isinstance(resolved.value, str | int | float):
            found[f"ran.{name}"] = resolved.value
    if run.transcript is not None and scene.token is not None and scene.token < len(run.transcript):
        found |= token_facts(run.transcript, scene.token)
    return found


def index_of(place: Place, transcript: Transcript) -> int | None:
    """Finds the token of the largest entropy ("flat"), or of the smallest; None in an empty text."""
    if not len(transcript):
        return None
    entropy = transcript.column("entropy")
    return int(entropy.argmax() if place == "flat" else entropy.argmin())


def token_facts(transcript: Transcript, index: int) -> dict[str, Fact]:
    """Collects the facts of a token."""
    token = transcript.token(index)
    own: dict[str, Fact] = {f"token.{name}": value for name, value in token.extras.items()}
    return own | {
        "token.p": math.exp(token.raw_logp),
        "token.entropy": token.entropy,
        "token.rank": token.rank + 1,
        "token.place": index / max(len(transcript) - 1, 1),
    }
