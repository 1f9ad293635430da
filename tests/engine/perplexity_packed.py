"""Measures what packed codes cost on English text: `python -m tests.engine.perplexity_packed MODEL.gguf`.

The model is requantised to each kind, and the file decoded as it ships (`auto`) and with its dequantised
weights in the same precision and in float32. One line a kind: the three perplexities, and by how much the
first is off. The text is the whole licence of the package `hypothesis`, the Mozilla Public License 2.0, some
3,500 tokens; it was chosen before anything was measured on it.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import torch
from gguf import GGMLQuantizationType as Type

from edge_tui.engine.checkpoints.checkpoint import open_checkpoint
from edge_tui.engine.models.loader import load
from edge_tui.engine.port import ModelSpec
from tests.engine.checkpoints.gguf.files import PACKED
from tests.engine.requantise import requantise

CONTEXT = 4096


def english(name: str) -> torch.Tensor:
    """Returns the text's ids `[1, T]` by the tokenizer of a model."""
    files = distribution("hypothesis").files or ()
    text = next(file for file in files if file.name == "LICENSE.txt").read_text(encoding="utf-8")
    return torch.tensor(open_checkpoint(name).read_tokenizer().encode(text).ids[:CONTEXT])[None]


@torch.inference_mode()
def loss(model: Any, ids: torch.Tensor, tokens: int) -> float:
    """Returns the mean loss of a text in nats, read so many tokens at a time."""
    context = model.open(1, CONTEXT)
    ids = ids.to(model.info.device)
    total = 0.0
    for at in range(0, ids.shape[1] - 1, tokens):
        piece, after = ids[:, at : at + tokens], ids[0, at + 1 : at + tokens + 1]
        logits = model.forward(context, piece).logits[0, : len(after)].float()
        total -= float(logits.log_softmax(-1).gather(1, after[:, None]).double().sum())
    return total / (ids.shape[1] - 1)


def losses(file: Path, ids: torch.Tensor, device: str) -> dict[str, float]:
    """Measures a file as it ships, and dequantised in the same precision and in float32, in this order.

    A GPU reads 16 tokens at a time, as many as its product takes with codes.
    """
    tokens = 16 if device.startswith("cuda") else 96
    shipped = load(ModelSpec(str(file), "auto", device, CONTEXT)).model
    found, same = {shipped.info.precision: loss(shipped, ids, tokens)}, shipped.info.dtype
    del shipped
    for name in dict.fromkeys((same, "float32")):
        found[name] = loss(load(ModelSpec(str(file), name, device, CONTEXT)).model, ids, tokens)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--device", default="cpu")
    kinds = [kind.name for kind in PACKED]
    parser.add_argument("--kinds", type=lambda text: text.split(","), default=kinds)
    asked = parser.parse_args()
    ids, rows = english(str(asked.model)), {}
    print(f"{ids.shape[1]:,} tokens", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for kind in asked.kinds:
            file = requantise(asked.model, Type[kind], Path(folder) / f"{kind}.gguf")
            rows[kind] = found = losses(file, ids, asked.device)
            each = [f"{name} {torch.tensor(value).exp():.4f}" for name, value in found.items()]
            shipped, *others = found.values()
            off = [f"{shipped - value:+.3%}" for value in others]
            print(f"{kind:5} {', '.join(each)}: off by {', '.join(off)}", flush=True)
            if out := os.environ.get("OUT"):
                (Path(out) / "perplexity_packed.json").write_text(json.dumps(rows, indent=1))
            file.unlink()


if __name__ == "__main__":
    main()
