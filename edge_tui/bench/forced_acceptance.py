"""Speculative decoding at an acceptance that is imposed: a harness for what an ideal engine would reach.

How often a draft is right is a matter of two models; what a step costs is the engine's. With random weights
nothing would be accepted, so here chance alone decides, at a rate that is known, and the rest is the strategy
that users get. An ideal engine writes `(1 − α^(k+1)) / (1 − α)` tokens in `k · t_draft + t_verify` seconds.
"""

from __future__ import annotations

from pathlib import Path

from edge_tui import decoders

RATES = (0.6, 0.8, 0.95)
LOOKAHEAD = 4

_SOURCE = '''"""Speculative decoding whose proposals are accepted by chance alone."""

from edge_tui.decoders.speculative import Speculative


class Imposed{percent}(Speculative):
    name = "{name}"
    title = "{name}"
    summary = "Accepts {percent} % of the proposals, whatever they are."
    rank = 200
    imposed = {rate}
'''


def name_of(rate: float) -> str:
    """The strategy's name for an acceptance."""
    return f"imposed_{round(100 * rate)}"


def register(folder: Path) -> None:
    """Makes the imposed strategies known to this process, as files of a user would be."""
    folder.mkdir(parents=True, exist_ok=True)
    for rate in RATES:
        name = name_of(rate)
        source = _SOURCE.format(percent=round(100 * rate), name=name, rate=rate)
        (folder / f"{name}.py").write_text(source, encoding="utf-8")
    decoders.load([*decoders.folders(), folder])


def tokens_a_step(rate: float, lookahead: int = LOOKAHEAD) -> float:
    """Tokens that a step gives on average: the accepted ones and the one that follows."""
    return (1 - rate ** (lookahead + 1)) / (1 - rate)
