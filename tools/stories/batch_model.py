"""Computes one step of a Llama for hundreds of rows at once, each at a position of its own.

The engine decodes a few rows as fast as it can; this decodes many. Keys and values lie in one static cache,
and every tensor keeps its address: a CUDA graph replays the step. On a GPU attention is the engine's kernel,
which reads what a row has written; on a CPU it reads the whole cache under a mask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn import functional as F

from edge_tui.engine.models.rope import rotate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
            (checkpoint.layers, rows, 2 * self.kv_heads, length, self.head_dim), dtype=dtype, device=device
        )
        rope = config["rope_parameters"]
        steps = torch.arange(0, self.head_dim, 2, device=device) / self.head_dim
        angles = torch.outer(torch.arange(length, device=device), rope["rope_theta"] ** -steps).repeat(1, 2)
        sign = torch.ones(self.head_dim, device=device)
        sign[: self.head_dim // 2] = -1
        self._cos, self._sin = angles.cos().to(dtype), (angles.sin() * sign).to(dtype)
        self._row = torch.arange(rows, device=device)
        self._columns = torch.arange(length, device=device)
        self._attend = self._attend_kernel() if device.type == "cuda" else self._attend_masked

    def step(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Reads one token of each row and scores the next.

        Args:
            tokens: int64 `[rows]`.
            positions: int64 `[rows]`, each below `length`; a row's earlier positions have been read.

        Returns:
            Logits of the scored tokens, `[rows, len(scored)]`, in the dtype of the weights.
        """
        x = self._embedding[tokens]
        for layer, past in zip(self._layers, self._cache, strict=True):
            read = self._attend(F.linear(self._rms(x, layer.norm), layer.qkv), past, positions)
            x = x + F.linear(read, layer.out)
            gate, up = F.linear(self._rms(x, layer.mlp_norm), layer.gate_up).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, layer.down)
        return F.linear(self._rms(x, self._norm), self._head)

    def _attend_masked(self, qkv: Tensor, past: Tensor, positions: Tensor) -> Tensor:
        """Writes each row's key and value to its past and attends to all that the row has.

        Args:
            qkv: `[rows, (heads + 2 * kv_heads) * head_dim]`.
            past: `[rows, 2 * kv_heads, length, head_dim]`, keys first.
            positions: Of the new keys.

        Returns:
            `[rows, heads * head_dim]`.
        """
        split = [self.heads, 2 * self.kv_heads]
        queries, new = torch.split(qkv.view(self.rows, -1, self.head_dim), split, 1)
        cos, sin = self._cos[positions].unsqueeze(1), self._sin[positions].unsqueeze(1)
        rotate(queries, cos, sin)
        rotate(new[:, : self.kv_heads], cos, sin)
        past[self._row, :, positions] = new
        keys, values = past.chunk(2, 1)
        seen = (self._columns <= positions.unsqueeze(1)).view(self.rows, 1, 1, self.length)
        # The heads that share a key are taken as that many queries of one head.
        shared = queries.view(self.rows, self.kv_heads, -1, self.head_dim)
        return F.scaled_dot_product_attention(shared, keys, values, seen).flatten(1)

    def _attend_kernel(self) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """Returns a function that does what `_attend_masked` does, and reads of the past what a row has."""
        from edge_tui.engine.ops.triton.attend import Scratch, Tuning, attend

        scratch = Scratch(self.rows, 1, self.heads, self.head_dim, self.device)
        out = torch.empty(
            (self.rows, self.heads * self.head_dim), dtype=self._cache.dtype, device=self.device
        )
        tuning = Tuning(block=64)  # a text is short

        def run(qkv: Tensor, past: Tensor, positions: Tensor) -> Tensor:
            attend(
                *(qkv, past, None, None, None, positions, self._cos, self._sin, out, scratch),
                heads=self.heads,
                kv_heads=self.kv_heads,
                k=1,
                tuning=tuning,
            )
            return out

        return run

    def _rms(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, weight.shape, weight, self._eps)
