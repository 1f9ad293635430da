"""Measures what packed codes cost on English text: `python -m tests.engine.perplexity_packed MODEL.gguf`.

The model is requantised to each kind, and decoded as it ships (`auto`) and with its dequantised weights in
the same precision. One line a kind: both perplexities, by how much the first is off (token by token, with the
standard error), and how far its distributions are from those in float32. The text is the beginning of
Python's own reference, as `help()` shows it: long enough for a standard error below a third of what is looked
for.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from pydoc_data.topics import topics
from typing import TYPE_CHECKING, Any

import torch
from gguf import GGMLQuantizationType as Type
from safetensors.torch import load_file

from edge_tui.engine.checkpoints.checkpoint import open_checkpoint
from edge_tui.engine.models.loader import load
from edge_tui.engine.port import ModelSpec
from tests.engine.checkpoints.coded import Coding, store_coded
from tests.engine.checkpoints.gguf.files import PACKED
from tests.engine.random_checkpoints import dequantise_bitsandbytes, save_tensors, store_bitsandbytes
from tests.engine.requantise import requantise
from tools import dequantise_smollm2

if TYPE_CHECKING:
    from collections.abc import Callable

CONTEXT = 1024
PIECES = 32
"""How many texts of `CONTEXT` tokens are read, each by itself."""
STORES: dict[str, tuple[torch.dtype, Callable[[Path], Path]]] = {
    "AWQ": (torch.float16, lambda folder: store_coded(folder, Coding("awq", group=128))),
    "GPTQ": (torch.float16, lambda folder: store_coded(folder, Coding("gptq", group=128))),
    "NF4": (torch.bfloat16, lambda folder: store_bitsandbytes(folder, "nf4")),
}
"""Writes the matrices of a folder's layers as codes in place, by kind; and the type of the other tensors."""


def english(name: str) -> torch.Tensor:
    """Returns the texts' ids `[PIECES, CONTEXT]` by the tokenizer of a model."""
    text = "\n\n".join(topics[name] for name in sorted(topics))
    ids = open_checkpoint(name).read_tokenizer().encode(text[: 8 * PIECES * CONTEXT]).ids
    return torch.tensor(ids[: PIECES * CONTEXT]).view(PIECES, CONTEXT)


@torch.inference_mode()
def token_losses(model: Any, ids: torch.Tensor, tokens: int) -> torch.Tensor:
    """Returns the loss of each token but the first of each text in nats, read so many at a time."""
    found = []
    for text in ids.to(model.info.device).split(1):
        context = model.open(1, CONTEXT)
        for at in range(0, text.shape[1] - 1, tokens):
            piece, after = text[:, at : at + tokens], text[0, at + 1 : at + tokens + 1]
            logits = model.forward(context, piece).logits[0, : len(after)].float()
            found.append(-logits.log_softmax(-1).gather(1, after[:, None])[:, 0].double())
    return torch.cat(found).cpu()


def write(source: Path, kind: str, folder: Path) -> tuple[Path, Path]:
    """Writes a GGUF file again in a kind.

    Returns:
        What holds the codes, and what holds the weights that they stand for: the same but for NF4, which
        stays as it is stored.
    """
    file = folder / "model.gguf"
    if kind not in STORES:
        return requantise(source, Type[kind], file), file
    dtype, store = STORES[kind]
    stored = folder / "stored"
    dequantise_smollm2.write(requantise(source, Type.F32, file), stored)
    tensors = load_file(stored / "model.safetensors")
    save_tensors(stored, {name: tensor.to(dtype) for name, tensor in tensors.items()})
    store(stored)
    return stored, dequantise_bitsandbytes(stored, folder / "plain") if kind == "NF4" else stored


def losses(shipped: Path, plain: Path, ids: torch.Tensor, device: str) -> dict[str, torch.Tensor]:
    """Measures codes as they ship, and their weights in the same precision, in this order.

    A GPU reads 16 tokens at a time, as many as its product takes with codes.
    """
    tokens = 16 if device.startswith("cuda") else 96
    model = load(ModelSpec(str(shipped), "auto", device, CONTEXT)).model
    found, same = {model.info.precision: token_losses(model, ids, tokens)}, model.info.dtype
    del model
    found[same] = token_losses(load(ModelSpec(str(plain), same, device, CONTEXT)).model, ids, tokens)
    return found


@torch.inference_mode()
def divergence(shipped: Path, plain: Path, ids: torch.Tensor, device: str) -> torch.Tensor:
    """Returns the divergence (Kullback and Leibler's) of each token's distribution from that in float32.

    It is by how much the loss grows on text that is as the model expects it, and a twentieth as uncertain as
    the difference of two losses.
    """
    specs = (
        ModelSpec(str(plain), "float32", device, CONTEXT),
        ModelSpec(str(shipped), "auto", device, CONTEXT),
    )
    models = [load(spec).model for spec in specs]
    found = []
    for text in ids.to(device).split(1):
        contexts = [model.open(1, CONTEXT) for model in models]
        for piece in text.split(16 if device.startswith("cuda") else 96, 1):
            outs = (model.forward(ctx, piece) for model, ctx in zip(models, contexts, strict=True))
            exact, shipped = (out.logits[0].float().log_softmax(-1) for out in outs)
            found.append((exact.exp() * (exact - shipped)).sum(-1).double())
    return torch.cat(found).cpu()


def mean_of(values: torch.Tensor) -> str:
    """Writes the mean of a text's tokens, with its standard error."""
    return f"{float(values.mean()):+.3%} ± {float(values.std()) / len(values) ** 0.5:.3%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--device", default="cpu")
    kinds = [*(kind.name for kind in PACKED), *STORES]
    parser.add_argument("--kinds", type=lambda text: text.split(","), default=kinds)
    asked = parser.parse_args()
    ids, rows = english(str(asked.model)), {}
    print(f"{ids.numel():,} tokens", flush=True)
    for kind in asked.kinds:
        with tempfile.TemporaryDirectory() as folder:
            files = write(asked.model, kind, Path(folder))
            found = losses(*files, ids, asked.device)
            rows[kind] = {name: float(values.mean()) for name, values in found.items()}
            each = [f"{name} {float(values.mean().exp()):.4f}" for name, values in found.items()]
            shipped, same = found.values()
            apart = mean_of(divergence(*files, ids[:4], asked.device))
            print(
                f"{kind:5} {', '.join(each)}: off by {mean_of(shipped - same)}; divergence {apart}",
                flush=True,
            )
            if out := os.environ.get("OUT"):
                (Path(out) / "perplexity_packed.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
