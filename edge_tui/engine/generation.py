"""One run on the device: models, strategy and random numbers, stepped without waiting for results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from decoders.base import Decoder, Env, Output, Step
from decoders.random import Rng, key_of
from edge_tui.engine.ops.stats import record
from edge_tui.engine.ring import Ring
from edge_tui.engine.table import ParamTable

if TYPE_CHECKING:
    from torch import Tensor

    from edge_tui.engine.models.base import Context, LanguageModel


Kept = dict[tuple[int, int], "Cached"]
"""Contexts kept between runs, by `id(model)` and how many streams of a run read that model before."""


@dataclass(slots=True)
class Cached:
    """A context kept between runs, with the ids whose keys and values it holds (one row)."""

    context: Context
    ids: list[int] = field(default_factory=list)


class Generation:
    """The launch side of a run.

    Prefill reads the prompt into one row per stream (reusing the longest prefix that is still cached),
    `fork` spreads it over the strategy's rows, and each `launch` issues one whole step: parameters,
    forward of every stream, the strategy's decision, the record, the feedback. Nothing here reads a
    value back; the host learns what happened from the ring.

    Args:
        decoder: The strategy.
        models: Model by role.
        values: Starting parameters.
        ids: Prompt and kept prefix.
        start: Number of kept prefix tokens: the index of the first new token.
        max_new: Bound of new tokens.
        eos: Ids that end a sequence.
        width: Vocabulary `V` that every stream is cut to.
        seed: Of the run.
    """

    def __init__(
        self,
        decoder: Decoder,
        models: Mapping[str, LanguageModel],
        values: Mapping[str, float],
        ids: list[int],
        start: int,
        max_new: int,
        eos: tuple[int, ...],
        width: int,
        seed: int,
    ) -> None:
        import torch

        self.decoder = decoder
        self.models = models
        self.ids = ids
        self.max_new = max_new
        self.start = start
        self.rows = decoder.rows(values)
        self.launched = 0
        self._width = width
        main = models[decoder.roles[0]]
        self.device = main.info.device
        with torch.inference_mode():
            self.table = ParamTable(decoder.params, values, self.rows, self.device)
            rows = torch.arange(self.rows, device=self.device)
            key = torch.full((self.rows,), key_of(seed), dtype=torch.int64, device=self.device)
            self._step = torch.full((1,), start, dtype=torch.int64, device=self.device)
            self.rng = Rng(key, rows, self._step)
            self._rows = rows
            self._eos = torch.tensor(eos, dtype=torch.int64, device=self.device)
            self._never = torch.zeros(self.rows, dtype=torch.bool, device=self.device)
            prompt = torch.tensor([ids], dtype=torch.int64, device=self.device).expand(self.rows, -1)
            self.state = decoder.init(
                Env(self.rows, width, self.device, prompt, self._eos, dict(values), max_new, prefix=start)
            )
        self.ring = Ring(self.device)
        self._contexts: dict[str, Context] = {}
        self._outputs: dict[str, Output] = {}
        self._tokens: Tensor | None = None

    def prefill(
        self,
        cache: Kept,
        progress: Callable[[int, int], None],
        cancelled: Callable[[], bool],
    ) -> int:
        """Reads the prompt into every stream.

        Args:
            cache: Contexts of earlier runs; updated.
            progress: Told (done, total) tokens of the main stream.
            cancelled: Asked between chunks.

        Returns:
            Positions of the main stream that were reused.

        Raises:
            Cancelled: between chunks; what was read stays cached.
        """
        import torch

        reused = 0
        with torch.inference_mode():
            for position, (stream, key) in enumerate(self._keys().items()):
                model = self.models[self.decoder.streams[position].role]
                report = progress if position == 0 else _silent
                kept, output = self._read(model, key, cache, report, cancelled)
                reused = kept if position == 0 else reused
                context = cache[key].context
                if self.rows > 1:
                    context = context.fork(self.rows)
                    output = Output(output.logits.expand(self.rows, -1, -1), output.hidden)
                self._contexts[stream] = context
                self._outputs[stream] = output
        return reused

    def _keys(self) -> dict[str, tuple[int, int]]:
        """Where each stream's context is kept. Two streams over one model must not share a context."""
        keys: dict[str, tuple[int, int]] = {}
        for stream in self.decoder.streams:
            model = id(self.models[stream.role])
            keys[stream.name] = (model, sum(held == model for held, _ in keys.values()))
        return keys

    def _read(
        self,
        model: LanguageModel,
        key: tuple[int, int],
        cache: Kept,
        progress: Callable[[int, int], None],
        cancelled: Callable[[], bool],
    ) -> tuple[int, Output]:
        import torch

        need = len(self.ids) + self.max_new + self.ring.depth + 1
        held = cache.get(key)
        # At least one id is read again: its logits are what the first step chooses from.
        kept = min(_common(held.ids, self.ids), len(self.ids) - 1) if held else 0
        if held is None or held.context.capacity < need or (kept < len(held.ids) and not model.caps.rewind):
            cache.pop(key, None)
            held = cache[key] = Cached(model.open(1, _roomy(need)))
            kept = 0
        device = model.info.device
        held.context.truncate(torch.tensor([kept], dtype=torch.int64, device=device))
        del held.ids[kept:]
        fresh = torch.tensor([self.ids[kept:]], dtype=torch.int64, device=device)
        lengths = torch.tensor([fresh.shape[1]], dtype=torch.int64, device=device)
        done = 0

        def report(read: int, total: int) -> None:
            nonlocal done
            done = read
            progress(kept + read, kept + total)

        try:
            output = model.prefill(held.context, fresh, lengths, progress=report, cancelled=cancelled)
        except BaseException:
            held.ids.extend(self.ids[kept : kept + done])
            raise
        held.ids.extend(self.ids[kept:])
        return kept, output

    def launch(self) -> None:
        """Issues one step."""
        import torch

        with torch.inference_mode():
            self.table.refresh()
            if self._tokens is not None:
                for stream in self.decoder.streams:
                    model = self.models[stream.role]
                    tokens = self._tokens.to(model.info.device, non_blocking=True)
                    self._outputs[stream.name] = model.forward(self._contexts[stream.name], tokens)
            outs = {name: self._cut(output) for name, output in self._outputs.items()}
            step = self.decoder.step(outs, self.state, self.table.params, self.rng)
            self._write(outs[self.decoder.streams[0].name].logits[:, -1], step)
            if step.parent is not None:
                for context in self._contexts.values():
                    context.reorder(step.parent.to(context.length.device, non_blocking=True))
            self._tokens = step.chosen[:, None]
            self._step += 1
            self.launched += 1

    def _cut(self, output: Output) -> Output:
        """The part of the logits that all streams share, in float32 on the strategy's device.

        Embeddings are often padded to a round number; padded entries belong to no token.
        """
        logits = output.logits[..., : self._width].to(self.device, non_blocking=True).float()
        return Output(logits, output.hidden)

    def _write(self, z: Tensor, step: Step) -> None:
        parent = self._rows if step.parent is None else step.parent
        done = self._never if step.done is None else step.done
        if not self.decoder.owns_eos and self._eos.numel():
            done = done | (step.chosen[:, None] == self._eos).any(-1)
        extras = [step.extras[name].float() for name in self.decoder.columns]
        raw = z if step.parent is None else z.index_select(0, parent)
        self.ring.write(*record(raw, step.final, step.chosen, parent, done, self.table.version_row, extras))

    def remember(self, cache: Kept, fed: list[int]) -> None:
        """Notes which generated ids the cached one-row contexts now hold as well."""
        if self.rows == 1:
            for key in self._keys().values():
                if held := cache.get(key):
                    held.ids = [*self.ids, *fed]


def _common(a: list[int], b: list[int]) -> int:
    """Length of the common prefix."""
    for index, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return index
    return min(len(a), len(b))


def _roomy(need: int) -> int:
    """Capacity for a context: rounded up, so that the next, longer run can take it over."""
    return (need + 511) // 512 * 512


def _silent(done: int, total: int) -> None:
    """Progress of a stream that is not the main one."""
