"""Says how transformers' `generate()` searches as our strategies do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_tui.verify.references.contrastive_search import contrastive_search
from edge_tui.verify.references.kinds import RunReference, SearchReference, Values

_STOPPING = (False, True, "never")
"""What `early_stopping` is there, by our choice's index."""


def _beam(v: Values) -> Mapping[str, Any] | None:
    if v["presence_penalty"] or v["frequency_penalty"]:
        return None
    return {
        "do_sample": False,
        "num_beams": int(v["num_beams"]),
        "early_stopping": _STOPPING[int(v["early_stopping"])],
        "length_penalty": v["length_penalty"],
        "repetition_penalty": v["repetition_penalty"],
    }


def _wide(vocab: int, length: int) -> Values:
    return {"num_beams": float(vocab ** (length - 1)), "length_penalty": 0.0}


def _contrastive_search(options: Mapping[str, Any]) -> Values:
    return {"penalty_alpha": options["penalty_alpha"], "num_candidates": float(options["top_k"])}


SEARCHES: dict[str, SearchReference | RunReference] = {
    "beam": SearchReference(_beam, _wide),
    "contrastive_search": RunReference("contrastive_search", _contrastive_search, contrastive_search),
}
