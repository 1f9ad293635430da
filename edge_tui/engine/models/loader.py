"""Loads a model by its name: finds it, checks that it fits, chooses tier and precision.

Importing this module loads no torch.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge_tui.decoders.core.random import MOST_TOKENS
from edge_tui.engine.checkpoints.checkpoint import Checkpoint, CheckpointError, open_checkpoint
from edge_tui.engine.models.architectures import flat_config, supports
from edge_tui.engine.models.device_memory import release_cached_memory
from edge_tui.engine.models.memory_estimate import (
    UNLIMITED,
    context_to_reserve,
    estimate,
    keeps_codes,
    resolve_precision,
)
from edge_tui.engine.models.weight_bytes import has_coded_head
from edge_tui.engine.ops.packed import CodeFault
from edge_tui.engine.ops.quantisation import QUANTISATIONS
from edge_tui.engine.out_of_memory import is_out_of_memory
from edge_tui.engine.text import chat_template
from edge_tui.engine.text.strategy_tokenizer import StrategyTokenizer
from edge_tui.engine.text.tokenizer import Tokenizer
from edge_tui.errors import EdgeError
from edge_tui.machine.devices import best_device, free_memory, resolve_device
from edge_tui.util import logs
from edge_tui.util.formatting import size

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_tui.engine.checkpoints.weights import Weights
    from edge_tui.engine.models.base import LanguageModel
    from edge_tui.engine.port import ModelSpec

PRECISIONS = ("auto", "float32", "bfloat16", "float16", *QUANTISATIONS)
_NOT_QUANTISED = "a mixture of experts, which are not quantised here: choose bfloat16."
_STACKED = 0.25
"""Share of the weights beyond which tensors of three dimensions are no gates."""
_BF16_CAPABILITY = (8, 0)
"""First NVIDIA generation (Ampere) that computes bfloat16."""


class LoadError(EdgeError):
    """Refuses a model that cannot be loaded here and now, in one sentence."""

    code = "load"


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """Holds a model that is ready to decode.

    Attributes:
        model: The weights behind the tier's interface.
        tokenizer: The tokenizer.
        strategy_tokenizer: The same as strategies see it.
        checkpoint: The folder's description of itself.
        context: Positions to reserve: as requested, or the model's own limit as far as memory allows.
        notices: Sentences for the user: limits of the tier, choices made for them.
    """

    model: LanguageModel
    tokenizer: Tokenizer
    strategy_tokenizer: StrategyTokenizer
    checkpoint: Checkpoint
    context: int
    notices: tuple[str, ...] = ()


def load(
    spec: ModelSpec,
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    weights_from: Callable[..., Weights] | None = None,
) -> LoadedModel:
    """Loads a model, on the calling thread.

    Args:
        spec: The weights, the precision and the device.
        progress: Called with (bytes read, bytes in all).
        cancelled: Asked between tensors.
        weights_from: Makes the flat decoder's weights in place of `Weights`, called as that is.

    Raises:
        CheckpointError: there is no such checkpoint, or it is not one that can be used.
        LoadError: it does not fit, the device is not there, or the precision does not work on it.
        Cancelled: `cancelled()` said so; the memory is free again.
    """
    checkpoint = open_checkpoint(spec.name)
    tier_of(checkpoint)
    chat_template.prepare(checkpoint)
    tokenizer = Tokenizer.open(checkpoint)
    _check_vocabulary(checkpoint, min(checkpoint.vocab, tokenizer.size))
    device, notices = _device(spec.device)
    _check_precision(checkpoint, spec.precision, device)
    precision, dtype = resolve_precision(checkpoint, spec.precision, device)
    if dtype == "bfloat16" and spec.precision != "bfloat16" and not _gpu_has_bfloat16(device):
        precision, dtype = ("float16" if precision == "bfloat16" else precision), "float16"
        notices.append(f"{device} has no bfloat16: computing in float16.")
    context, limits = _context(checkpoint, spec, precision, device)
    options: dict[str, Any] = {"progress": progress, "cancelled": cancelled}
    if weights_from is not None:
        options["weights_from"] = weights_from
    model: LanguageModel | None = None
    try:
        model = _read(checkpoint, device, precision, dtype, context, **options)
    except CodeFault as error:
        notices.append(f"{error} So {checkpoint.name} is dequantised to {dtype}: slower, and larger.")
    if model is None:  # only here is nothing left of the first try
        release_cached_memory()
        context, limits = _context(checkpoint, spec, dtype, device)
        model = _read(checkpoint, device, dtype, dtype, context, **options)
    notices += limits
    context = min(context, model.info.context)
    if checkpoint.chat_template is None:
        notices.append("No chat template: prompts are completed as they stand.")
    if model.caps.reason:
        notices.append(model.caps.reason)
    return LoadedModel(model, tokenizer, StrategyTokenizer(tokenizer), checkpoint, context, tuple(notices))


def tier_of(checkpoint: Checkpoint) -> str:
    """Returns the tier that runs a checkpoint, "flat" or "transformers".

    Raises:
        CheckpointError: neither does: transformers would read GGUF, AWQ, GPTQ and AutoRound in its own way.
    """
    reason = supports(checkpoint.config)
    if reason is not None and checkpoint.gguf is not None:
        raise CheckpointError(
            f"{checkpoint.name} cannot be run from GGUF: {reason}; take its safetensors checkpoint."
        )
    if checkpoint.codes is not None:
        if reason is None and flat_config(checkpoint.config).layout.transposed:
            reason = f"{checkpoint.architecture} stores its matrices the other way round"
        if reason is None and _is_mixture(checkpoint):
            reason = "it is a mixture of experts"
        if reason is not None:
            raise CheckpointError(
                f"{checkpoint.name} cannot be run from {checkpoint.format}: {reason}; "
                "take its 16-bit checkpoint."
            )
    return "flat" if reason is None else "transformers"


def available_precisions(device: str, checkpoint: Checkpoint | None = None) -> dict[str, str | None]:
    """Maps every precision of `ModelSpec` to the reason why a device cannot run it, or None.

    Answers without importing torch; a GPU too old for bfloat16 is only known once torch is loaded. With a
    checkpoint it counts whether that can be had in a precision.
    """
    device = best_device() if device == "auto" else device
    reasons: dict[str, str | None] = dict.fromkeys(PRECISIONS)
    if not _gpu_has_bfloat16(device):
        reasons["bfloat16"] = f"{device} is older than Ampere and does not compute bfloat16: choose float16."
    reasons |= {name: kind.refusal(device) for name, kind in QUANTISATIONS.items()}
    if checkpoint is not None and _is_mixture(checkpoint):
        reasons |= dict.fromkeys(QUANTISATIONS, f"It is {_NOT_QUANTISED}")
    return reasons


def _is_mixture(checkpoint: Checkpoint) -> bool:
    """Tells whether a checkpoint is a mixture of experts.

    Where the flat decoder does not run it, its tensors show that: they are named so, or large ones hold the
    matrices of all experts.
    """
    config, tensors = checkpoint.config, checkpoint.tensors
    if supports(config) is None:
        return flat_config(config).features.mixture is not None
    stacked = [t.numel for t in tensors.values() if len(t.shape) == 3 and min(t.shape) > 1]
    is_stacked = sum(stacked) > _STACKED * sum(t.numel for t in tensors.values())
    return is_stacked or any("experts" in name.split(".") for name in tensors)


def _device(name: str) -> tuple[str, list[str]]:
    """Chooses the device, and tells the user about it."""
    try:
        device = resolve_device(name)
    except LookupError as error:
        raise LoadError(str(error)) from error
    if device.startswith("cuda"):
        import torch

        if not torch.cuda.is_available():
            reason = "the driver does not work with this build of torch"
            if name != "auto":
                raise LoadError(f"{name} cannot be used: {reason}. Install a matching one, or choose cpu.")
            return "cpu", [f"There is a GPU, but {reason}: running on the CPU."]
    return device, []


def _check_vocabulary(checkpoint: Checkpoint, size: int) -> None:
    """Refuses a vocabulary whose tokens would share random numbers with others."""
    if size > MOST_TOKENS:
        raise LoadError(
            f"{checkpoint.name} has a vocabulary of {size:,} tokens, but at most {MOST_TOKENS:,} have random"
            " numbers of their own: choose another model."
        )


def _check_precision(checkpoint: Checkpoint, precision: str, device: str) -> None:
    stored = checkpoint.quantization
    if precision not in PRECISIONS:
        raise LoadError(f"There is no precision {precision!r}; there is {', '.join(PRECISIONS)}.")
    if stored and precision not in ("auto", stored):
        raise LoadError(f"{checkpoint.name} is stored as {stored} and stays so: choose auto.")
    if reason := available_precisions(device)[precision]:
        raise LoadError(f"{precision} does not run on {device}: {reason}")
    if precision in QUANTISATIONS and _is_mixture(checkpoint):
        raise LoadError(f"{checkpoint.name} is {_NOT_QUANTISED}")


def _gpu_has_bfloat16(device: str) -> bool:
    torch: Any = sys.modules.get("torch")
    if torch is None or not device.startswith("cuda") or not torch.cuda.is_available():
        return True
    return bool(torch.cuda.get_device_capability(device) >= _BF16_CAPABILITY)


def _context(
    checkpoint: Checkpoint, spec: ModelSpec, precision: str, device: str
) -> tuple[int, tuple[str, ...]]:
    """Chooses the positions to reserve, and tells the user about them.

    Raises:
        LoadError: the model needs more memory than is free.
    """
    limit = checkpoint.context or UNLIMITED
    context = context_to_reserve(checkpoint, spec.context, precision, device)
    memory = estimate(checkpoint, precision, context, 1, device)
    if not memory.fits:
        raise LoadError(memory.sentence)
    if spec.context > limit:
        return context, (
            f"The context is {limit:,} positions, the most that {checkpoint.name} was made for.",
        )
    if not spec.context and context < limit:
        return context, (f"The context is {context:,} of {limit:,} positions: more does not fit in memory.",)
    return context, ()


def _read(
    checkpoint: Checkpoint, device: str, precision: str, dtype: str, context: int, **options: Any
) -> LanguageModel:
    """Reads the weights by the checkpoint's tier, and words its errors for users."""
    import torch

    from edge_tui.engine.checkpoints.weight_files import WeightsError
    from edge_tui.engine.ops.current_device import entered
    from edge_tui.engine.ops.packed import PrecisionError
    from edge_tui.errors import Cancelled

    load_tier: Callable[..., LanguageModel]
    codes = keeps_codes(checkpoint, precision, device)
    if tier_of(checkpoint) == "flat":
        coded = codes and device == "cpu" and has_coded_head(checkpoint, flat_config(checkpoint.config))
        options |= {"codes": codes, "int8_head": coded}
        from edge_tui.engine.models.loading import load_flat as load_tier
    else:
        from edge_tui.engine.models.transformers_tier import load_transformers as load_tier
    try:
        with entered(device):
            return load_tier(
                checkpoint,
                device=device,
                dtype=getattr(torch, dtype),
                precision=precision if codes or precision in QUANTISATIONS else dtype,
                context=context,
                **options,
            )
    except (PrecisionError, WeightsError) as error:
        raise LoadError(str(error)) from error
    except (Cancelled, CheckpointError, CodeFault):
        raise
    except Exception as error:  # whatever else a modelling library raises
        if not is_out_of_memory(error):
            raise LoadError(
                f"{checkpoint.name} cannot be loaded as {precision} on {device} ({logs.first_line(error)}); "
                "choose another precision or model."
            ) from error
    # Only here, with the error and its traceback gone, is nothing left that holds the tensors.
    release_cached_memory()
    memory = estimate(checkpoint, precision, context, 1, device)
    free = free_memory(device)
    raise LoadError(
        f"{device} ran out of memory while {checkpoint.name} loaded: it needs {size(memory.weights)} for the "
        f"weights, and {size(free) if free is not None else 'less'} is free again; choose int8 or 4bit, "
        "or free memory that other programs hold."
    )
