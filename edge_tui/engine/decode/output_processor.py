"""Turns the records of a run into tokens with text, and finds the reason to stop.

It works behind the device, on what the ring has delivered. Nothing leaves it that later would have to be
taken back: text that might begin a stop string waits until it is certain.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from edge_tui.decoders.base import Records, names_of
from edge_tui.engine.events import TOP, FinishReason, TokenBatch
from edge_tui.engine.ops.stats import FLOATS, INTS, OUT_OF_RANGE, STAGES
from edge_tui.engine.text.stop_scanner import StopScanner

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from edge_tui.engine.decode.run_plan import RunPlan
    from edge_tui.engine.text.tokenizer import Detokenizer

_PARENT, _DONE = INTS.index("parent"), INTS.index("done")
_RAW_IDS = slice(len(INTS), len(INTS) + TOP)
_FINAL_IDS = slice(len(INTS) + TOP, len(INTS) + 2 * TOP)
_RAW_LOGPS = slice(len(FLOATS), len(FLOATS) + TOP)
_FINAL_LOGPS = slice(len(FLOATS) + TOP, len(FLOATS) + 2 * TOP)
_OWN = len(FLOATS) + 2 * TOP
"""The column at which the strategy's own numbers begin."""


class Entry(NamedTuple):
    """Holds a record that is certain: its step, its first row, the columns of its rows, and their texts."""

    step: int
    row: int
    ints: NDArray[Any]
    floats: NDArray[Any]
    texts: list[str]


class NotANumber(ArithmeticError):
    """Reports logits of a model that are no numbers; `index` is the token that could not be chosen."""

    def __init__(self, index: int) -> None:
        super().__init__(f"logits of token {index} are not finite")
        self.index = index


class BrokenStep(ArithmeticError):
    """Reports a strategy's logits that are no numbers, or an id of its that there is not.

    Attributes:
        index: The token that could not be chosen.
        is_id: True where it was an id.
    """

    def __init__(self, index: int, is_id: bool) -> None:
        super().__init__(f"the choice of token {index} is broken")
        self.index, self.is_id = index, is_id


def _check(ints: NDArray[Any], floats: NDArray[Any], index: int) -> None:
    """Checks the numbers of a record's rows that show faults.

    Raises:
        NotANumber: the model's logits were not finite.
        BrokenStep: the strategy's were not, or it gave a token or a parent that there is not.
    """
    if not (abs(floats[:, FLOATS.index("entropy")]) < 1e30).all():  # NaN compares false
        raise NotANumber(index)
    if (ints[:, _DONE] & OUT_OF_RANGE).any():
        raise BrokenStep(index, is_id=True)
    # NaN or +inf among the final logits, or nothing left of them, makes NaN of their normaliser.
    final = floats[:, FLOATS.index("final_logp")]
    if (final != final).any():
        raise BrokenStep(index, is_id=False)


@dataclass(slots=True)
class SequenceState:
    """Builds the text of one row.

    Attributes:
        row: The row.
        text: Turns its ids into characters.
        ends: Ids that end it; their characters are not part of it.
        scanner: Looks for stop strings, if there are any.
        pending: Records whose text may still become a stop string, by index.
        count: Tokens taken.
        reason: Why it ended; None while it goes on.
        tail: Text that became certain only with the end.
    """

    row: int
    text: Detokenizer
    ends: frozenset[int]
    scanner: StopScanner | None
    pending: dict[int, tuple[NDArray[Any], NDArray[Any]]] = field(default_factory=dict)
    count: int = 0
    reason: FinishReason | None = None
    tail: str = ""

    def has_ended(self) -> bool:
        """Tells whether no more tokens of it count."""
        return self.reason is not None

    def take(self, index: int, ints: NDArray[Any], floats: NDArray[Any], is_last: bool) -> list[Entry]:
        """Takes one token, int32 and float32 `[1, …]`; returns the records that became certain."""
        token = int(ints[0, 0])
        shown = token not in self.ends
        text = self.text.push(token) if shown or self.scanner is not None else ""
        self.count += 1
        if self.scanner is None:
            entries = [Entry(index, self.row, ints, floats, [text])]
        else:
            self.pending[index] = (ints, floats)
            released, stopped = self.scanner.push(index, text, token, shown)
            entries = self._release(released)
            if stopped:
                self.reason = "stop"
                self.pending.clear()
                return entries
        if ints[0, _DONE] or is_last:
            entries += self.end("eos" if ints[0, _DONE] else "length")
        return entries

    def end(self, reason: FinishReason) -> list[Entry]:
        """Ends the text, with an unfinished character in `tail`; returns the records that were pending."""
        self.reason = reason
        self.tail = self.text.flush()
        return self._release(self.scanner.flush()) if self.scanner is not None else []

    def _release(self, released: list[tuple[int, str]]) -> list[Entry]:
        return [Entry(index, self.row, *self.pending.pop(index), [text]) for index, text in released]


