"""Loads any other causal language model as a module of transformers, and quantises it.

Remote code is never run and weights come from safetensors alone.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from edge_tui.engine.checkpoints.weight_files import WeightsError
from edge_tui.engine.checkpoints.weights import SafetensorsReader, Weights
from edge_tui.engine.models.architectures import families, supports
from edge_tui.engine.models.base import ModelInfo
from edge_tui.engine.models.transformers_model import TransformersModel
from edge_tui.engine.models.weight_bytes import BUFFERS
from edge_tui.engine.ops.packed import PrecisionError
from edge_tui.engine.ops.quantisation import QUANTISATIONS, packer_of
from edge_tui.errors import Cancelled
from edge_tui.util import logs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from edge_tui.engine.checkpoints.checkpoint import Checkpoint
    from edge_tui.engine.ops.linear import Linear
    from edge_tui.engine.ops.quantisation import Packer


def load_transformers(
    checkpoint: Checkpoint,
    *,
    device: str,
    dtype: torch.dtype,
    precision: str,
    context: int = 0,
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    weights_from: Callable[..., Weights] | None = None,
) -> TransformersModel:
    """Loads a checkpoint through transformers, which reads a folder by itself unless `weights_from` does.

    Arguments and errors are otherwise those of `load_flat`. transformers reads in one go, so `progress` tells
    the beginning and the end, and `cancelled` is called before and after.
    """
    pack = packer_of(precision, device)
    with closing(checkpoint.open_tensors()) as tensors:  # refuses damaged files
        total = tensors.nbytes
        if cancelled is not None and cancelled():
            raise Cancelled
        if progress is not None:
            progress(0, total)
        if weights_from is None:
            module, packers = _read(checkpoint, device, dtype)
        else:
            module, packers = _filled(checkpoint, weights_from(tensors, device, dtype)), {}
    if cancelled is not None and cancelled():
        raise Cancelled
    if packers:
        quantise(module, lambda name: _stored_packer(name, packers), device)
    elif precision in QUANTISATIONS:
        quantise(module, lambda _name: pack, device)
    module.to(device)
    model = _model(module, checkpoint, device, dtype, precision, context)
    if progress is not None:
        progress(total, total)
    return model


def _model(
    module: Any, checkpoint: Checkpoint, device: str, dtype: torch.dtype, precision: str, context: int
) -> TransformersModel:
    """Makes the model and checks that it decodes step by step.

    Raises:
        PrecisionError, WeightsError: it does not.
    """
    text = module.config.get_text_config(decoder=True)
    limit = int(getattr(text, "max_position_embeddings", 0) or context or 2048)
    rope_limit = _rope_limit(text) or limit
    quantised = [m for m in module.modules() if isinstance(m, QuantisedLinear)]
    architectures = checkpoint.config.get("architectures") or [type(module).__name__]
    info = ModelInfo(
        name=checkpoint.name,
        architecture=str(architectures[0]),
        vocab=int(text.vocab_size),
        layers=0,
        tied=bool(getattr(text, "tie_word_embeddings", False)),
        context=min(context or limit, limit, rope_limit),
        parameters=int(module.num_parameters()) + sum(m.linear.parameters for m in quantised),
        weight_bytes=sum(p.nbytes for p in module.parameters()) + sum(m.linear.nbytes for m in quantised),
        kv_bytes=0,
        dtype=str(dtype).removeprefix("torch."),
        precision=precision,
        device=device,
        tier="transformers",
    )
    try:
        model = TransformersModel(module, info)
    except (AttributeError, TypeError, NotImplementedError) as error:
        if precision in QUANTISATIONS:
            raise PrecisionError(
                f"{architectures[0]} reads its matrices directly, so it cannot run in {precision}: "
                "choose bfloat16."
            ) from error
        raise WeightsError(
            f"{architectures[0]} keeps its state in a way that is not supported ({error})."
        ) from error
    if rope_limit < limit:
        reason = f"Rotary factors of {architectures[0]} change beyond {rope_limit:,} positions:"
        reason = f"{model.caps.reason} {reason} its context ends there.".strip()
        model.caps = replace(model.caps, reason=reason)
    return model


def _rope_limit(text: Any) -> int:
    """Returns the positions up to which no rotary factor changes with the length read; 0 without a bound.

    transformers would change those of a long rope in the midst of a run, under the keys that are kept. The
    dynamic ones change at the model's own limit, where every context ends.
    """
    stated = getattr(text, "rope_parameters", None) or {}
    ropes = [rope for rope in (stated, *stated.values()) if isinstance(rope, dict)]
    long = [rope for rope in ropes if rope.get("rope_type") == "longrope"]
    return int(min((rope["original_max_position_embeddings"] for rope in long), default=0))


class QuantisedLinear(nn.Module):
    """Puts a quantised matrix in the place of a module's own."""

    def __init__(self, linear: Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        """Multiplies `[…, K]` by the packed matrix."""
        y: Tensor = self.linear(x.reshape(-1, x.shape[-1]).contiguous())
        return y.view(*x.shape[:-1], -1)


def _stored_packer(name: str, packers: Mapping[str, Packer | None]) -> Packer | None:
    """Returns what packs a matrix as it was stored; None for one that was not quantised."""
    # transformers renames some matrices while it loads them, at the beginning of their names.
    same = (pack for stored, pack in packers.items() if stored.endswith(name) or name.endswith(stored))
    return next(same, None)


def quantise(module: nn.Module, packer: Callable[[str], Packer | None], device: str) -> None:
    """Replaces every matrix but the head, one at a time, so that the device never holds them all wide."""
    from transformers.pytorch_utils import Conv1D

    get_head = getattr(module, "get_output_embeddings", None)
    head = get_head() if get_head is not None else None
    for name, child in list(module.named_modules()):
        if child is head or not isinstance(child, nn.Linear | Conv1D) or (pack := packer(name)) is None:
            continue
        weight, bias = child.weight.detach(), child.bias
        if isinstance(child, Conv1D):  # GPT-2 stores its matrices the other way round
            weight = weight.t().contiguous()
        bias = bias.detach().to(device) if bias is not None else None
        module.set_submodule(name, QuantisedLinear(pack(weight.to(device), bias)))


def _read(checkpoint: Checkpoint, device: str, dtype: torch.dtype) -> tuple[Any, dict[str, Packer | None]]:
    """Reads the module, and what packs those of its matrices again that were stored quantised, by name."""
    import transformers

    path, config = checkpoint.path, checkpoint.config
    # Both write to the terminal that the screen is drawn on.
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    own: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    options: dict[str, Any] = {"dtype": dtype, "output_loading_info": True, "ignore_mismatched_sizes": True}
    try:
        plain = transformers.AutoConfig.from_pretrained(path, **own)
        if getattr(plain.get_text_config(decoder=True), "attn_logit_softcapping", None):
            options["attn_implementation"] = "eager"  # before 5.23 the default leaves the cap out, silently
        if config.get("quantization_config"):
            del plain.quantization_config
            with torch.device("meta"):
                skeleton = transformers.AutoModelForCausalLM.from_config(plain)
            with closing(SafetensorsReader(checkpoint.name, path)) as reader:
                packers = {
                    name.removesuffix(".weight"): reader.packer(name, device) for name in reader.quantised
                }
                tensors = {name: _unpacked(reader, name, skeleton, dtype) for name in reader.names()}
            model_class = type(skeleton)
            module, report = model_class.from_pretrained(None, config=plain, state_dict=tensors, **options)
        else:
            packers, model_class = {}, transformers.AutoModelForCausalLM
            module, report = model_class.from_pretrained(path, use_safetensors=True, **own, **options)
    except ImportError as error:
        raise PrecisionError(
            f"{path.name} needs a package that is not installed: {logs.first_line(error)}."
        ) from error
    except (WeightsError, PrecisionError):
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"transformers cannot load {path.name}: {_reason(config, error)}") from error
    if missing := sorted(report["missing_keys"]):
        raise WeightsError(f"{path.name} has no tensor {missing[0]}: its shards are incomplete.")
    if mismatched := sorted(report["mismatched_keys"]):
        name, stored, expected = mismatched[0]
        raise WeightsError(
            f"{name} of {path.name} has shape {list(stored)}, but config.json wants {list(expected)}."
        )
    unread = (name for name in sorted(report["unexpected_keys"]) if not BUFFERS.search(name))
    if _is_known(config) and (name := next(unread, "")):  # other classes have files for more than a decoder
        raise WeightsError(
            f"{path.name} has a tensor {name}, which no {config['architectures'][0]} of its config.json has: "
            "that is of another model."
        )
    return module.eval().requires_grad_(False), packers


