"""The host side of a run: records become tokens with text, and a reason to stop is noticed.

It works behind the device, on what the ring has delivered. Nothing leaves it that later would have to be
taken back: text that might begin a stop string is held until it is certain.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edge_tui.engine.events import TOP, FinishReason, TokenBatch
from edge_tui.engine.ops.stats import FLOATS, INTS
from edge_tui.engine.text import StopScanner

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from decoders.base import Decoder
    from edge_tui.engine.text import Codec, Detokenizer

_RAW_IDS = slice(len(INTS), len(INTS) + TOP)
_FINAL_IDS = slice(len(INTS) + TOP, len(INTS) + 2 * TOP)
_RAW_LOGPS = slice(len(FLOATS), len(FLOATS) + TOP)
_FINAL_LOGPS = slice(len(FLOATS) + TOP, len(FLOATS) + 2 * TOP)
_EXTRAS = slice(len(FLOATS) + 2 * TOP, None)


class NotANumber(ArithmeticError):
    """The model's logits stopped being numbers; `index` is the token that could not be chosen."""

    def __init__(self, index: int) -> None:
        super().__init__(f"logits of token {index} are not finite")
        self.index = index


@dataclass(slots=True)
class History:
    """A run's steps on the host, indexed `[step][row]`, for strategies that choose among rows."""

    tokens: list[list[int]] = field(default_factory=list)
    parents: list[list[int]] = field(default_factory=list)
    extras: dict[str, list[list[float]]] = field(default_factory=dict)


class Scribe:
    """Turns one run's records into batches.

    Args:
        run: The run's id.
        decoder: Its strategy.
        codec: The main model's tokenizer.
        context_ids: Prompt and kept prefix, so that the first piece joins them correctly.
        start: Index of the first new token.
        max_new: Bound of new tokens.
        stops: Stop strings.
        rows: Rows decoded side by side.
    """

    def __init__(
        self,
        run: int,
        decoder: Decoder,
        codec: Codec,
        context_ids: list[int],
        start: int,
        max_new: int,
        stops: tuple[str, ...],
        rows: int,
    ) -> None:
        self.run = run
        self.fed: list[int] = []
        """Row 0's tokens that reached the screen or were held; what the cached context holds as well."""
        self.history = History(extras={name: [] for name in decoder.columns})
        self.reason: FinishReason | None = None
        self.tail = ""
        self.count = 0
        self._columns = decoder.columns
        self._keep_history = decoder.owns_eos
        self._start = start
        self._max_new = max_new
        self._texts: list[Detokenizer] = [codec.detokenizer(context_ids) for _ in range(rows)]
        self._scanner = StopScanner(stops) if stops and not decoder.owns_eos else None
        self._held: dict[int, tuple[NDArray[Any], NDArray[Any]]] = {}
        self._ready: list[tuple[int, NDArray[Any], NDArray[Any], list[str]]] = []

    def take(self, ints: NDArray[Any], floats: NDArray[Any]) -> None:
        """Reads one step's record: `[R, …]` each. Records after the end of the run are dropped.

        Raises:
            NotANumber: the model's logits were not finite.
        """
        if self.reason is not None:
            return
        index = self._start + self.count
        entropy = floats[:, FLOATS.index("entropy")]
        if not (abs(entropy) < 1e30).all():  # NaN compares false
            raise NotANumber(index)
        ids, parents = ints[:, 0].tolist(), ints[:, 1].tolist()
        self._texts = [
            self._texts[parent] if parent == row else self._texts[parent].fork()
            for row, parent in enumerate(parents)
        ]
        texts = [text.push(token) for text, token in zip(self._texts, ids, strict=True)]
        self.count += 1
        self.fed.append(ids[0])
        if self._keep_history:
            self.history.tokens.append(ids)
            self.history.parents.append(parents)
            for position, name in enumerate(self._columns):
                self.history.extras[name].append(floats[:, _EXTRAS][:, position].tolist())
        if self._scanner is None:
            self._ready.append((index, ints, floats, texts))
        else:
            self._scan(index, ints, floats, texts[0])
        self._note_end(ints)

    def _note_end(self, ints: NDArray[Any]) -> None:
        if self.reason is not None:  # a stop string came first
            return
        done = bool(ints[:, INTS.index("done")].all())
        if self._keep_history and self.count >= self._max_new:
            self.reason = "length"  # a search that is cut off declares its rows done as well
        elif done:
            self.reason = "done" if self._keep_history else "eos"
        elif self.count >= self._max_new:
            self.reason = "length"

    def _scan(self, index: int, ints: NDArray[Any], floats: NDArray[Any], text: str) -> None:
        assert self._scanner is not None
        self._held[index] = (ints, floats)
        released, stopped = self._scanner.push(index, text)
        self._release(released)
        if stopped:
            self.reason = "stop"
            self._held.clear()

    def _release(self, released: list[tuple[int, str]]) -> None:
        for index, text in released:
            ints, floats = self._held.pop(index)
            self._ready.append((index, ints, floats, [text]))

    def end(self, reason: FinishReason) -> None:
        """No more records will come: lets go of what was held, and of an unfinished character."""
        if self.reason is None:
            self.reason = reason
        if self.reason != "stop":
            if self._scanner is not None:
                self._release(self._scanner.flush())
            self.tail = self._texts[0].flush() if not self._keep_history else ""

    def batch(self) -> TokenBatch | None:
        """Everything that became certain since the last call."""
        if not self._ready:
            return None
        import numpy as np

        ready, self._ready = self._ready, []
        ints = np.concatenate([ints for _, ints, _, _ in ready])
        floats = np.concatenate([floats for _, _, floats, _ in ready])
        rows = ready[0][1].shape[0]
        return TokenBatch(
            run=self.run,
            step=np.repeat(np.array([index for index, *_ in ready], np.int32), rows),
            row=np.tile(np.arange(rows, dtype=np.int32), len(ready)),
            id=ints[:, INTS.index("id")],
            parent=ints[:, INTS.index("parent")],
            rank=ints[:, INTS.index("rank")],
            version=ints[:, INTS.index("version")],
            raw_logp=floats[:, FLOATS.index("raw_logp")],
            final_logp=floats[:, FLOATS.index("final_logp")],
            entropy=floats[:, FLOATS.index("entropy")],
            top_ids=ints[:, _RAW_IDS],
            top_logp=floats[:, _RAW_LOGPS],
            final_ids=ints[:, _FINAL_IDS],
            final_top_logp=floats[:, _FINAL_LOGPS],
            extras=floats[:, _EXTRAS],
            text=tuple(text for *_, texts in ready for text in texts),
        )
