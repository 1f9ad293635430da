"""Holds the references of searches: `generate()`'s arguments, recorded runs, chances on toy models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_tui.verify.references.contrastive_search import contrastive_search
from edge_tui.verify.references.kinds import RunReference, SearchReference, ToySearch, Values
from edge_tui.verify.references.toy_searches import BEAMS, drawn_answers, drawn_beams

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


def _diverse_beam(options: Mapping[str, Any]) -> Values:
    return {name: float(value) for name, value in options.items()}


_TEMPERATURE = 1.5
_DRAWN_BEAMS = ToySearch(
    vocab=4,
    length=3,
    values={"num_beams": float(BEAMS), "temperature": _TEMPERATURE, "length_penalty": 0.0},
    answers=1,
    chances=lambda logp: drawn_beams(logp, 3, _TEMPERATURE),
)
_DRAWN_ANSWERS = ToySearch(
    vocab=3,
    length=3,
    values={"num_beams": float(BEAMS)},
    answers=BEAMS,
    chances=lambda logp: drawn_answers(logp, 3),
)

SEARCHES: dict[str, SearchReference | RunReference] = {
    "beam": SearchReference(_beam, _wide),
    "beam_sample": SearchReference(
        _beam,
        _wide,
        {"temperature": 0.0},
        _DRAWN_BEAMS,
        ("transformers divides all scores by the temperature, and filters after it.",),
    ),
    "stochastic_beam": SearchReference(draws=_DRAWN_ANSWERS),
    "diverse_beam": RunReference("diverse_beam", _diverse_beam),
    "contrastive_search": RunReference("contrastive_search", _contrastive_search, contrastive_search),
}
