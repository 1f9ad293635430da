"""Keeps contexts between runs, so that the unchanged part of a prompt is not read again."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from edge_tui.decoders.base import Needs
from edge_tui.engine.decode.host_copies import to_device
from edge_tui.engine.models.base import JointContext, ResumableContext
from edge_tui.engine.models.capacity import round_up
from edge_tui.engine.models.device_memory import release_cached_memory
from edge_tui.engine.out_of_memory import is_out_of_memory, release

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from edge_tui.decoders.base import Decoder, Output
    from edge_tui.engine.decode.learned_prefix import LearnedState
    from edge_tui.engine.decode.step_runner import StepRunner
    from edge_tui.engine.models.base import Context, LanguageModel

_RUNNERS = 8
"""Most captured runners of one context: one for each strategy and width used lately."""


@dataclass(frozen=True, slots=True)
class PrefixEnd:
    """Holds the output after the last of the ids that a run began with.

    A run that begins with the same ids has it from here. To read the last id again, alone, is another product
    than to read it with others, and its last digits differ: in 16 bit that moves draws.

    Attributes:
        length: Number of the ids.
        needs: What was asked for beside logits.
        output: The output, in memory of its own.
    """

    length: int
    needs: Needs
    output: Output


@dataclass(slots=True)
class PrefixEntry:
    """Holds one context between runs.

    Attributes:
        context: One row.
        ids: The ids whose keys and values it holds.
        runners: Captured runners whose main stream reads it, latest last.
        costs: Seconds of steps without proposals and with them, by their number.
        stepped: Position from which on each id was read alone, by a run that chose the next token after it:
            reading such an id again gives the run's own numbers.
        learned: What a strategy that learns knew after some of the ids.
        joint: The context that `context` is a row of, beside those of other streams; None for one by itself.
        end: The output after the first of the ids, as many as the latest run began with; None where it is not
            kept.
    """

    context: Context
    ids: list[int] = field(default_factory=list)
    runners: list[StepRunner] = field(default_factory=list)
    costs: dict[int, tuple[float, float]] = field(default_factory=dict)
    stepped: int = 0
    learned: LearnedState | None = None
    joint: JointContext | None = None
    end: PrefixEnd | None = None

    def keep_end(self, output: Output) -> None:
        """Keeps the output after all ids; not one with past states, which change where they lie."""
        needs = self.context.needs
        self.end = None if needs.past else PrefixEnd(len(self.ids), needs, copy_of(output))

    def output_after(self, length: int, needs: Needs) -> Output | None:
        """Returns the output after so many of the ids; None if it is not kept."""
        end = self.end
        return end.output if end is not None and (end.length, end.needs) == (length, needs) else None

    def find(
        self, decoder: Decoder, rows: int, proposals: int, eos: tuple[int, ...], roots: list[Context]
    ) -> StepRunner | None:
        """Removes and returns a runner that fits a run; drops those that no run can fit again.

        Args:
            decoder: The run's strategy.
            rows: Its rows.
            proposals: Tokens proposed in each step.
            eos: Ids that end a sequence.
            roots: The contexts of its groups of streams, which say what their forwards give.
        """
        self._drop([each for each in self.runners if each.decoder is decoder and each.roots != roots])
        wanted = decoder, rows, proposals, eos, roots[0].needs
        for runner in self.runners:
            made = runner.decoder, runner.rows, runner.num_draft_tokens, runner.eos, runner.needs
            if made == wanted:
                self.runners.remove(runner)
                return runner
        return None

    def fits(self, need: int, total: int, needs: Needs) -> bool:
        """Tells whether the context has `need` positions and serves a run that reaches `total` of them.

        Past states that were not kept while the prompt was read cannot be made up for.
        """
        context = self.context
        keeps = context.past is not None or not needs.past
        return context.capacity >= need and total in context.totals and keeps

    def begins_with(self, ids: Sequence[int]) -> bool:
        """Tells whether the context holds some ids, and may be read at their end and keep those after."""
        return self.ids[: len(ids)] == list(ids) and isinstance(self.context, ResumableContext)

    def free(self) -> None:
        """Drops all runners."""
        self._drop(self.runners)

    def _drop(self, runners: list[StepRunner]) -> None:
        """Drops runners, and their graphs, which know them: their contexts would wait for the collector."""
        self.runners = [runner for runner in self.runners if runner not in runners]
        for runner in runners:
            runner.forget_graphs()

    def drop_readers(self, model: LanguageModel) -> None:
        """Drops the runners that read a model."""
        self._drop([runner for runner in self.runners if model in runner.models])

    def keep(self, runner: StepRunner) -> None:
        """Adds a runner, and drops the oldest beyond the limit."""
        self.runners.append(runner)
        self._drop(self.runners[:-_RUNNERS])


class PrefixCache(dict[tuple[int, int], PrefixEntry]):
    """Maps `id(model)`, and the number of streams of a run before that read that model, to a context."""

    def open(
        self,
        key: tuple[int, int],
        model: LanguageModel,
        ids: list[int],
        need: int,
        total: int,
        needs: Needs = Needs(),  # noqa: B008 — it is immutable
    ) -> PrefixEntry:
        """Returns a context with room that holds the longest known prefix of some ids, and nothing else.

        The last id is part of it where the output after it is kept. Else it is read again for its logits,
        which the first step chooses from.

        Args:
            key: The stream's.
            model: Its model.
            ids: Tokens that will be read.
            need: Positions that must fit.
            total: Positions that the run reaches.
            needs: Outputs of its forwards beside logits.
        """
        import torch

        entry = self.get(key)
        reused = _common_length(entry.ids, ids) if entry else 0
        if entry is None or entry.output_after(len(ids), needs) is None:
            reused = max(0, min(reused, len(ids) - 1))
        rewinds = entry is not None and reused < len(entry.ids)
        if entry is None or not entry.fits(need, total, needs) or (rewinds and not model.caps.rewind):
            self._drop(key)
            entry = None  # its memory is given back before the next one is opened
            entry = self[key] = PrefixEntry(model.open(1, round_up(need), total, needs.past))
            reused = 0
        entry.context.needs = needs
        entry.context.truncate(to_device([reused], torch.int64, model.info.device))
        del entry.ids[reused:]
        if entry.end is not None and entry.end.length > reused:
            entry.end = None
        if len(ids) - reused > 1 or reused < entry.stepped:
            entry.stepped = len(ids) - (len(ids) - reused == 1)
        return entry

    def joint(self, keys: Sequence[tuple[int, int]]) -> JointContext | None:
        """Returns the context whose rows are those of the keys; None where they are not rows of one."""
        first = self.get(keys[0])
        joint = None if first is None else first.joint
        if joint is None or joint.rows != len(keys):
            return None
        entries = map(self.get, keys)
        return joint if all(entry is not None and entry.joint is joint for entry in entries) else None

    def join(
        self,
        keys: Sequence[tuple[int, int]],
        model: LanguageModel,
        ids: Sequence[list[int]],
        need: int,
        total: int,
    ) -> JointContext:
        """Makes the contexts of several streams rows of one, which keep what they hold of some ids.

        What they hold is copied where there is memory for both, and read again where there is not.

        Args:
            keys: The streams', always in the same order.
            model: Their model, which takes rows of different lengths.
            ids: Tokens that each stream will read.
            need: Positions that must fit.
            total: Positions that the run reaches.
        """
        joint = self.joint(keys)
        if joint is not None and self[keys[0]].fits(need, total, Needs()):
            return joint
        before = {row: entry for row, key in enumerate(keys) if (entry := self.get(key)) is not None}
        try:
            new = model.open(len(keys), round_up(need), total)
        except Exception as error:
            if not before or not is_out_of_memory(error):
                raise
            release(error)
            before.clear()
            for key in keys:
                self._drop(key)
            release_cached_memory()
            new = model.open(len(keys), round_up(need), total)
        assert isinstance(new, JointContext), "Caps.unequal_rows is 1"
        for key in keys:
            self._drop(key)
        for row, key in enumerate(keys):
            self[key] = PrefixEntry(new.row(row), joint=new)
            if (entry := before.get(row)) is not None and total in entry.context.totals:
                known = _common_length(entry.ids, ids[row])
                new.adopt(row, entry.context, known)
                self[key].ids, self[key].learned = entry.ids[:known], entry.learned
                self[key].stepped = entry.stepped
        return new

    def _drop(self, key: tuple[int, int]) -> None:
        """Forgets a stream's context, with those that are rows of the same memory, and frees their memory."""
        entry = self.pop(key, None)
        if entry is None:
            return
        entry.free()
        if entry.joint is not None:
            for other in [other for other, each in self.items() if each.joint is entry.joint]:
                self.pop(other).free()

    @contextmanager
    def later_ids_kept(self, ids: Mapping[tuple[int, int], Sequence[int]]) -> Iterator[None]:
        """Gives contexts that are read at an earlier position, inside, the ids back that come after it.

        Args:
            ids: The ids that are read, by the key of the stream.
        """
        later = {
            key: (entry, list(entry.ids), entry.stepped, entry.end)
            for key in ids
            if (entry := self.get(key)) is not None and entry.begins_with(ids[key])
        }
        try:
            yield
        finally:
            for key, (entry, before, stepped, end) in later.items():
                if self.get(key) is entry and isinstance(entry.context, ResumableContext):
                    entry.context.resume(len(before))
                    entry.ids, entry.stepped, entry.end = before, stepped, end

    def drop_model(self, model: LanguageModel) -> None:
        """Forgets a model's contexts, and the captured runners of pairs that read it beside another."""
        for key in [key for key in self if key[0] == id(model)]:
            self.pop(key).free()
        for entry in self.values():
            entry.drop_readers(model)


def copy_of(output: Output) -> Output:
    """Copies an output into memory of its own."""
    return replace(output, **{name: tensor.clone() for name, tensor in output.tensors().items()})


def _common_length(a: list[int], b: list[int]) -> int:
    """Counts the ids of the common prefix."""
    shorter = min(len(a), len(b))
    return next((index for index in range(shorter) if a[index] != b[index]), shorter)
