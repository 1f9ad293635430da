"""Groups the streams of one model, so that a step reads its weights once for all of them.

Decoding is bound by reading weights. The prompt and the negative prompt of guidance, or three texts of a
user's strategy, are therefore rows of one forward, each with a context of its own: lengths, positions and
masks differ. Streams of different models stay forwards of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakMethod

from edge_tui.decoders.base import Output
from edge_tui.engine.decode.away_forward import AwayForward, Spans
from edge_tui.engine.models.base import CapturableContext
from edge_tui.engine.ops.current_device import entered, move

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from edge_tui.decoders.base import Needs, Stream
    from edge_tui.engine.models.base import Context, LanguageModel


def group_streams(
    streams: Sequence[Stream], models: Mapping[str, LanguageModel], needs: Needs, rows: int
) -> list[tuple[str, ...]]:
    """Lists the streams that one forward computes: those of one model of which it gives the same.

    Args:
        streams: The strategy's, the main one first.
        models: Model by role.
        needs: Outputs of the main stream's forwards beside logits; the others give logits alone.
        rows: Rows of each stream.

    Returns:
        Names of streams; in a group no more than the model takes rows of different lengths for.
    """
    alike: dict[tuple[int, bool], list[str]] = {}
    most: dict[tuple[int, bool], int] = {}
    for position, stream in enumerate(streams):
        model = models[stream.role]
        key = id(model), needs.layers and position == 0
        alike.setdefault(key, []).append(stream.name)
        most[key] = max(1, model.caps.unequal_rows // rows)
    return [
        tuple(names[at : at + most[key]])
        for key, names in alike.items()
        for at in range(0, len(names), most[key])
    ]


class StreamGroup:
    """Holds the streams of one forward: row `s * R + r` of its context is row `r` of stream `s`.

    Args:
        names: The streams' names, `S` of them.
        model: Theirs.
        root: The context that their prompts are read into, one row a stream.
        rows: `R`, the rows that a run decodes side by side.
        home: The strategy's device; the model's own by default.

    Attributes:
        context: The run's, of `S * R` rows; the root itself for one row.
        is_away: True where the model is on another device than the strategy.
    """

    def __init__(
        self, names: tuple[str, ...], model: LanguageModel, root: Context, rows: int, home: str = ""
    ) -> None:
        self.names = names
        self.model = model
        self.root = root
        self._context = root
        self._rows = rows
        self._device, self._home = model.info.device, home or model.info.device
        self.is_away = self._device != self._home
        compute = WeakMethod(self._compute)  # in a circle, a context outlives its run by a collection

        def compute_there(tokens: Tensor, parent: Tensor | None) -> Tensor:
            here = compute()
            assert here is not None, "who starts a forward is there"
            return here(tokens, parent)

        self._away = AwayForward(compute_there, self._device, self._home)

    @property
    def context(self) -> Context:
        return self._context

    @context.setter
    def context(self, context: Context) -> None:
        if context is not self._context:
            self._away.clear()
        self._context = context

    def forward(self, tokens: Tensor, parent: Tensor | None) -> Output:
        """Appends the tokens `[R, K]` to every stream.

        Args:
            tokens: Tokens.
            parent: int64 `[R]`, the rows that they continue; None where rows stay.
        """
        if parent is not None:
            self.reorder(parent)
        return self.model.forward(self.context, self.spread(tokens))

    def start(self, tokens: Tensor, parent: Tensor | None, spans: Spans) -> None:
        """Does `forward` for a model that is away; `fetch` brings what it gives.

        Args:
            tokens: On the strategy's device.
            parent: There, too.
            spans: Positions that attention spans in the contexts of the step.
        """
        self._away.start(tokens, parent, spans, self._count)

    def fetch(self) -> Output:
        """Brings the logits of what was started to the strategy's device."""
        return Output(self._away.fetch())

    def _compute(self, tokens: Tensor, parent: Tensor | None) -> Tensor:
        return self.forward(tokens, parent).logits

    def _count(self, positions: int) -> None:
        """Counts positions that a replayed forward appends."""
        assert isinstance(self.context, CapturableContext), "it has been captured"
        self.context.reserve(positions)
        self.context.count_on_host(positions)

    def capture_away(self, spans: Spans) -> None:
        """Captures the forwards of a model on another GPU that have run, if it can be captured.

        Raises:
            RuntimeError: something in them cannot be captured.
        """
        context = self.context
        if not (self.is_away and self.model.caps.capture and isinstance(context, CapturableContext)):
            return
        bound = context.bound
        try:
            self._away.capture(spans)
        finally:  # a capture counts positions on the host, but computes none
            context.count_on_host(bound - context.bound)

    def truncate(self, length: Tensor) -> None:
        """Forgets positions from `length[r]` on; the lengths may lie on the strategy's device."""
        with entered(self._device):
            self.context.truncate(move(length, self._device))

    def at_home(self, output: Output) -> Output:
        """Brings an output to the strategy's device."""
        if not self.is_away:
            return output
        return Output(**{name: move(tensor, self._home) for name, tensor in output.tensors().items()})

    def spread(self, tokens: Tensor) -> Tensor:
        """Repeats the tokens `[R, K]` chosen last for each stream: `[S * R, K]` on the model's device."""
        tokens = move(tokens, self._device)
        return tokens if len(self.names) == 1 else tokens.repeat(len(self.names), 1)

    def reorder(self, parent: Tensor) -> None:
        """Gives row `r` of every stream what its row `parent[r]` had. `parent`: int64 `[R]`."""
        import torch

        parent = move(parent, self._device)
        if len(self.names) > 1:
            first = torch.arange(0, len(self.names) * self._rows, self._rows, device=parent.device)
            parent = (first[:, None] + parent).view(-1)
        with entered(self._device):
            self.context.reorder(parent)

    def split(self, output: Output) -> dict[str, Output]:
        """Takes a forward's output apart by stream, in the same memory."""
        if len(self.names) == 1:
            return {self.names[0]: output}
        parts = output.logits.chunk(len(self.names))
        return {name: Output(part) for name, part in zip(self.names, parts, strict=True)}

    def logits(self, outputs: Mapping[str, Output]) -> Tensor:
        """Puts together what `split` took apart: logits `[S * R, K, V]` in the memory of these outputs."""
        first, *others = (outputs[name].logits for name in self.names)
        step = first.numel() * first.element_size()
        places = [other.data_ptr() - first.data_ptr() for other in others]
        assert places == [step * at for at in range(1, len(self.names))], "outputs of several forwards"
        return first.as_strided((len(self.names) * len(first), *first.shape[1:]), first.stride())
