"""Defines the part of a run that other threads may reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_tui.engine.decode.param_table import ParamTable
    from edge_tui.engine.port import Request


@dataclass(slots=True)
class Run:
    """Holds what other threads may change of a queued or running generation."""

    id: int
    request: Request
    cancelled: bool = False
    table: ParamTable | None = None
