"""Defines a stage: one link of the chain between a model's logits and the choice of a token."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from edge_tui.decoders.core.column import Column
from edge_tui.decoders.core.criterion import Criterion, Edge, of_edge
from edge_tui.decoders.core.declaration import Declaration
from edge_tui.decoders.core.tokenizer import ByteTokenizer, Tokenizer

if TYPE_CHECKING:
    import torch

    from edge_tui.decoders.core.params import Params
    from edge_tui.decoders.core.random import Rng
    from edge_tui.decoders.core.texts import AnyParam, Text

Tensor: TypeAlias = "torch.Tensor"
"""The type of every tensor, named so that importing it loads no torch."""

State: TypeAlias = "dict[str, Tensor]"
"""The memory of a stage or decoder between steps.

Row-first tensors (`[R, …]`), updated in place, so that rows can be permuted for beams and the addresses stay
valid inside a captured graph.
"""


@dataclass(frozen=True, slots=True)
class Env:
    """Describes a run to its strategy before the first step.

    Attributes:
        rows: Number of rows `R`.
        vocab: Size `V` of the logits the strategy will see.
        device: The device of its tensors.
        prompt: int64 `[R, T]`, the prompt's ids, right-padded with −1.
        eos: int64 `[E]`, ids that end a sequence; may be empty.
        values: The run's parameters as plain floats, for sizes that must be known when buffers are allocated
            (a beam's width). Live parameters are read from the device table in `step`.
        max_new_tokens: Upper bound of steps.
        prefix: Number of the prompt's last ids that an earlier run generated: they count as output.
        texts: The run's parameters that are text, by name; lists of texts are tuples.
        tokenizer: That of the model whose text is written.
    """

    rows: int
    vocab: int
    device: str
    prompt: Tensor
    eos: Tensor
    values: Mapping[str, float]
    max_new_tokens: int
    prefix: int = 0
    texts: Mapping[str, Text] = field(default_factory=dict)
    tokenizer: Tokenizer = field(default_factory=ByteTokenizer)


@dataclass(frozen=True, slots=True)
class Needs:
    """Declares the inputs of a stage or decoder beyond the logits.

    Layers of a model with L of them count from 0, the embeddings, to L, the last layer after the final norm;
    negative ones from the end. They are those of the main stream.
    """

    counts: bool = False
    """Token counts of prompt and output: state `prompt_counts`, `output_counts`, int32 `[R, V]`."""
    history: int = 0
    """Last tokens of prompt and output: state `ids`, int64 `[R, N]` for some `N` of at least this number, the
    newest last, −1 where there are fewer."""
    hidden: tuple[int, ...] = ()
    """Of decoders: layers whose hidden states are `Output.hidden`, in this order."""
    early: tuple[int, ...] = ()
    """Of decoders: layers before the last whose early-exit logits are `Output.early`, in this order."""
    early_norm: bool = True
    """True applies the final norm before the head makes logits of an early layer."""
    past: bool = False
    """Of decoders: the last layer's hidden state of every position so far, `Output.past`."""

    @property
    def layers(self) -> bool:
        """True where hidden states are needed in any form."""
        return bool(self.hidden or self.early or self.past)


@dataclass(frozen=True, slots=True)
class Token:
    """Holds the token that a step took, for stages and decoders that learn from it.

    Attributes:
        id: int64 `[R]`.
        raw: float32 `[R]`, its log-probability under the model itself (nats).
        final: float32 `[R]`, its log-probability in the distribution that it was taken from.
        step: int64 `[1]` or `[R]`, its place in the answer: the same while decoding and when a run goes on.
    """

    id: Tensor
    raw: Tensor
    final: Tensor
    step: Tensor


class Stage(ABC):
    """Changes logits: one link of the chain between a model's logits and the choice of a token."""

    name: ClassVar[str] = ""
    """The word for it in a chain, as in `temperature+min_p`; without one it stands in no typed chain."""
    params: ClassVar[tuple[AnyParam, ...]] = ()
    needs: ClassVar[Needs] = Needs()
    columns: ClassVar[tuple[str | Column, ...]] = ()
    """Numbers recorded for each token: tensors of its state, float32 `[R, 1]` of these names, as they are
    after `observe`."""
    penalty: ClassVar[bool] = False
    """True where it judges what the model says by the text so far. Around a decoder it then acts on the
    model's own logits; other stages act on what the decoder makes of them."""
    reshapes: ClassVar[bool] = True
    """True where the logits of tokens that it leaves may change, by more than a number for all alike."""
    last: ClassVar[bool] = False
    """True where it selects the token by itself, so that nothing may follow it in a chain."""

    def constants(self, env: Env) -> State:
        """Makes tensors of any shape that no step changes; a stage finds them in `s` under their names."""
        return {}

    def init(self, env: Env) -> State:
        """Allocates the stage's state; row-first tensors."""
        return {}

    @abstractmethod
    def apply(self, z: Tensor, p: Params, s: State, rng: Rng) -> Tensor:
        """Maps logits float32 `[R, V]` to logits; −inf means removed. Must not write to `z`."""

    def criterion(self, z: Tensor, p: Params, s: State, rng: Rng) -> Criterion | None:
        """Gives the numbers by which it decides what to remove, for readers who ask why a token is gone.

        Arguments are those of `apply`, which may be this and `Criterion.cut`. None where there is nothing to
        show.
        """
        return None

    def observe(self, s: State, p: Params, token: Token) -> None:  # noqa: B027 — most learn nothing
        """Learns the token that was taken. It is also how a state is made anew.

        A run that goes on from kept tokens calls `init`, then this for each of them, with the parameters that
        it was taken under.

        Args:
            s: This stage's state, updated in place.
            p: The parameters of the step.
            token: The token.
        """


class Filter(Declaration, Stage):
    """Removes candidates: a stage that makes a sampling strategy (one file, one filter, one strategy)."""

    reshapes = False
    edge: ClassVar[Edge | None] = None
    """Its cut, if it is one of an `Edge`; then it runs fused on a GPU. Optional."""

    def criterion(self, z: Tensor, p: Params, s: State, rng: Rng) -> Criterion | None:
        """Gives the numbers of its `edge`."""
        return of_edge(z, self.edge, p[self.edge.param]) if self.edge is not None else None
