"""Prompts that a model has read, and an engine that reads them as a test says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edge_tui.engine.events import TOP, Failed, Finished, Progress, PromptRead, Queued, Started
from edge_tui.engine.port import Request
from tests.tui.engines import PictureEngine
from tests.tui.transcripts import batch


def prompt_read(run: int, parts: Sequence[tuple[str, str]], control: Sequence[int] = ()) -> PromptRead:
    """A prompt of texts with their roles; ids count from 100 and log-probabilities from −1."""
    count = len(parts)
    numbers = np.arange(count, dtype=np.float32)
    logp = np.where(numbers > 0, -numbers, np.nan)
    top = np.tile(np.linspace(-0.5, -6, TOP, dtype=np.float32), (count, 1))
    ids = np.tile(np.arange(TOP, dtype=np.int32), (count, 1))
    return PromptRead(
        run,
        tuple(100 + index for index in range(count)),
        logp.astype(np.float32),
        np.where(numbers > 0, numbers * 10, -1).astype(np.int32),
        np.where(numbers > 0, numbers / 8, np.nan).astype(np.float32),
        ids,
        top,
        4.66,
        ids[0],
        top[0],
        tuple(text for text, _ in parts),
        tuple(role for _, role in parts),
        tuple(control),
    )


class ReadingEngine(PictureEngine):
    """Reads each prompt as `parts`, at once or once it is told to.

    Args:
        parts: Texts with their roles.
        control: Ids of control tokens among them.
        names: Texts of single tokens by their ids.
    """

    def __init__(
        self,
        parts: Sequence[tuple[str, str]],
        control: Sequence[int] = (),
        names: dict[int, str] | None = None,
    ) -> None:
        super().__init__()
        self.parts, self.control, self.names = parts, control, names or {}
        self.waits = False
        """Whether readings wait until `tell`."""
        self.failure = ""
        self.reading: list[int] = []

    def submit(self, request: Request, beside: int | None = None) -> int:
        if not request.prompt_logps:
            return super().submit(request, beside)
        self.requests.append(request)
        run = len(self.requests)
        self.events.append(Queued(run))
        self.reading.append(run)
        if not self.waits:
            self.tell()
        return run

    def progress(self, done: int, total: int) -> None:
        self.events.append(Progress("prefill", done, total, "model", self.reading[-1]))

    def tell(self) -> None:
        """Ends the readings that wait."""
        for run in self.reading:
            request = self.requests[run - 1]
            if self.failure:
                self.events.append(Failed(self.failure, run, "prompt"))
                continue
            self.events += [
                prompt_read(run, self.parts, self.control),
                Started(run, request.strategy, 1, (), len(self.parts), 0, 0, 1, 7, {}, ("A notice.",)),
            ]
            if request.max_length:
                self.events.append(replace(batch([" then"]), run=run))
            self.events.append(Finished(run, "length", request.max_length, 0.0, 0.0))
        self.reading.clear()

    def decode(self, ids: Sequence[int]) -> list[str]:
        return [self.names.get(each, f" word{each}") for each in ids]
