"""One run on the device: the prompt is read, then step after step is launched without waiting for results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from edge_tui.decoders.base import Decoder, Env, Output
from edge_tui.engine.decode.prefix_cache import PrefixCache, PrefixEntry
from edge_tui.engine.decode.speculative_runner import SpeculativeRunner
from edge_tui.engine.decode.step_runner import StepRunner
from edge_tui.engine.models.capacity import DEPTH, SLACK, round_up
from edge_tui.util import logs

if TYPE_CHECKING:
    from edge_tui.engine.decode.param_table import ParamTable
    from edge_tui.engine.decode.ring import Ring
    from edge_tui.engine.models.base import LanguageModel


class Generation:
    """The launch side of a run.

    `prefill` reads the prompt into one row per stream (reusing the longest prefix that is still cached) and
    spreads it over the run's rows; each `launch` then issues one whole step. Nothing here reads a value
    back; the host learns what happened from the ring.

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
        samples: Answers decoded side by side, for a strategy of one row.
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
        samples: int = 1,
    ) -> None:
        self.decoder = decoder
        self.models = models
        self.ids = ids
        self.max_new = max_new
        self.start = start
        self.rows = decoder.rows(values) * samples
        self.launched = 0
        self.judged = 0
        """Steps whose records have been read, for a strategy that proposes."""
        self._rest = 0
        self.trouble = ""
        """Why steps are launched one operation at a time although the models could be captured."""
        self.num_draft_tokens = decoder.num_draft_tokens(values)
        self._values, self._eos, self._width, self._seed = values, eos, width, seed
        self._device = models[decoder.roles[0]].info.device
        devices = {model.info.device for model in models.values()}
        capturable = all(model.caps.capture for model in models.values())
        self._capture = capturable and len(devices) == 1
        if capturable and not self._capture:
            self.trouble = f"its models sit on different devices ({' and '.join(sorted(devices))})"
        self._runner: StepRunner | None = None
        self._entry: PrefixEntry | None = None

    @property
    def total(self) -> int:
        """Positions that the run reaches, prompt and new tokens."""
        return len(self.ids) + self.max_new

    @property
    def runner(self) -> StepRunner:
        assert self._runner is not None, "prefill comes first"
        return self._runner

    @property
    def ring(self) -> Ring:
        return self.runner.ring

    @property
    def table(self) -> ParamTable:
        return self.runner.table

    @property
    def captured(self) -> bool:
        """Whether steps are replayed from graphs by now."""
        return self._runner is not None and self._runner.graphs is not None

    def prefill(
        self,
        cache: PrefixCache,
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
        outputs: dict[str, Output] = {}
        keys = self._keys()
        with torch.inference_mode():
            for position, (stream, key) in enumerate(keys.items()):
                model = self.models[self.decoder.streams[position].role]
                report = progress if position == 0 else _silent
                kept, outputs[stream] = self._read(model, key, cache, report, cancelled)
                reused = kept if position == 0 else reused
            self._prepare(cache, keys, outputs)
        return reused

    def _prepare(
        self, cache: PrefixCache, keys: Mapping[str, tuple[int, int]], outputs: dict[str, Output]
    ) -> None:
        """Finds or makes the runner, and starts it."""
        import torch

        roots = [cache[key].context for key in keys.values()]
        self._entry = cache[next(iter(keys.values()))]
        runner = None
        if self._capture:
            runner = self._entry.find(self.decoder, self.rows, self.num_draft_tokens, self._eos, roots)
        if runner is None:
            make = SpeculativeRunner if self.num_draft_tokens else StepRunner
            runner = make(self.decoder, self.models, roots, self._values, self.rows, self._eos, self._width)
        device = self._device
        prompt = torch.tensor([self.ids], dtype=torch.int64, device=device).expand(self.rows, -1)
        eos = torch.tensor(self._eos, dtype=torch.int64, device=device)
        env = Env(self.rows, self._width, device, prompt, eos, self._values, self.max_new, prefix=self.start)
        runner.begin(env, outputs, self._seed)
        self._runner = runner

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
        cache: PrefixCache,
        progress: Callable[[int, int], None],
        cancelled: Callable[[], bool],
    ) -> tuple[int, Output]:
        import torch

        need, total = self.total + SLACK * (self.num_draft_tokens + 1), self.total
        held = cache.get(key)
        # At least one id is read again: its logits are what the first step chooses from.
        kept = min(_common(held.ids, self.ids), len(self.ids) - 1) if held else 0
        if held is None or not held.fits(need, total) or (kept < len(held.ids) and not model.caps.rewind):
            cache.pop(key, None)
            held = cache[key] = PrefixEntry(model.open(1, round_up(need), total))
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
        """Issues one step.

        Where models can be captured, the first two run as they are, which warms every kernel up and shows
        the first token at once; from the third on graphs are replayed.
        """
        import torch

        runner = self.runner
        if self._rest and self.launched >= self._rest:
            runner.proposing = False
        with torch.inference_mode():
            if self._capture and self.launched >= 2 and runner.graphs is None:
                self._try_capture()
            if runner.graphs is not None and (self.launched or runner.starts_captured):
                if not self.launched:
                    runner.table.refresh()  # captured steps do it for those after them
                runner.graphs.replay(alone=self.launched in (0, self.max_new - 1))
            else:
                if not runner.has_read:
                    runner.forward()
                runner.sample_and_record()
        self.launched += 1

    def _try_capture(self) -> None:
        """Captures the runner; a strategy or model that cannot be captured goes on as before."""
        from edge_tui.engine.decode.cuda_graphs import Graphs

        try:
            self.runner.graphs = Graphs(self.runner)
        except Exception as error:
            self._capture = False
            self.trouble = logs.first_line(error)

    def costs(self) -> tuple[float, float]:
        """Seconds of a step without proposals and of one with them, for a strategy that makes them.

        Measured once for each pair of contexts, which waits for the device; the numbers of all later runs are
        the same, so that what they decide is, too.
        """
        import torch

        runner, shelf = self.runner, self._entry
        assert isinstance(runner, SpeculativeRunner)
        assert shelf is not None
        if (known := shelf.costs.get(self.num_draft_tokens)) is not None:
            return known
        with torch.inference_mode():
            if runner.graphs is not None:
                runner.proposing = False
                if runner.graphs is None:
                    self._try_capture()
                runner.proposing = True
            shelf.costs[self.num_draft_tokens] = costs = runner.costs()
        return costs

    def stop_proposing(self) -> None:
        """Lets the draft rest, from a step on that does not depend on how far the host is ahead."""
        self._rest = self.judged + DEPTH + 1

    def take_trouble(self) -> str:
        """`trouble`, told once."""
        trouble, self.trouble = self.trouble, ""
        return trouble

    def remember(self, cache: PrefixCache, fed: list[int]) -> None:
        """Notes which generated ids the cached one-row contexts now hold as well, and keeps the runner."""
        if self.rows == 1:
            for position, key in enumerate(self._keys().values()):
                if held := cache.get(key):
                    # What a draft has read of its own proposals, nobody here knows.
                    held.ids = [*self.ids, *([] if self.num_draft_tokens and position else fed)]
        if self.captured and self._entry is not None:
            self._entry.keep(self.runner)


def _common(a: list[int], b: list[int]) -> int:
    """Length of the common prefix."""
    for index, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return index
    return min(len(a), len(b))


def _silent(done: int, total: int) -> None:
    """Progress of a stream that is not the main one."""
