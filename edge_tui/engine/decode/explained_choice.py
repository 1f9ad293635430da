"""Builds an explanation of a step that was followed: what each stage did, and the sums of the few best."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import inf, isnan, nan
from typing import TYPE_CHECKING

from edge_tui.decoders.base import Decoder, names_of
from edge_tui.engine.decode.choice_numbers import gather
from edge_tui.engine.decode.cut_edges import edge_gaps
from edge_tui.engine.decode.known_luck import KnownLuck
from edge_tui.engine.explanation import Candidate, Explanation, StageView
from edge_tui.util.sanitise import visible

if TYPE_CHECKING:
    from torch import Tensor

    from edge_tui.decoders.base import Rng
    from edge_tui.engine.decode.choice_numbers import ChoiceNumbers, StageNumbers
    from edge_tui.engine.decode.proposal_check import ProposalCheck, Verdict
    from edge_tui.engine.decode.run_plan import RunPlan
    from edge_tui.engine.decode.stage_trace import StageChange, Trace
    from edge_tui.engine.port import Question


@dataclass(frozen=True)
class ExplainedChoice:
    """Holds the first row of a step that was followed, and what decided there.

    Attributes:
        question: The question.
        plan: The run's facts.
        trace: The step.
        proposal: What would become of a proposal; None for strategies that make none.
        rng: The step's random numbers.
    """

    question: Question
    plan: RunPlan
    trace: Trace
    proposal: ProposalCheck | None
    rng: Rng

    @cached_property
    def numbers(self) -> ChoiceNumbers:
        """The numbers of the step; reads them of the device."""
        decoder, question = self.plan.decoder, self.question
        others = (*question.ids, *((self.proposal.token,) if self.proposal is not None else ()))
        columns = names_of(decoder.columns) if decoder.kind == "sample" else ()
        has_luck = not decoder.owns_eos and not self.is_by_ratio
        return gather(self.trace, question.token, others, self._luck if has_luck else None, columns)

    def _luck(self, ids: Tensor) -> Tensor:
        """Gives the noise float32 `[N]` of tokens int64 `[N]`, which the strategy knows."""
        decoder, rng = self.plan.decoder, self.rng
        if isinstance(rng, KnownLuck) and type(decoder).luck is Decoder.luck:
            return rng.noise[ids]
        return decoder.luck(ids[None], rng)[0]

    @property
    def draws(self) -> bool:
        """True where luck decided."""
        return not (self.plan.decoder.owns_eos or self.is_by_ratio or self.numbers.took_best)

    @property
    def verdict(self) -> Verdict:
        """The verdict on a proposal in the token's place."""
        if self.proposal is None:
            return "none"
        is_first = not self.plan.request.prefix
        return self.proposal.verdict(self.question.token, self.question.recorded, is_first)

    @property
    def proposed(self) -> str:
        """The text of the proposal; "" where none was made."""
        if self.proposal is None or self.verdict == "none":
            return ""
        return self.plan.main.tokenizer.token_strings([self.proposal.proposed])[0]

    @property
    def is_by_ratio(self) -> bool:
        """True where p/q of a proposal decided, and not the luck of a draw."""
        return self.proposal is not None and self.verdict != "none" and not isnan(self.proposal.ratio)

    @property
    def winner(self) -> int:
        """The token that is taken here and now; that of the record where a search decided among rows."""
        if self.plan.decoder.owns_eos:
            return self.question.token
        if self.is_by_ratio and self.proposal is not None:
            return self.proposal.token
        return self.numbers.chosen

    @cached_property
    def edge_gaps(self) -> dict[int, tuple[float, ...]]:
        """Distances of the best sums' tokens from the edges of stages; read where they are asked for."""
        changes = [self.trace.changes[i] for i in self.numbers.changes]
        return edge_gaps(changes, list(dict.fromkeys((self.question.token, *self.numbers.best))))

    def explanation(self) -> Explanation:
        """Builds the explanation; sentence, others and exactness are for the caller to add."""
        numbers, question = self.numbers, self.question
        listed = (question.token, *numbers.best, self.winner, *numbers.likeliest, *question.ids)
        return Explanation(
            token=question.token,
            winner=self.winner,
            margin=self._margin(),
            candidate_count=numbers.left,
            chance=numbers.chance,
            entropy=numbers.entropy,
            drawn=self.draws and numbers.left > 1,
            stages=tuple(
                _view(self.trace.changes[i], stage)
                for i, stage in zip(numbers.changes, numbers.stages, strict=True)
            ),
            candidates=self._candidates(list(dict.fromkeys(listed))),
            facts=self._facts(),
            sentence="",
        )

    def _margin(self) -> float:
        """Gives by how much the best sum was ahead; the record's number where no sum of these decided."""
        if self.plan.decoder.owns_eos or self.is_by_ratio:
            return self.question.margin
        # Some draws tell none.
        return self.numbers.lead if isnan(self.numbers.margin) else self.numbers.margin

    def _candidates(self, ids: list[int]) -> tuple[Candidate, ...]:
        """Follows some tokens through the stages."""
        texts, draws = self.plan.main.tokenizer.token_strings(ids), self.draws
        candidates = []
        for token, text in zip(ids, texts, strict=True):
            each = self.numbers.tokens[token]
            removing_stage = next((i for i, logp in enumerate(each.logps) if logp == -inf), -1)
            noise, total = (each.luck, each.sum) if draws else (nan, nan)
            own = text, each.raw_logp, each.rank, each.logps, each.criteria
            candidates.append(Candidate(token, *own, removing_stage, noise, total))
        return tuple(candidates)

    def _facts(self) -> tuple[tuple[str, str], ...]:
        """Lists what the strategy recorded of the token, or what its step computes of it, and the verdict."""
        decoder, tokenizer = self.plan.decoder, self.plan.main.tokenizer
        numbers = {**self.question.recorded, **self.numbers.columns}
        facts = []
        if "parent" in numbers:
            facts.append(("parent", f"row {numbers['parent'] + 1:.0f}"))
        for column in decoder.all_columns:
            fact = column.fact(
                numbers.get(column.name, nan), lambda id: visible(tokenizer.token_strings([id])[0])
            )
            if fact:
                facts.append((column.name.replace("_", " "), fact))
        if self.proposed and "drafted" not in numbers:
            facts += [("proposed", self.proposed), ("verdict", self.verdict)]
        if self.is_by_ratio and self.proposal is not None:
            facts.append(("p/q", f"{self.proposal.ratio:.3g}, needed {self.proposal.bound:.3g}"))
        return tuple(facts)


def _view(change: StageChange, numbers: StageNumbers) -> StageView:
    """Describes what one stage has done."""
    return StageView(
        name=change.name,
        title=change.title,
        kept=numbers.kept,
        removed=numbers.removed,
        mass=numbers.mass,
        criterion=_criterion_label(change, numbers),
        edge=numbers.edge,
        neutral=change.neutral,
    )


def _criterion_label(change: StageChange, numbers: StageNumbers) -> str:
    """Names the number of a stage: that which it declares, or what it added to logits."""
    if change.criterion is not None:
        return change.criterion.label
    return "Δz" if numbers.adds else ""
