"""Computes the Llama of the demo pair, with dropout; parameters have the names of the exported checkpoint."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CONTEXT = 2048
ROPE_THETA = 10_000.0
NORM_EPS = 1e-5


@dataclass(frozen=True)
class Shape:
    """Describes the size of one model, and the share of the training time that it is trained."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    time_share: float


# Wide and shallow: on a CPU an operation costs microseconds whatever its size.
PYTHON_SHAPES = {
    "expert": Shape(4096, 256, 640, 6, 8, 2, 32, time_share=1.0),
    "amateur": Shape(4096, 96, 256, 2, 3, 1, 32, time_share=0.3),
}
# Stories have few words. How small an amateur has to be shows when they are trained: one of these is shipped.
STORY_SHAPES = {
    "expert": Shape(2048, 256, 640, 6, 8, 2, 32, time_share=1.0),
    "amateur-96": Shape(2048, 96, 256, 1, 3, 1, 32, time_share=0.5),
    "amateur-64": Shape(2048, 64, 128, 1, 2, 1, 32, time_share=0.5),
    "amateur-32": Shape(2048, 32, 96, 1, 1, 1, 32, time_share=0.5),
}


class Block(nn.Module):
    """Computes one pre-norm transformer block."""

    def __init__(self, shape: Shape, dropout: float) -> None:
        super().__init__()
        self.shape = shape
        size, inner = shape.hidden_size, shape.intermediate_size
        query, key = (
            heads * shape.head_dim for heads in (shape.num_attention_heads, shape.num_key_value_heads)
        )
        self.self_attn = nn.ModuleDict(
            {
                "q_proj": nn.Linear(size, query, bias=False),
                "k_proj": nn.Linear(size, key, bias=False),
                "v_proj": nn.Linear(size, key, bias=False),
                "o_proj": nn.Linear(query, size, bias=False),
            }
        )
        self.mlp = nn.ModuleDict(
            {
                "gate_proj": nn.Linear(size, inner, bias=False),
                "up_proj": nn.Linear(size, inner, bias=False),
                "down_proj": nn.Linear(inner, size, bias=False),
            }
        )
        self.input_layernorm = nn.RMSNorm(size, eps=NORM_EPS)
        self.post_attention_layernorm = nn.RMSNorm(size, eps=NORM_EPS)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Applies attention and the feed-forward layer, each around a residual connection."""

        def heads(name: str) -> Tensor:
            flat = cast("Tensor", self.self_attn[name](h))
            return flat.view(*h.shape[:2], -1, self.shape.head_dim).transpose(1, 2)

        def rotate(y: Tensor) -> Tensor:
            a, b = y.chunk(2, dim=-1)
            return y * cos + torch.cat((-b, a), dim=-1) * sin

        h = self.input_layernorm(x)
        q, k, v = rotate(heads("q_proj")), rotate(heads("k_proj")), heads("v_proj")
        attended = F.scaled_dot_product_attention(
            q.type_as(v), k.type_as(v), v, is_causal=True, enable_gqa=True
        )
        x = x + self.dropout(self.self_attn["o_proj"](attended.transpose(1, 2).flatten(2)))
        h = self.post_attention_layernorm(x)
        h = F.silu(self.mlp["gate_proj"](h)) * self.mlp["up_proj"](h)
        return cast("Tensor", x + self.dropout(self.mlp["down_proj"](h)))


class LanguageModel(nn.Module):
    """Computes a Llama with tied embeddings; ``forward`` gives the mean loss of next-token prediction."""

    cos: Tensor
    sin: Tensor

    def __init__(self, shape: Shape, dropout: float = 0.0) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Block(shape, dropout) for _ in range(shape.num_hidden_layers))
        self.norm = nn.RMSNorm(shape.hidden_size, eps=NORM_EPS)
        self.dropout = nn.Dropout(dropout)
        steps = torch.arange(0, shape.head_dim, 2) / shape.head_dim
        angles = torch.outer(torch.arange(CONTEXT), ROPE_THETA**-steps).repeat(1, 2)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                residual = name.endswith(("o_proj.weight", "down_proj.weight"))
                std = 0.02 / math.sqrt(2 * shape.num_hidden_layers) if residual else 0.02
                nn.init.normal_(parameter, std=std)

    def logits(self, ids: Tensor) -> Tensor:
        """Scores every next token for each position of ``ids`` (batch, length)."""
        x = self.dropout(self.embed_tokens(ids))
        cos, sin = self.cos[: ids.shape[1]], self.sin[: ids.shape[1]]
        for layer in self.layers:
            x = layer(x, cos, sin)
        return F.linear(self.norm(x), self.embed_tokens.weight)

    def forward(self, ids: Tensor) -> Tensor:
        """Computes the mean cross-entropy, in nats, of ``ids[:, 1:]`` given what comes before."""
        logits = self.logits(ids[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten())
