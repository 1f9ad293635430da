"""Keeps contexts between runs, so that the unchanged part of a prompt is not read again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_tui.decoders.base import Decoder
    from edge_tui.engine.decode.step_runner import StepRunner
    from edge_tui.engine.models.base import Context, LanguageModel

_RUNNERS = 8
"""Captured runners kept with a context: one for each strategy and width used lately."""


@dataclass(slots=True)
class PrefixEntry:
    """A context kept between runs.

    Attributes:
        context: One row.
        ids: The ids whose keys and values it holds.
        runners: Captured runners whose main stream reads it, latest last.
        costs: Of steps without proposals and with so many of them.
    """

    context: Context
    ids: list[int] = field(default_factory=list)
    runners: list[StepRunner] = field(default_factory=list)
    costs: dict[int, tuple[float, float]] = field(default_factory=dict)

    def find(
        self, decoder: Decoder, rows: int, proposals: int, eos: tuple[int, ...], roots: list[Context]
    ) -> StepRunner | None:
        """A runner that fits a run, taken off the shelf; those that no run can fit again are dropped."""
        self.runners = [
            runner for runner in self.runners if runner.decoder is not decoder or runner.roots == roots
        ]
        for runner in self.runners:
            if (runner.decoder, runner.rows, runner.num_draft_tokens, runner.eos) == (
                decoder,
                rows,
                proposals,
                eos,
            ):
                self.runners.remove(runner)
                return runner
        return None

    def fits(self, need: int, total: int) -> bool:
        """Whether a run can take the context over that needs room and reaches `total` positions in all."""
        return self.context.capacity >= need and total in self.context.totals

    def keep(self, runner: StepRunner) -> None:
        self.runners = [*self.runners[1 - _RUNNERS :], runner]


class PrefixCache(dict[tuple[int, int], PrefixEntry]):
    """Maps `id(model)`, and how many streams of a run read that model before, to the context kept for it."""

    def drop_model(self, model: LanguageModel) -> None:
        """Forgets a model's contexts, and the captured runners of pairs that read it beside another."""
        for key in [key for key in self if key[0] == id(model)]:
            del self[key]
        for entry in self.values():
            entry.runners = [runner for runner in entry.runners if model not in runner.streams.values()]
