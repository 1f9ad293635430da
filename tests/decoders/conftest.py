from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

torch.set_num_threads(1)

VOCAB = 48


def tiny(seed: int, vocab: int = VOCAB) -> LlamaForCausalLM:
    """Makes a model of random parameters, so that its distributions are neither flat nor certain."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=128,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3)
    return model


def logits_of(model: LlamaForCausalLM) -> Callable[[Tensor], Tensor]:
    """Returns a function that gives a model's next-token logits."""

    @torch.no_grad()
    def logits(ids: Tensor) -> Tensor:
        return model(ids, use_cache=False).logits[:, -1].float()

    return logits


@pytest.fixture(scope="session")
def models() -> list[LlamaForCausalLM]:
    return [tiny(seed) for seed in range(3)]
