"""Trains a demo model until its time is used up, and exports it; a run that was stopped can be continued."""

from __future__ import annotations

import json
import math
import multiprocessing
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tools.demo.model import CONTEXT, NORM_EPS, ROPE_THETA, LanguageModel, Shape
from tools.demo.texts import EOS

_AT_ONCE = 32
"""Windows that are validated at once."""


def optimizers(model: LanguageModel, rate: float) -> list[torch.optim.Optimizer]:
    """Makes Muon for the matrices inside the blocks, AdamW for the embedding and the norms."""
    matrices = [p for p in model.layers.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    muon = torch.optim.Muon(matrices, lr=rate, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    groups = [
        {"params": [model.embed_tokens.weight], "weight_decay": 0.1},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return [muon, torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95))]


def schedule(progress: float) -> float:
    """Computes the learning-rate factor: a short warm-up, a plateau, then a slide to zero."""
    return max(0.0, min(1.0, progress / 0.01, (1 - progress) / 0.6))


@torch.no_grad()
def validate(model: LanguageModel, ids: Tensor, size: int, precision: Any) -> float:
    """Computes rough bits per byte over consecutive windows (``evaluate`` is the exact measure)."""
    model.eval()
    whole = (len(ids) - 1) // CONTEXT
    offsets = torch.arange(CONTEXT + 1, device=ids.device)
    starts = torch.arange(whole, device=ids.device).unsqueeze(1) * CONTEXT
    batches = [ids[starts[at : at + _AT_ONCE] + offsets] for at in range(0, whole, _AT_ONCE)]
    nats = 0.0
    for windows in (*batches, ids[None, whole * CONTEXT :]):
        if count := windows[:, 1:].numel():
            with precision:
                nats += model(windows).item() * count
    model.train()
    return nats / math.log(2) / size


@dataclass(frozen=True, slots=True)
class Plan:
    """Holds what decides on a training.

    Attributes:
        minutes: Of the expert, over all calls; the others are trained beside it.
        batch: Windows of a step.
        rate: Peak learning rate.
        dropout: Of the expert.
        until: The end of this call, by `time.monotonic`; what is left is for the next.
    """

    minutes: float
    batch: int
    rate: float
    dropout: float
    until: float = math.inf


def train_all(shapes: Mapping[str, Shape], work: Path, out: Path, plan: Plan) -> bool:
    """Trains all models at once, each in a process of its own; where there are two GPUs the first has one.

    Returns:
        False if one failed, or if the call's time ended first.
    """
    context = multiprocessing.get_context("spawn")
    trainings = [
        context.Process(target=train, args=(name, shape, work, out, plan, number))
        for number, (name, shape) in enumerate(shapes.items())
    ]
    for process in trainings:
        process.start()
    for process in trainings:
        process.join()
    return not any(process.exitcode for process in trainings)


def train(name: str, shape: Shape, work: Path, out: Path, plan: Plan, number: int = 0) -> None:
    """Trains one model until its share of the time is used up, then exports its best weights.

    Raises:
        SystemExit: the call's time ended first; state is kept, nothing is exported.
    """
    begun = time.monotonic()
    device = torch.device("cpu")
    if torch.cuda.is_available():
        others = torch.cuda.device_count() - 1
        device = torch.device("cuda", 1 + (number - 1) % others if number and others else 0)
        torch.cuda.set_device(device)
    budget = shape.time_share * plan.minutes * 60
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    on_gpu = device.type == "cuda"
    precision = torch.autocast("cuda", torch.bfloat16) if on_gpu else nullcontext()
    data, held = (torch.load(work / f"{s}.tokens.pt") for s in ("train", "validation"))
    ids: Tensor
    ids, held_ids = data["ids"].to(device), held["ids"].long().to(device)

    model = LanguageModel(shape, plan.dropout if name == "expert" else 0.0).to(device)
    opts = optimizers(model, plan.rate)
    step, spent, best, best_weights = 0, 0.0, math.inf, model.state_dict()
    checkpoint = work / f"{name}.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device)
        model.load_state_dict(state["model"])
        for opt, saved in zip(opts, state["optimizers"], strict=True):
            opt.load_state_dict(saved)
        step, spent, best, best_weights = (state[k] for k in ("step", "spent", "best", "weights"))
    torch.manual_seed(step)  # a continued run draws new windows
    offsets = torch.arange(CONTEXT + 1, device=device)

    def windows() -> Tensor:
        starts = torch.randint(len(ids) - CONTEXT, (plan.batch, 1), device=device)
        return ids[starts + offsets].long()

    compiled = model
    if on_gpu:
        compiled = _compile(model, windows(), precision)
        # What preparing took is no training, nor is it on top; half of the time is for training in any case.
        budget = max(budget - (time.monotonic() - begun), budget / 2)
    count = sum(p.numel() for p in model.parameters())
    print(f"{name}: {count:,} parameters, {budget - spent:.0f} s on {device}", flush=True)

    previous, next_report = time.monotonic(), spent
    while spent < budget:
        for group in (group for opt in opts for group in opt.param_groups):
            group["lr"] = plan.rate * schedule(spent / budget)
        with precision:
            loss = compiled(windows())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for opt in opts:
            opt.step()
            opt.zero_grad()
        step += 1
        if on_gpu and step % 20 == 0:
            torch.cuda.synchronize()  # keeps the clock honest
        spent, previous = spent + time.monotonic() - previous, time.monotonic()
        paused = time.monotonic() >= plan.until
        if paused or spent >= min(next_report, budget):
            bits = validate(model, held_ids, held["bytes"], precision)
            if bits < best:
                best = bits
                best_weights = {k: v.detach().clone() for k, v in model.state_dict().items()}
            seen = step * plan.batch * CONTEXT
            print(
                f"{name} {spent:6.1f} s  step {step:6d}  {seen / 1e6:6.1f} M tokens"
                f"  epoch {seen / len(ids):5.1f}"
                f"  loss {loss.item():.3f}  validation {bits:.4f} bits/byte",
                flush=True,
            )
            state = {"model": model.state_dict(), "optimizers": [o.state_dict() for o in opts]}
            state |= {"step": step, "spent": spent, "best": best, "weights": best_weights}
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)  # never half a checkpoint
            next_report = spent + budget / 24
        if paused and spent < budget:
            print(f"{name}: {budget - spent:.0f} s are left for the next call", flush=True)
            raise SystemExit(3)
    export(shape, best_weights, work / "tokenizer.json", out / name)


