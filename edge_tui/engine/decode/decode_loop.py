"""Launches the steps of one run ahead of the device and reads their records behind it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from edge_tui.engine.decode.output_processor import BrokenStep, NotANumber
from edge_tui.engine.decode.speculation_gate import SpeculationGate
from edge_tui.engine.events import Failed, FirstToken, Noticed, ParamChanged, Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from edge_tui.engine.decode.generation import Generation
    from edge_tui.engine.decode.kernel_build import KernelBuilds
    from edge_tui.engine.decode.output_processor import OutputProcessor
    from edge_tui.engine.decode.param_table import Run
    from edge_tui.engine.events import Event, FinishReason

_FLUSH = 0.010
"""Seconds between batches: fast enough for any screen, slow enough to cost the decode loop nothing."""
_WARM = 3
"""Steps until everything has been captured."""


class DecodeLoop:
    """Decodes one run from its first step to its last.

    Args:
        run: The request, and the words other threads may change.
        generation: Its launch side, after `prefill`.
        processor: Its records' way to tokens.
        post: Takes events.
        stopped: Tells whether the run is to stop.
        began: When it left the queue, on the monotonic clock.
        kernels: Compiles those that steps launch from the second on.

    Attributes:
        first_token_at: When the first token was on the host, on the monotonic clock; 0 before.
        last_token_at: When the last one was.
    """

    def __init__(
        self,
        run: Run,
        generation: Generation,
        processor: OutputProcessor,
        post: Callable[[Event], None],
        stopped: Callable[[], bool],
        began: float,
        kernels: KernelBuilds,
    ) -> None:
        self._run, self._generation, self._processor = run, generation, processor
        self._post, self._stopped, self._began = post, stopped, began
        self._kernels = kernels
        self._gate: SpeculationGate | None = None
        self._flushed = 0.0
        self._version = 0
        self._prepared = 0.0
        """Seconds that the generation had spent on preparing when the first token came."""
        self.first_token_at = 0.0
        self.last_token_at = 0.0

    @property
    def changed_params(self) -> dict[str, float]:
        """Parameters that were changed while the run went on, as the last token was chosen."""
        return self._generation.runner.table.changes_between(0, self._version)

    @property
    def seconds(self) -> float:
        """Seconds from the first token to the last, without those in which steps were made ready."""
        prepared = self._generation.prepared - self._prepared
        return max(0.0, self.last_token_at - self.first_token_at - prepared)

    @property
    def proposing_ended(self) -> int | None:
        """The step from which on nothing was proposed, as `Finished` has it."""
        return self._generation.proposing_ended

    @property
    def cached_ids(self) -> list[int]:
        """New tokens whose keys and values the contexts hold for certain."""
        generation, processor = self._generation, self._processor
        drafts = generation.plan.num_draft_tokens
        unsure = drafts + 2 if drafts else processor.steps - generation.launched + 1
        return processor.first_row_ids[: max(0, len(processor.first_row_ids) - unsure)]

    def run(self) -> Iterator[None]:
        """Decodes until the text ends, one step for each item; the caller may do something else in between.

        Everything certain has been posted when it ends or raises.

        Raises:
            StrategyError: the strategy's numbers broke, or it gave an id that there is not.
        """
        reason: FinishReason = "length"
        try:
            reason = yield from self._launch_and_read()
        except NotANumber as error:
            reason = "cancelled"
            self._post(
                Failed(
                    f"The model's numbers broke at token {error.index} (NaN or infinite logits):"
                    " try float32 or bfloat16, or check the checkpoint.",
                    self._run.id,
                    code="not_a_number",
                )
            )
        except BrokenStep as error:
            reason = "cancelled"
            raise self._generation.runner.diagnose(error.index, error.is_id) from None
        finally:
            self._processor.end(reason)
            self._post_batch()
            if (gate := self._gate) is not None and gate.proposed and not self._generation.is_draft_stopped:
                self._notify(f"{gate.acceptance:.0%} of {gate.proposed} proposed tokens were accepted.")

    def _launch_and_read(self) -> Generator[None, None, FinishReason]:
        generation = self._generation
        while self._processor.reason is None:
            if self._stopped():
                return "cancelled"
            if generation.runner.table.waiting and not generation.runner.ring.empty:
                self._read(wait=True)  # steps under way have other links than those after the change
                yield
                continue
            if generation.runner.table.waiting:
                generation.publish()
            if generation.launched < generation.plan.steps:
                if generation.launched and self._kernels.is_under_way:
                    self._wait_for_kernels()
                self._launch()
            elif generation.runner.ring.empty:
                break
            self._read(wait=generation.runner.ring.full or generation.launched >= generation.plan.steps)
            yield
        return "length"

    def _wait_for_kernels(self) -> None:
        """Posts the first token, then waits for the kernels of the steps after it."""
        self._read(wait=True)
        began, generation = time.perf_counter(), self._generation
        name = generation.plan.main.model.info.name
        self._kernels.wait(
            lambda done, total: self._post(Progress("compile", done, total, name, self._run.id)),
            self._stopped,
        )
        generation.prepared += time.perf_counter() - began

    def _launch(self) -> None:
        generation = self._generation
        was_captured = generation.captured
        generation.launch()
        if generation.captured and not was_captured:
            self._post(Progress("capture", 1, 1, generation.plan.main.model.info.name, self._run.id))
        if reason := generation.uncaptured_reason:
            generation.uncaptured_reason = ""
            self._notify(f"{generation.plan.decoder.title} runs uncaptured, and so slower: {reason}.")
        if generation.plan.num_draft_tokens and generation.launched == _WARM:
            imposed = generation.plan.request.proposing_ends is not None
            self._gate = SpeculationGate(*((1.0, 1.0) if imposed else generation.costs()))

    def _read(self, wait: bool) -> None:
        """Takes the records that have arrived, and posts what is due."""
        for ints, floats in self._generation.runner.ring.read(wait):
            tokens = self._processor.take(ints, floats)
            now = time.perf_counter()
            if self._generation.plan.num_draft_tokens:
                self._update_gate(len(ints) - 1, tokens)
            if not self.first_token_at:
                self.first_token_at, self._prepared = now, self._generation.prepared
                self._flush()
                self._post(FirstToken(self._run.id, now - self._began))
            self.last_token_at = now
            if (version := int(ints[0, 4])) != self._version:
                self._post_changes(version)
        if self.last_token_at - self._flushed >= _FLUSH:
            self._flush()

    def _update_gate(self, proposed: int, tokens: int) -> None:
        """Gives up proposing where it loses."""
        generation = self._generation
        generation.steps_read += 1
        if self._gate is None or not proposed:
            return
        gain = self._gate.update(proposed, tokens)
        if gain is not None and not generation.is_draft_stopped:
            generation.stop_draft()
            self._notify(
                f"Speculation is off for the rest of this run: {self._gate.acceptance:.0%} of the proposals "
                f"were accepted, which is {gain:.2f} times the speed without them."
            )

    def _post_changes(self, version: int) -> None:
        """Posts the parameters that a newer version of the table brought."""
        table = self._generation.runner.table
        index = len(self._run.request.prefix) + self._processor.steps - 1
        for name, value in table.changes_between(self._version, version).items():
            self._post(ParamChanged(self._run.id, name, value, version, index))
        self._version = version

    def _flush(self) -> None:
        """Posts a batch, some hundred times a second, for a run that somebody watches."""
        self._flushed = time.perf_counter()
        if self._run.request.watched:
            self._post_batch()

    def _post_batch(self) -> None:
        """Posts the tokens that have become certain."""
        if (batch := self._processor.batch()) is not None:
            self._post(batch)

    def _notify(self, sentence: str) -> None:
        self._post(Noticed(self._run.id, sentence))
