"""Compares two runs: the tokens that they share, and the settings in which they differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_tui.history.formats.facts import value_text
from edge_tui.history.runs import prompt_of
from edge_tui.transcript.draw_conditions import Side
from edge_tui.transcript.parting import common_length

if TYPE_CHECKING:
    from edge_tui.engine.port import Request
    from edge_tui.history.runs import StoredRun
    from edge_tui.transcript.transcript import Transcript


@dataclass(frozen=True, slots=True)
class Difference:
    """Holds a setting in which two runs differ; "" where a run has none."""

    name: str
    first: str
    second: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Holds what two runs have in common and what not.

    Attributes:
        settings: Different settings, in the order in which they take effect.
        common_length: Leading tokens that are the same.
        diverges: True where both go on after those, each with a token of its own.
    """

    settings: tuple[Difference, ...]
    common_length: int
    diverges: bool

    @property
    def verdict(self) -> str:
        """One sentence."""
        if not self.diverges:
            return f"No token differs in the {self.common_length:,} that both have."
        if not self.common_length:
            return "They differ from the first token on."
        same = "first token is" if self.common_length == 1 else f"first {self.common_length:,} tokens are"
        return f"The {same} the same; they part at #{self.common_length:,}."


def side_of(stored: StoredRun, transcript: Transcript) -> Side:
    """Makes a side of a comparison of a stored run and its tokens."""
    return Side(stored.request, transcript, stored.models)


def compare(one: Side, other: Side) -> Comparison:
    """Compares two runs by their settings and by the ids of their tokens.

    Args:
        one: A run.
        other: Another.
    """
    common = common_length(one.transcript, other.transcript)
    shorter = min(len(one.transcript), len(other.transcript))
    here, there = _settings(one), _settings(other)
    differences = tuple(
        Difference(name, here.get(name, ""), there.get(name, ""))
        for name in here | there
        if here.get(name, "") != there.get(name, "")
    )
    return Comparison(differences, common, diverges=common < shorter)


def _settings(side: Side) -> dict[str, str]:
    """Lists the settings of a run as texts, by name."""
    request, started = side.request, side.transcript.started
    found = {"prompt": prompt_of(request)}
    if side.models:
        main = next(iter(side.models.values()))
        found |= {"model": main.name, "precision": main.precision, "device": main.device}
    found |= _conversation(request)
    found["strategy"] = started.strategy
    found |= {name: value_text(resolved.value) for name, resolved in started.values.items()}
    found |= {"seed": str(started.seed), "max_length": str(request.max_length)}
    found["stop"] = " | ".join(map(repr, request.stop))
    found["control_tokens"] = str(request.control_tokens)
    changes = [f"{each.name} {value_text(each.value)} from {each.index}" for each in side.transcript.changes]
    return found | {"turned": ", ".join(changes)}


def _conversation(request: Request) -> dict[str, str]:
    if isinstance(request.prompt, str):
        return {"system": request.system, "chat": str(request.chat)}
    turns = [f"{turn.role}: {turn.content}" for turn in request.prompt[:-1]]
    return {"system": request.system, "earlier turns": "\n".join(turns)}