def _compile(model: LanguageModel, ids: Tensor, precision: Any) -> Any:
    """Compiles a model and runs it once, or gives it back as it is where that fails."""
    compiled = torch.compile(model)
    try:
        with precision:
            loss = compiled(ids)
        loss.backward()
    except RuntimeError as error:
        print(f"Not compiled: {error}", flush=True)
        compiled = model
    model.zero_grad()
    return compiled


def export(shape: Shape, weights: dict[str, Tensor], tokenizer: Path, out: Path) -> None:
    """Writes one model as a Hugging Face folder with weights in bfloat16."""
    from safetensors.torch import save_file

    out.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{k}": v.detach().to("cpu", torch.bfloat16) for k, v in weights.items()}
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    sizes = {k: v for k, v in asdict(shape).items() if k != "time_share"}
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **sizes,
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": NORM_EPS,
        "rope_theta": ROPE_THETA,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": 0,
        "torch_dtype": "bfloat16",
    }
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": EOS,
        "pad_token": EOS,
        "model_max_length": CONTEXT,
        "clean_up_tokenization_spaces": False,
    }
    generation_config = {"eos_token_id": 0, "pad_token_id": 0}
    for file, content in (
        ("config.json", config),
        ("tokenizer_config.json", tokenizer_config),
        ("generation_config.json", generation_config),
    ):
        (out / file).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    (out / "tokenizer.json").write_bytes(tokenizer.read_bytes())
