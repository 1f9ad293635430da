"""Makes tiny Llama models whose weights follow from a number, in any version of transformers."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.random import RandomState

VOCAB = 48
FORMULA = (
    "parameters in order of their names; each is RandomState(seed).standard_normal(its shape) · 0.3, float32,"
    " where one RandomState serves all"
)
"""How weights follow from a seed."""
SHAPE = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
}


@lru_cache(maxsize=8)
def llama(seed: int, vocab: int = VOCAB) -> Any:
    """Makes a transformers `LlamaForCausalLM` in float32 of weights by `FORMULA`."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=vocab, bos_token_id=None, eos_token_id=None, pad_token_id=None, **SHAPE)
    ).eval()
    random = RandomState(seed)
    with torch.no_grad():
        for _, weight in sorted(model.named_parameters()):
            drawn = random.standard_normal(tuple(weight.shape)) * 0.3
            weight.copy_(torch.from_numpy(drawn.astype(np.float32)))
    return model


def next_logits(model: Any) -> Callable[[Any], Any]:
    """Gives a function from ids int64 `[R, T]` to the logits float32 `[R, V]` of the next token."""
    import torch

    @torch.no_grad()
    def logits(ids: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = model(ids, use_cache=False).logits[:, -1].float()
        return found

    return logits


def generate(model: Any, prompt: tuple[int, ...], **options: Any) -> Any:
    """Calls `generate()` with nothing but `options` deciding how it decodes."""
    import torch
    from transformers import GenerationConfig

    ids = torch.tensor([prompt])
    config = GenerationConfig(pad_token_id=0, return_dict_in_generate=True, output_scores=True, **options)
    return model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
