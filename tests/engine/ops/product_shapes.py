"""Shapes of the products of models that benches measure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Product:
    """One matrix of a model and what its kernel folds in."""

    name: str
    rows: int
    columns: int
    norm: bool = False
    gate: str = ""
    residual: bool = False
    wide: bool = False


@dataclass(frozen=True)
class Model:
    """Shapes of a model, and where its norms stand."""

    name: str
    hidden: int
    qkv: int
    inner: int
    layers: int
    vocabulary: int
    heads: int = 0
    """Width of what attention gives; 0 for the stream's."""
    norms: str = "before"
    gate: str = "silu"

    def layer(self) -> tuple[Product, ...]:
        norm, adds = self.norms != "after", self.norms == "before"
        return (
            Product("qkv", self.qkv, self.hidden, norm),
            Product("out", self.hidden, self.heads or self.hidden, residual=adds),
            Product("gate_up", 2 * self.inner, self.hidden, norm, self.gate),
            Product("down", self.hidden, self.inner, residual=adds),
        )

    def head(self) -> Product:
        return Product("head", self.vocabulary, self.hidden, norm=True, wide=True)

    def products(self, kind: str) -> tuple[Product, ...]:
        """Those of a layer, and the head where files of such a kind have one of that kind."""
        return (*self.layer(), self.head()) if kind in ("plain", "group8") else self.layer()


MODELS = (
    Model("qwen2-0.5b", 896, 1152, 4864, 24, 151936),
    Model("llama-3.2-1b", 2048, 3072, 8192, 16, 128256),
    Model("qwen2-7b", 3584, 4608, 18944, 28, 152064),
    Model("gemma-2-2b", 2304, 4096, 9216, 26, 256000, 2048, "both", "gelu_tanh"),
    Model("gemma-3-1b", 1152, 1536, 6912, 26, 262144, 1024, "both", "gelu_tanh"),
    Model("olmo-2-1b", 2048, 6144, 8192, 16, 100352, 0, "after"),
)
