"""Defines a language model for the engine: weights (`LanguageModel`) apart from a decode's state (`Context`).

Weights are shared: several contexts (a strategy's streams, forks, kept prefixes) read one set. A model feeds
the contexts that it opened itself, and asserts it. Shapes: `R` rows, `K` positions of one call, `T` positions
of a prompt, `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from edge_tui.decoders.base import Output
from edge_tui.engine.models.capacity import CHUNK
from edge_tui.errors import EdgeError

if TYPE_CHECKING:
    from torch import Tensor

    from edge_tui.decoders.base import Needs
    from edge_tui.engine.models.layer_states import PastStates

__all__ = ["Caps", "CapturableContext", "Context", "ContextFull", "LanguageModel", "ModelInfo", "Output"]


class ContextFull(EdgeError):
    """Refuses positions that the context has no room for."""

    code = "context_full"


@dataclass(frozen=True, slots=True)
class Caps:
    """Lists what a tier can do with a model; `reason` tells the user what it cannot."""

    rewind: bool = True
    """Drop the last tokens without recomputing (recurrent models cannot)."""
    fork: bool = True
    """Several sequences from one prefix, whose rows are permuted (beams)."""
    capture: bool = False
    """The step can be captured in a CUDA graph."""
    hidden: bool = True
    """Hidden states of its layers can be read."""
    early: bool = True
    """Early-exit logits can be made of them."""
    mixes: bool = True
    """The last layer's state can be read beside others; not where its width is another."""
    reason: str = ""
    unequal_rows: int = 1
    """Most rows of different lengths that one forward takes."""
    kernels: str = "operation by operation"
    """How a step runs, for readers; another way rounds in another way."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Describes loaded weights.

    Attributes:
        name: As the user names it (repository id or folder name).
        architecture: As in config.json, e.g. "Qwen2ForCausalLM".
        vocab: Width `V` of the logits (padded embedding rows included).
        layers: Number of decoder layers; 0 where hidden states cannot be read.
        tied: True where the head is the embedding.
        context: Most positions that the model was made for.
        parameters: Number of weights.
        weight_bytes: Bytes of the weights as they lie in memory.
        kv_bytes: KV-cache bytes of one position of one row.
        dtype: Compute dtype: "float32", "bfloat16", "float16".
        precision: As loaded: a dtype, "int8" or "4bit".
        device: "cpu", "cuda:0", "mps".
        tier: "flat" or "transformers".
    """

    name: str
    architecture: str
    vocab: int
    layers: int
    tied: bool
    context: int
    parameters: int
    weight_bytes: int
    kv_bytes: int
    dtype: str
    precision: str
    device: str
    tier: str


class Context(Protocol):
    """Holds the state of a decode: how many positions each row has, and their keys and values."""

    rows: int
    capacity: int
    """Most positions of a row."""
    length: Tensor
    """int64 `[R]` on the device: positions of each row."""
    totals: range
    """Lengths of a run, prompt and new tokens, whose rotary factors are this context's."""
    needs: Needs
    """Outputs of forwards beside logits; layers counted from 0. It may change between runs."""
    past: PastStates | None
    """Hidden states of all positions; None in a context that was opened without them."""

    def reorder(self, parent: Tensor) -> None:
        """Gives row `r` what row `parent[r]` had. `parent`: int64 `[R]` on the device."""

    def truncate(self, length: Tensor) -> None:
        """Forgets positions from `length[r]` on. A tensor, so that no host round trip is needed."""

    def fork(self, rows: int) -> Context:
        """Makes a new context in which each row of this one has `rows` copies, side by side."""


@runtime_checkable
class CapturableContext(Context, Protocol):
    """Keeps its addresses for ever, so that a CUDA graph of a forward can be replayed on it.

    A replay raises `length` on the device; the host counts along in `bound`.
    """

    logits_out: Tensor | None
    """The tensor that a forward puts its logits `[R, K, V]` into; None where it allocates one."""
    replay: Callable[[Tensor], Tensor] | None
    """Appends one id `[1, 1]` by replaying a captured step and returns its logits; None before one is."""
    bound: int
    """Upper bound of `length` that the host knows without asking the device."""

    def refork(self) -> bool:
        """Makes a fork, at its old addresses, what forking its parent anew would give; False if it cannot."""

    def reserve(self, extra: int) -> None:
        """Makes sure that `extra` more positions fit every row.

        Raises:
            ContextFull: they do not.
        """

    def widen(self, extra: int) -> int:
        """Makes attention of the next steps span what `extra` more positions need, and returns the span.

        A graph of a forward holds for one span.
        """

    def count_on_host(self, count: int, rewinds: bool = False) -> None:
        """Counts positions, on the host alone, that a replayed graph appends.

        `rewinds`: True where graphs may take some of them back, so that the count is only a bound.
        """


@runtime_checkable
class ResumableContext(Context, Protocol):
    """Keeps what `truncate` forgets until it is overwritten."""

    def resume(self, length: int) -> None:
        """Gives every row `length` positions again, of which nothing has been overwritten by other ids."""


@runtime_checkable
class JointContext(Context, Protocol):
    """Has rows that are contexts of their own, whatever the lengths of the others."""

    def row(self, index: int) -> Context:
        """Makes a context of one row that is a row of this one: positions and lengths are the same memory."""

    def adopt(self, index: int, other: Context, length: int) -> None:
        """Gives a row the first `length` positions of the one row of another context of the model."""


class LanguageModel(Protocol):
    """Turns token ids into logits: weights, shared by every context that the model opens."""

    info: ModelInfo
    caps: Caps

    def open(self, rows: int, capacity: int, total: int = 0, past: bool = False) -> Context:
        """Opens an empty context for `rows` sequences of at most `capacity` positions.

        Args:
            rows: Number of rows.
            capacity: Positions to make room for.
            total: Positions that the run reaches, prompt and new tokens, which choose a long rope's factors;
                0 means `capacity`.
            past: True keeps the last layer's hidden states of all positions.
        """

    def notice(self, total: int) -> str:
        """Tells the user what is special about a run that reaches `total` positions; "" if nothing is."""

    def prefill(
        self,
        ctx: Context,
        ids: Tensor,
        chunk: int = CHUNK,
        progress: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Output:
        """Reads a prompt, in chunks, on top of what the context already holds.

        Args:
            ctx: Extended in place; its rows have one length.
            ids: int64 `[R, T]`.
            chunk: Positions per forward call; between chunks `progress(done, T)` is called and
                `cancelled()` is called.
            progress: Called with finished positions.
            cancelled: Called between chunks.

        Returns:
            Logits `[R, 1, V]` after the last id, and what `ctx.needs` names at that position.

        Raises:
            Cancelled: `cancelled()` said so; the context is left at a chunk's end.
            ContextFull: the prompt does not fit `ctx.capacity`.
        """

    def forward(self, ctx: Context, ids: Tensor) -> Output:
        """Appends `ids` int64 `[R, K]` to the context and returns logits `[R, K, V]`: one step.

        What `ctx.needs` names comes beside them. Its tensors may be overwritten by the next forward.
        """

    def release(self) -> None:
        """Drops the weights. The model is unusable afterwards."""
