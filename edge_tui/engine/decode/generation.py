"""Reads a prompt into the models and launches the steps of a run, without waiting for their results."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from edge_tui.decoders.base import Env, Needs, Output
from edge_tui.engine.decode.host_copies import to_device
from edge_tui.engine.decode.learned_prefix import learn_prefix
from edge_tui.engine.decode.prefix_cache import PrefixCache, PrefixEntry, copy_of
from edge_tui.engine.decode.speculative_runner import SpeculativeRunner
from edge_tui.engine.decode.step_runner import StepRunner
from edge_tui.engine.decode.stream_groups import StreamGroup, group_streams
from edge_tui.engine.models.base import CapturableContext
from edge_tui.engine.models.capacity import DEPTH, SLACK
from edge_tui.engine.ops.current_device import computing, entered
from edge_tui.util import logs

if TYPE_CHECKING:
    from torch import Tensor

    from edge_tui.engine.decode.run_plan import RunPlan
    from edge_tui.engine.models.base import Context, LanguageModel


_PLAIN = 2
"""Steps that run as they are before a graph is captured, which warms every kernel up."""


class Generation:
    """Launches one run.

    `prefill` reads the prompt into one row per stream (reusing the longest prefix that is still cached) and
    spreads it over the run's rows; each `launch` then issues one whole step. Nothing here reads a value
    back; records arrive in the ring.

    Args:
        plan: The run's facts.
        captures: False runs every step as it is, and leaves the runners of other runs alone.
    """

    def __init__(self, plan: RunPlan, captures: bool = True) -> None:
        self.plan = plan
        kept = () if plan.learns_by_decoding else plan.request.prefix
        self.ids = {each.name: [*plan.prompt_of(each.name), *kept] for each in plan.decoder.streams}
        """Ids that each stream reads before the first step."""
        self.launched = 0
        self.steps_read = 0
        """Steps whose records have been read, for a strategy that proposes."""
        imposed = plan.request.proposing_ends if plan.num_draft_tokens else None
        self._proposes_until = None if imposed is not None and imposed < 0 else imposed
        """The step from which on nothing is proposed; None while that is not decided."""
        self._captures_at = _PLAIN
        """The step from which on graphs are replayed."""
        self.prepared = 0.0
        """Seconds spent on steps before their graphs, which compile kernels, and on capturing."""
        self.uncaptured_reason = ""
        """Why steps are launched one operation at a time although the models could be captured."""
        self._models = {role: loaded.model for role, loaded in plan.models.items()}
        self._groups = group_streams(plan.decoder.streams, self._models, plan.needs, plan.rows)
        if plan.num_draft_tokens:  # the draft is a step behind
            self._groups = [(stream.name,) for stream in plan.decoder.streams]
        self._device = plan.main.model.info.device
        here = [model for model in self._models.values() if model.info.device == self._device]
        self._capture = captures and all(model.caps.capture for model in here)
        self._runner: StepRunner | None = None
        self._entry: PrefixEntry | None = None

    @property
    def runner(self) -> StepRunner:
        """Runs the steps; there after `prefill`."""
        assert self._runner is not None, "prefill comes first"
        return self._runner

    @property
    def read_alone(self) -> bool:
        """True where the last id of the main stream's prompt was read alone; there after `prefill`."""
        return self._entry is not None and self._entry.stepped < len(self._entry.ids)

    @property
    def captured(self) -> bool:
        """True once steps are replayed from graphs."""
        return self._runner is not None and self._runner.has_graphs

    def prefill(
        self,
        cache: PrefixCache,
        progress: Callable[[int, int], None],
        cancelled: Callable[[], bool],
        *,
        again: bool = False,
    ) -> int:
        """Reads the prompt into every stream.

        Args:
            cache: Contexts of earlier runs; updated.
            progress: Called with (done, total) tokens of the main stream.
            cancelled: Called between chunks; True ends the reading.
            again: Read the last token once more, alone, where all of a prompt was read.

        Returns:
            Positions of the main stream that were reused.

        Raises:
            Cancelled: between chunks; what was read stays cached.
        """
        outputs: dict[str, Output] = {}
        lengths: list[int] = []
        groups = []
        with computing(self._device):
            for names in self._groups:
                report = _silent if lengths else progress
                with entered(self._model(names).info.device):
                    reused, read = self._read(names, cache, report, cancelled)
                    if again and not all(reused):
                        for key in self._keys_of(names):
                            cache[key].end = None
                        _, read = self._read(names, cache, _silent, cancelled)
                lengths += reused
                outputs |= read
                root = self._root(cache, names)
                groups.append(StreamGroup(names, self._model(names), root, self.plan.rows, self._device))
            self._begin_runner(cache, groups, outputs)
        return lengths[0]

    def _model(self, names: tuple[str, ...]) -> LanguageModel:
        """Finds the model of a group of streams."""
        role = next(each.role for each in self.plan.decoder.streams if each.name == names[0])
        return self._models[role]

    def _root(self, cache: PrefixCache, names: tuple[str, ...]) -> Context:
        """Finds the context that the prompts of a group have been read into."""
        keys = self._keys_of(names)
        return cache.joint(keys) or cache[keys[0]].context

    def _begin_runner(
        self, cache: PrefixCache, groups: list[StreamGroup], outputs: dict[str, Output]
    ) -> None:
        """Finds or makes the runner, and begins the run on it."""
        import torch

        plan, values, eos = self.plan, self.plan.params.values, self.plan.main.tokenizer.end_ids
        roots = [group.root for group in groups]
        self._entry = cache[next(iter(self.keys().values()))]
        runner = None
        if self._capture and not plan.learns_by_decoding:
            runner = self._entry.find(plan.decoder, plan.rows, plan.num_draft_tokens, eos, roots)
        if runner is None:
            make = SpeculativeRunner if plan.num_draft_tokens else StepRunner
            runner = make(plan.decoder, groups, values, plan.rows, eos, plan.width)
        device = self._device
        prompt = to_device([plan.ids], torch.int64, device).expand(plan.rows, -1)
        ends = to_device(eos, torch.int64, device)
        start = len(plan.request.prefix)
        env = Env(
            plan.rows,
            plan.width,
            device,
            prompt,
            ends,
            values,
            plan.max_new,
            prefix=start,
            texts=plan.params.texts,
            tokenizer=plan.main.strategy_tokenizer,
        )
        runner.begin(env, outputs, plan.params.seed)
        if plan.decoder.learns and start:
            self._entry.learned = learn_prefix(runner, env, plan, self._entry.learned)
        self._runner = runner

    def keys(self) -> dict[str, tuple[int, int]]:
        """Builds each stream's key in the prefix cache: two streams over one model share no context."""
        keys: dict[str, tuple[int, int]] = {}
        for stream in self.plan.decoder.streams:
            model = id(self._models[stream.role])
            keys[stream.name] = (model, sum(other == model for other, _ in keys.values()))
        return keys

    def _keys_of(self, names: tuple[str, ...]) -> list[tuple[int, int]]:
        """Lists the keys of a group of streams."""
        return [key for name, key in self.keys().items() if name in names]

    def _read(
        self,
        names: tuple[str, ...],
        cache: PrefixCache,
        progress: Callable[[int, int], None],
        cancelled: Callable[[], bool],
    ) -> tuple[list[int], dict[str, Output]]:
        """Reads the prompts of a group of streams.

        Where of each prompt one id is left, they are read as a step reads them: by one forward.

        Returns:
            Positions of each stream that were reused, and by stream the last logits.
        """
        import torch

        model, keys, ids = self._model(names), self._keys_of(names), [self.ids[name] for name in names]
        joint = cache.join(keys, model, ids, *self._positions()) if len(names) > 1 else None
        needs = self.plan.needs if self.plan.decoder.streams[0].name in names else Needs()
        entries = [
            cache.open(key, model, each, *self._positions(), needs)
            for key, each in zip(keys, ids, strict=True)
        ]
        reused = [len(entry.ids) for entry in entries]
        if joint is not None and all(len(each) - 1 == n for each, n in zip(ids, reused, strict=True)):
            last = to_device([each[-1:] for each in ids], torch.int64, model.info.device)
            is_same = len({each[-1] for each in ids}) == 1
            each_logits = _forward(model, joint, last, is_same=is_same).chunk(len(names))
            outputs = {name: Output(part) for name, part in zip(names, each_logits, strict=True)}
            for name, entry, each in zip(names, entries, ids, strict=True):
                entry.ids.append(each[-1])
                entry.keep_end(outputs[name])
            return reused, outputs
        outputs = {}
        for name, entry, each in zip(names, entries, ids, strict=True):
            outputs[name] = _prefill(model, entry, each, progress, cancelled)
            progress = _silent
        return reused, outputs

    def _positions(self) -> tuple[int, int]:
        """Counts the positions that each context must have, and those that the run reaches."""
        plan = self.plan
        longest = max(len(plan.prompt_of(stream)) for stream in self.ids)
        total = longest + len(plan.request.prefix) + plan.max_new
        return total + SLACK * (plan.num_draft_tokens + 1), total

    def is_held(self, cache: PrefixCache, *, stepped: bool) -> bool:
        """Tells whether a cache holds the ids of every stream, so that the last alone is read again.

        Args:
            cache: Contexts of earlier runs.
            stepped: Ask for contexts in which a run has read that last id alone, too.
        """
        if any(len(names) > 1 and cache.joint(self._keys_of(names)) is None for names in self._groups):
            return False
        for (stream, key), needs in zip(
            self.keys().items(), (self.plan.needs, *[Needs()] * len(self.ids)), strict=False
        ):
            entry, ids = cache.get(key), self.ids[stream]
            if entry is None or not entry.begins_with(ids) or not entry.fits(*self._positions(), needs):
                return False
            if stepped and len(ids) <= entry.stepped and entry.output_after(len(ids), needs) is None:
                return False
        return True

    def launch(self) -> None:
        """Issues one step.

        Where models can be captured, the first two run as they are, which warms every kernel up and shows
        the first token at once; from the third on graphs are replayed.
        """
        runner = self.runner
        if self._proposes_until is not None and self.launched >= self._proposes_until:
            runner.proposing = False
        with computing(self._device):
            if runner.widen() and runner.graphs is None:
                self._captures_at = max(self._captures_at, self.launched + 1)
            began = time.perf_counter()
            if self._capture and self.launched >= self._captures_at and runner.graphs is None:
                self._try_capture()
                self.prepared += time.perf_counter() - began
            if runner.graphs is not None and (self.launched or runner.is_one_graph):
                if not self.launched:
                    runner.table.refresh()  # captured steps do it for those after them
                runner.graphs.replay(alone=self.launched in (0, self.plan.steps - 1))
            else:
                if not runner.logits_current:
                    runner.forward()
                runner.sample_and_record()
                if self._capture:
                    self.prepared += time.perf_counter() - began
        self.launched += 1

    def publish(self) -> None:
        """Lets steps use changes of parameters that bring a link in or take one out.

        All steps that were launched must have been read. Where no graph of these links is kept, the next
        steps run as they are before one is captured.
        """
        with computing(self._device):
            self.runner.publish()
        self._captures_at = self.launched + _PLAIN

    def _try_capture(self) -> None:
        """Captures the runner; a strategy or model that cannot be captured goes on as before."""
        from edge_tui.engine.decode.cuda_graphs import Graphs

        try:
            self.runner.graphs = Graphs(self.runner)
        except Exception as error:
            self._capture = False
            self.uncaptured_reason = logs.first_line(error)

    def costs(self) -> tuple[float, float]:
        """Measures the seconds of a step without proposals and of one with them.

        Measured once for each pair of contexts, which waits for the device; the numbers of all later runs are
        the same, so that what they decide is, too.
        """
        runner, entry = self.runner, self._entry
        assert isinstance(runner, SpeculativeRunner)
        assert entry is not None
        if (known := entry.costs.get(self.plan.num_draft_tokens)) is not None:
            return known
        with computing(self._device):
            if runner.graphs is not None:
                runner.proposing = False
                if runner.graphs is None:
                    self._try_capture()
                runner.proposing = True
            entry.costs[self.plan.num_draft_tokens] = costs = runner.costs()
        return costs

    @property
    def is_draft_stopped(self) -> bool:
        """True once it is decided where proposing ends."""
        return self._proposes_until is not None

    def stop_draft(self) -> None:
        """Ends proposing, from a step on that does not depend on how far the host is ahead."""
        self._proposes_until = self.steps_read + DEPTH + 1

    @property
    def proposing_ended(self) -> int | None:
        """The step from which on nothing was proposed, as `Finished` has it."""
        if not self.plan.num_draft_tokens:
            return None
        until = self._proposes_until
        return until if until is not None and until < self.launched else -1

    def remember(self, cache: PrefixCache, new_ids: list[int]) -> None:
        """Notes in the cache which new tokens its one-row contexts now hold as well, and keeps the runner."""
        if self.plan.rows == 1:
            prefix = self.plan.request.prefix
            for position, (stream, key) in enumerate(self.keys().items()):
                if entry := cache.get(key):
                    # Which of its own proposals a draft has read is not known here.
                    new = [] if self.plan.num_draft_tokens and position else new_ids
                    entry.ids = [*self.plan.prompt_of(stream), *prefix, *new]
                    if self.plan.num_draft_tokens:  # its steps read several ids at once
                        entry.stepped = len(entry.ids)
        if self.captured and self._entry is not None:
            self._entry.keep(self.runner)