class OutputProcessor:
    """Turns one run's records into batches.

    Rows are either samples, each with a text and an end of its own, or the hypotheses of a search, whose
    texts continue one another.

    Args:
        run: The run's id.
        plan: Its facts.
    """

    def __init__(self, run: int, plan: RunPlan) -> None:
        decoder, tokenizer, stops = plan.decoder, plan.main.tokenizer, plan.request.stop
        self.run = run
        self.first_row_ids: list[int] = []
        """Row 0's tokens; what the cached context holds as well."""
        self.reason: FinishReason | None = None
        self.steps = 0
        """Records taken; one counts all rows."""
        self._tokens: list[list[int]] = []
        self._parents: list[list[int]] = []
        self._columns = names_of(decoder.all_columns)
        self._numbers: dict[str, list[list[float]]] = {name: [] for name in self._columns}
        """A search's extras, as its tokens and parents indexed `[step][row]`."""
        self._extras = slice(_OWN, _OWN + len(self._columns))
        self._searches = decoder.kind == "search"
        self._proposes = plan.num_draft_tokens > 0
        """True where a record's rows are positions of one text, of which only some count."""
        self._start = len(plan.request.prefix)
        self._most_steps = plan.steps
        self._ends = frozenset(tokenizer.end_ids)
        self._texts: list[Detokenizer] = []
        """The texts of a search, by row."""
        self._sequences: list[SequenceState] = []
        """The samples, by row."""
        if self._searches:
            self._texts = [tokenizer.detokenizer(plan.ids) for _ in range(plan.rows)]
        else:
            self._sequences = [
                SequenceState(
                    row,
                    tokenizer.detokenizer(plan.ids),
                    self._ends,
                    StopScanner(stops, tokenizer.control) if stops else None,
                )
                for row in range(plan.rows)
            ]
        self._ready: list[Entry] = []

    @property
    def count(self) -> int:
        """New tokens: of all samples together, or of one hypothesis."""
        return self.steps if self._searches else sum(sequence.count for sequence in self._sequences)

    @property
    def tails(self) -> tuple[str, ...]:
        """Text of each sample that became certain only with its end."""
        return tuple(sequence.tail for sequence in self._sequences)

    @property
    def reasons(self) -> tuple[FinishReason, ...]:
        """The reason of each sample's end, once the run has ended; of a search the one reason."""
        reason = self.reason or "cancelled"
        return tuple(sequence.reason or reason for sequence in self._sequences) or (reason,)

    def take(self, ints: NDArray[Any], floats: NDArray[Any]) -> int:
        """Reads one step's record: `[R, …]` each. Records after the end of the run are dropped.

        Returns:
            How many tokens of row 0 it held.

        Raises:
            NotANumber: the model's logits were not finite.
            BrokenStep: the strategy broke them, or gave an id that there is not.
        """
        if self.reason is not None:
            return 0
        if not self._proposes:
            self._take_step(ints, floats)
            return 1
        taken = int((ints[:, _PARENT] >= 0).sum())
        for position in range(taken):
            if self.reason is None:
                self._take_step(ints[position : position + 1], floats[position : position + 1])
        return taken

    def _take_step(self, ints: NDArray[Any], floats: NDArray[Any]) -> None:
        """Takes one token of each row that goes on."""
        index = self._start + self.steps
        # The device goes on with samples that have ended; their numbers no longer matter.
        going = slice(None) if self._searches else [not sequence.has_ended() for sequence in self._sequences]
        _check(ints[going], floats[going], index)
        self.steps += 1
        self.first_row_ids.append(int(ints[0, 0]))
        if self._searches:
            self._take_search(index, ints, floats)
            return
        for row, sequence in enumerate(self._sequences):
            if not sequence.has_ended():
                at = slice(row, row + 1)
                self._ready += sequence.take(index, ints[at], floats[at], self.steps >= self._most_steps)
        if all(sequence.has_ended() for sequence in self._sequences):
            self.reason = self._sequences[0].reason

    def _take_search(self, index: int, ints: NDArray[Any], floats: NDArray[Any]) -> None:
        """Takes one step of a search, whose rows continue others by `parent`."""
        ids, parents = ints[:, 0].tolist(), ints[:, 1].tolist()
        self._texts = [
            self._texts[parent] if parent == row else self._texts[parent].fork()
            for row, parent in enumerate(parents)
        ]
        texts = [
            "" if token in self._ends else text.push(token)
            for text, token in zip(self._texts, ids, strict=True)
        ]
        self._tokens.append(ids)
        self._parents.append(parents)
        for position, name in enumerate(self._columns):
            self._numbers[name].append(floats[:, _OWN + position].tolist())
        self._ready.append(Entry(index, 0, ints, floats, texts))
        if self.steps >= self._most_steps:
            self.reason = "length"  # a search that is cut off declares its rows done as well
        elif ints[:, _DONE].all():
            self.reason = "done"

    def end(self, reason: FinishReason) -> None:
        """Ends every text that still goes on, for this reason; no more records will come."""
        if self.reason is None:
            self.reason = reason
        for sequence in self._sequences:
            if not sequence.has_ended():
                self._ready += sequence.end(reason)

    def records(self, values: Mapping[str, float]) -> Records:
        """Returns the steps of a search, and the parameters that hold at its end; no steps of other runs."""
        return Records(self._tokens, self._parents, self._numbers, values)

    def batch(self) -> TokenBatch | None:
        """Takes the tokens that became certain since the last call; None if there are none."""
        if not self._ready:
            return None
        import numpy as np

        ready, self._ready = self._ready, []
        ints = np.concatenate([entry.ints for entry in ready])
        floats = np.concatenate([entry.floats for entry in ready])
        columns = dict(zip(INTS, ints.T, strict=False)) | dict(zip(FLOATS, floats.T, strict=False))
        del columns["done"]
        return TokenBatch(
            run=self.run,
            step=np.array([entry.step for entry in ready for _ in entry.texts], np.int32),
            row=np.array([row for entry in ready for row, _ in enumerate(entry.texts, entry.row)], np.int32),
            top_ids=ints[:, _RAW_IDS],
            top_logp=floats[:, _RAW_LOGPS],
            final_ids=ints[:, _FINAL_IDS],
            final_top_logp=floats[:, _FINAL_LOGPS],
            removing_stage=ints[:, STAGES],
            extras=floats[:, self._extras],
            text=tuple(text for entry in ready for text in entry.texts),
            candidates=self._candidates(floats),
            **columns,
        )

    def _candidates(self, floats: NDArray[Any]) -> NDArray[Any] | None:
        """Reads the strategy's numbers for the alternatives; None if it has none."""
        columns = floats[:, self._extras.stop :]
        return columns.reshape(len(columns), len(self._columns), 2, TOP) if columns.shape[1] else None
