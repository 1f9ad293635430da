"""Describes the pieces that a step is launched in, and captured in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edge_tui.decoders.base import Output
    from edge_tui.engine.decode.stream_groups import StreamGroup


@dataclass(frozen=True, slots=True)
class Piece:
    """Describes a part of `StepRunner.forward`.

    Attributes:
        run: Does it.
        group: The streams whose whole forward it is, and nothing else; None for others.
        captured: True where it is work of the strategy's device alone, and so a graph of it can be.
    """

    run: Callable[[], None]
    group: StreamGroup | None = None
    captured: bool = True


class CapturedStep(Protocol):
    """Replays a step's pieces; `edge_tui.engine.decode.cuda_graphs.Graphs` captures them."""

    @property
    def outputs(self) -> Mapping[str, Output]:
        """Each stream's logits that its choice reads."""

    def replay(self, alone: bool) -> None:
        """Issues one step; `alone` leaves out the forward after the choice."""

    def forward(self) -> None:
        """Issues the forwards alone."""
