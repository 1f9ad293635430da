"""Reads the numbers that `tools/record_references.py` recorded of other programs."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.random import RandomState

from edge_tui.verify.distributions import Float32, logits

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Sampled:
    """Holds what a sampler made of logits, step by step; most have one step.

    Attributes:
        arguments: Of the sampler.
        before: Logits float32 `[V]` that it got.
        after: Logits float32 `[V]` that it left, −inf for removed tokens.
        history: Ids that it was told before, as far back as it looks.
        chosen: The id that it took at each step, if it takes one.
    """

    arguments: Mapping[str, float]
    before: tuple[Float32, ...]
    after: tuple[Float32, ...]
    history: tuple[int, ...]
    chosen: tuple[int, ...]


@cache
def document(program: str) -> Mapping[str, Any]:
    """Reads all that was recorded of a program: "llama_cpp" or "transformers"."""
    file = files("edge_tui.verify") / "recorded" / f"{program}.json"
    read: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return read


def unpack(text: str, dtype: type[np.generic]) -> NDArray[Any]:
    """Unpacks numbers from text."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype=dtype)


def sampled(sampler: str) -> list[Sampled]:
    """Lists the cases of one of llama.cpp's samplers."""
    return [_case(case) for case in document("llama_cpp")["cases"] if case["sampler"] == sampler]


def _case(case: Mapping[str, Any]) -> Sampled:
    size, steps = case["size"], len(case.get("chosen", [0]))
    # The inputs of a case follow from its number, as in the tool that recorded it.
    before = [logits(RandomState(case["seed"] + 1000 * at), size, case["kind"]) for at in range(steps)]
    kept = np.unpackbits(unpack(case["kept"], np.uint8), count=size * steps).astype(np.bool_)
    left = np.concatenate(before)[kept] if "logits" not in case else unpack(case["logits"], np.float32)
    after = np.full(size * steps, -np.inf, dtype=np.float32)
    after[kept] = left
    return Sampled(
        case["arguments"],
        tuple(before),
        tuple(after.reshape(steps, size)),
        tuple(case.get("history", ())[-int(case["arguments"].get("last_n", 0)) :]),
        tuple(case.get("chosen", ())),
    )
