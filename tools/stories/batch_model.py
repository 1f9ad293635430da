"""Computes one step of a Llama for hundreds of rows at once, each at a position of its own.

The engine decodes a few rows as fast as it can; this decodes many. Keys and values lie in one static cache,
attention reads all of it under a mask, and every tensor keeps its address: a CUDA graph replays the step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from edge_tui.engine.checkpoints.checkpoint import Checkpoint


class _Layer(NamedTuple):
    """Holds a layer's matrices, those that read the same input as one."""

    norm: Tensor
    qkv: Tensor
    out: Tensor
    mlp_norm: Tensor
    gate_up: Tensor
    down: Tensor


class BatchModel:
    """Holds weights and cache of `rows` sequences of at most `length` tokens.

    Args:
        checkpoint: Of a Llama with tied embeddings.
        rows: Number of sequences.
        length: Most tokens of each.
        device: Where weights and cache lie.
        dtype: Of weights and cache.
        scored: Ids of the tokens that are scored; all by default.

    Raises:
        ValueError: the checkpoint is no such Llama.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        rows: int,
        length: int,
        device: torch.device,
        dtype: torch.dtype = torch.bfloat16,
        scored: Sequence[int] | None = None,
    ) -> None:
        config = checkpoint.text_config
        if config.get("model_type") != "llama" or not config.get("tie_word_embeddings"):
            raise ValueError(f"{checkpoint.name} is no Llama with tied embeddings.")
        self.rows, self.length, self.device = rows, length, device
        self.heads, self.kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        self.head_dim, self._eps = config["head_dim"], config["rms_norm_eps"]
        reader = checkpoint.open_tensors()

        def read(*names: str) -> Tensor:
            return torch.cat([reader.read(f"{name}.weight") for name in names]).to(device, dtype)

        self._embedding = read("model.embed_tokens")
        self.scored = torch.tensor(range(len(self._embedding)) if scored is None else scored, device=device)
        self._head = self._embedding if scored is None else self._embedding[self.scored]
        self._norm = read("model.norm")
        self._layers = [
            _Layer(
                read(f"{at}.input_layernorm"),
                read(f"{at}.self_attn.q_proj", f"{at}.self_attn.k_proj", f"{at}.self_attn.v_proj"),
                read(f"{at}.self_attn.o_proj"),
                read(f"{at}.post_attention_layernorm"),
                read(f"{at}.mlp.gate_proj", f"{at}.mlp.up_proj"),
                read(f"{at}.mlp.down_proj"),
            )
            for at in (f"model.layers.{n}" for n in range(checkpoint.layers))
        ]
        reader.close()
        self._cache = torch.zeros(
            (checkpoint.layers, 2, rows, length, self.kv_heads, self.head_dim), dtype=dtype, device=device
        )
        rope = config["rope_parameters"]
        steps = torch.arange(0, self.head_dim, 2, device=device) / self.head_dim
        angles = torch.outer(torch.arange(length, device=device), rope["rope_theta"] ** -steps).repeat(1, 2)
        self._cos, self._sin = angles.cos().to(dtype), angles.sin().to(dtype)
        self._row = torch.arange(rows, device=device)
        self._columns = torch.arange(length, device=device)

    def step(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Reads one token of each row and scores the next.

        Args:
            tokens: int64 `[rows]`.
            positions: int64 `[rows]`, each below `length`; a row's earlier positions have been read.

        Returns:
            Logits of the scored tokens, `[rows, len(scored)]`, in the dtype of the weights.
        """
        x = self._embedding[tokens]
        cos, sin = self._cos[positions].unsqueeze(1), self._sin[positions].unsqueeze(1)
        seen = (self._columns <= positions.unsqueeze(1)).view(self.rows, 1, 1, self.length)
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        for layer, (k_cache, v_cache) in zip(self._layers, self._cache, strict=True):
            q, k, v = torch.split(F.linear(self._rms(x, layer.norm), layer.qkv), [queries, keys, keys], -1)
            # The heads that share a key are taken as that many queries of one head.
            q = _rotate(q.view(self.rows, self.heads, self.head_dim), cos, sin)
            q = q.view(self.rows, self.kv_heads, -1, self.head_dim)
            k_cache[self._row, positions] = _rotate(k.view(self.rows, -1, self.head_dim), cos, sin)
            v_cache[self._row, positions] = v.view(self.rows, -1, self.head_dim)
            read = F.scaled_dot_product_attention(q, k_cache.transpose(1, 2), v_cache.transpose(1, 2), seen)
            x = x + F.linear(read.flatten(1), layer.out)
            gate, up = F.linear(self._rms(x, layer.mlp_norm), layer.gate_up).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, layer.down)
        return F.linear(self._rms(x, self._norm), self._head)

    def _rms(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, weight.shape, weight, self._eps)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat((-b, a), -1) * sin
