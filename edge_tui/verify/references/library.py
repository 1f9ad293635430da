"""Calls transformers' classes for single stages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_tui.verify.references.kinds import Peer, Values

if TYPE_CHECKING:
    import torch

    from edge_tui.verify.outcome import Context


def warper(name: str, param: str, neutral: float) -> Peer:
    """Makes a peer of a class of transformers that takes one number, and is left out if neutral."""

    def call(z: torch.Tensor, v: Values, context: Context) -> torch.Tensor | None:
        import transformers

        number: float = int(v[param]) if param == "top_k" else v[param]
        if number == neutral:
            return z
        try:
            warper = getattr(transformers, name)(number)
        except ValueError:
            return None  # a number that the class refuses
        warped: torch.Tensor = warper(None, z)
        return warped

    return Peer(f"transformers {name}", call)
