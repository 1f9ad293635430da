"""Runs benchmark jobs on transformers' `generate()`: as it is, or with a static cache and compiled.

It has the engine's architecture, precision, prompt and number of tokens, and random weights where the engine
has (other ones: no weight makes a multiplication faster). A logits processor reads the clock at its first
call, which separates the prompt from the decoding in one call of `generate()`.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edge_tui.bench.job import BenchError, Job, Timing
from edge_tui.bench.roofline import synchronise
from edge_tui.engine.models.device_memory import release_cached_memory
from edge_tui.util import logs

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

KINDS = {"eager": "generate()", "static": "generate() static + compile"}
"""Ways to call `generate()` by the name that `--peers` takes."""

_DRAW = {"do_sample": True, "top_k": 0, "temperature": 1.0}
_OPTIONS: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "beam": {"do_sample": False, "num_beams": 4},
    "top_p": {**_DRAW, "top_p": 0.9},
    "top_k": {**_DRAW, "top_k": 50},
    "min_p": {**_DRAW, "min_p": 0.05},
    "typical": {**_DRAW, "typical_p": 0.95},
}
"""Strategies that `generate()` has as well, and its arguments for our defaults."""


class TransformersRunner:
    """Loads a transformers model and decodes with it.

    Args:
        folder: With config.json, and weights if they are to be read.
        device: Device of the weights.
        precision: "float32", "bfloat16", "float16", "int8" or "4bit" (the last two of bitsandbytes).
        random_weights: True makes random weights instead of reading the folder's.

    Raises:
        BenchError: it cannot be built here.
    """

    def __init__(self, folder: Path, device: str, precision: str, random_weights: bool) -> None:
        import torch
        import transformers

        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        began = time.perf_counter()
        self.device = device
        quantised = precision in ("int8", "4bit")
        dtype = getattr(torch, "bfloat16" if quantised else precision)
        try:
            if random_weights:
                config = transformers.AutoConfig.from_pretrained(folder)
                with torch.device(device):
                    model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
            else:
                model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
            if quantised:
                quantise(model, precision, device)
            self.model: Any = model.to(device).eval()
        except (ValueError, OSError, RuntimeError, ImportError) as error:
            raise BenchError(f"transformers cannot build its model: {logs.first_line(error)}.") from error
        self.model.generation_config = transformers.GenerationConfig()
        synchronise(device)
        self.seconds = time.perf_counter() - began

    def decode(self, kind: str, job: Job, ids: Sequence[Sequence[int]]) -> Timing:
        """Decodes once.

        Args:
            kind: A key of `KINDS`.
            job: Job to decode.
            ids: The prompts, all of one length.

        Raises:
            BenchError: `generate()` has no such strategy, or fails.
        """
        import torch

        options = generate_options(job)
        if kind == "static":
            options |= self._static()
        prompt = torch.tensor(ids, device=self.device)
        clock = _Clock(self.device)
        torch.manual_seed(job.seed)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                synchronise(self.device)
                began = time.perf_counter()
                out = self.model.generate(
                    prompt,
                    attention_mask=torch.ones_like(prompt),
                    max_new_tokens=job.tokens,
                    eos_token_id=None,
                    pad_token_id=0,
                    logits_processor=[clock],
                    **options,
                )
                synchronise(self.device)
                ended = time.perf_counter()
        except Exception as error:
            raise BenchError(f"generate() failed: {logs.first_line(error)}.") from error
        tokens = int(out.shape[1]) - len(ids[0])
        return Timing(clock.first - began, ended - clock.first, tokens, len(ids[0]))

    def close(self) -> None:
        """Frees the weights and what was compiled for them."""
        import torch

        self.model = None
        torch.compiler.reset()
        release_cached_memory()

    def _static(self) -> dict[str, Any]:
        """Makes the options of the static cache; a GPU compiles without being configured to."""
        options: dict[str, Any] = {"cache_implementation": "static"}
        if not self.device.startswith("cuda"):
            from transformers import CompileConfig

            config = CompileConfig(mode="default", fullgraph=False)
            config._compile_all_devices = True
            options["compile_config"] = config
        return options


class _Clock:
    """Notes the time at which the prompt's logits arrive, as a logits processor."""

    def __init__(self, device: str) -> None:
        self.first = 0.0
        self._device = device

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        if not self.first:
            synchronise(self._device)
            self.first = time.perf_counter()
        return scores


def can_run(kind: str, strategy: str, precision: str) -> bool:
    """Tells whether `generate()` has a strategy in that form; it compiles no quantised model and no beams."""
    options = _OPTIONS.get(strategy)
    compiles = options is not None and "num_beams" not in options and precision not in ("int8", "4bit")
    return options is not None and (compiles or kind != "static")


def generate_options(job: Job) -> dict[str, Any]:
    """Returns `generate()`'s arguments for a strategy.

    Raises:
        BenchError: it has no such strategy.
    """
    if job.strategy not in _OPTIONS:
        raise BenchError(f"generate() has no {job.strategy}.")
    values, options = dict(job.values), _OPTIONS[job.strategy]
    return {name: type(default)(float(values.get(name, default))) for name, default in options.items()}


def quantise(model: Any, precision: str, device: str) -> None:
    """Replaces a model's linear layers, but not its head, by those of bitsandbytes, in place."""
    import torch

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    import bitsandbytes as bnb

    for name, module in list(model.named_modules()):
        if not isinstance(module, torch.nn.Linear) or name == "lm_head":
            continue
        rows, columns = module.weight.shape
        bias = module.bias is not None
        weight = module.weight.data
        if precision == "4bit":
            new = bnb.nn.Linear4bit(
                columns, rows, bias=bias, compute_dtype=weight.dtype, quant_type="nf4", device="meta"
            )
            new.weight = bnb.nn.Params4bit(weight.cpu(), requires_grad=False, quant_type="nf4")
        else:
            new = bnb.nn.Linear8bitLt(
                columns, rows, bias=bias, has_fp16_weights=False, threshold=6.0, device="meta"
            )
            new.weight = bnb.nn.Int8Params(weight.cpu().half(), requires_grad=False, has_fp16_weights=False)
        if bias:
            new.bias = module.bias
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, new.to(device))