def _forward(model: LanguageModel, context: Context, ids: Tensor, *, is_same: bool) -> Tensor:
    """Appends one id to each row, by replaying a captured step where there is one.

    Args:
        model: The context's.
        context: Of `R` rows.
        ids: int64 `[R, 1]`.
        is_same: True where all are the same, which a captured step needs.

    Returns:
        Logits `[R, 1, V]`.
    """
    if is_same and isinstance(context, CapturableContext) and context.replay is not None:
        context.reserve(1)
        return context.replay(ids[:1])
    return model.forward(context, ids).logits


def _prefill(
    model: LanguageModel,
    entry: PrefixEntry,
    ids: list[int],
    progress: Callable[[int, int], None],
    cancelled: Callable[[], bool],
) -> Output:
    """Reads those of some ids that a context does not hold yet; returns the output after the last."""
    import torch

    if (known := entry.output_after(len(ids), entry.context.needs)) is not None:
        return copy_of(known)
    reused, done = len(entry.ids), 0
    fresh = to_device([ids[reused:]], torch.int64, model.info.device)

    def report(read: int, total: int) -> None:
        nonlocal done
        done = read
        progress(reused + read, reused + total)

    try:
        output = model.prefill(entry.context, fresh, progress=report, cancelled=cancelled)
    except BaseException:
        entry.ids.extend(ids[reused : reused + done])
        raise
    entry.ids.extend(ids[reused:])
    entry.keep_end(output)
    return output


def _silent(done: int, total: int) -> None:
    """Reports no progress, for a stream that is not the main one."""