def _filled(checkpoint: Checkpoint, weights: Weights) -> Any:
    """Builds the module of a folder's configuration on a device, and fills it with other weights."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(
        checkpoint.path, trust_remote_code=False, local_files_only=True
    )
    with torch.device(weights.device):
        module = transformers.AutoModelForCausalLM.from_config(config, dtype=weights.dtype)
    module = module.eval().requires_grad_(False)
    for name, parameter in module.named_parameters():
        parameter.copy_(weights.read(name, tuple(parameter.shape)))
    return module


def _unpacked(reader: SafetensorsReader, name: str, skeleton: nn.Module, dtype: torch.dtype) -> Tensor:
    """Reads a tensor as the module wants it, in the compute dtype if it was quantised."""
    if name not in reader.quantised:
        return reader.read(name)
    matrix = reader.read(name).to(dtype)
    owner = dict(skeleton.named_modules()).get(name.removesuffix(".weight"))
    return matrix.t().contiguous() if type(owner).__name__ == "Conv1D" else matrix


def _is_known(config: Mapping[str, Any]) -> bool:
    """Tells whether the flat decoder has the class that a config names, if not all that it asks for."""
    stated = config.get("architectures") or [""]
    return any(family.architecture == stated[0] for family in families().values())


def _reason(config: Mapping[str, Any], error: BaseException) -> str:
    """Tells why transformers cannot load a checkpoint, or what the config of a family we know lacks."""
    if _is_known(config) and not config.get("quantization_config") and (reason := supports(config)):
        return f"{reason}."
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if isinstance(error, KeyError) and error.args and error.args[0] in dict(rope).values():
        return f"its rotary scaling {error.args[0]!r} is unknown."
    return f"{logs.first_line(error)}."
