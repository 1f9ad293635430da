"""Groups the streams of one model, so that a step reads its weights once for all of them.

Decoding is bound by reading weights. The prompt and the negative prompt of guidance, or three texts of a
user's strategy, are therefore rows of one forward, each with a context of its own: lengths, positions and
masks differ. Streams of different models stay forwards of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_tui.decoders.base import Output

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

    Attributes:
        context: The run's, of `S * R` rows; the root itself for one row.
    """

    def __init__(self, names: tuple[str, ...], model: LanguageModel, root: Context, rows: int) -> None:
        self.names = names
        self.model = model
        self.root = root
        self.context = root
        self._rows = rows

    def spread(self, tokens: Tensor) -> Tensor:
        """Repeats the tokens `[R, 1]` chosen last for each stream: `[S * R, 1]` on the model's device."""
        tokens = tokens.to(self.model.info.device, non_blocking=True)
        return tokens if len(self.names) == 1 else tokens.repeat(len(self.names), 1)

    def reorder(self, parent: Tensor) -> None:
        """Gives row `r` of every stream what its row `parent[r]` had. `parent`: int64 `[R]`."""
        import torch

        parent = parent.to(self.model.info.device, non_blocking=True)
        if len(self.names) > 1:
            first = torch.arange(0, len(self.names) * self._rows, self._rows, device=parent.device)
            parent = (first[:, None] + parent).view(-1)
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
