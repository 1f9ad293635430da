"""Builds an explanation of a step that was followed: what each stage did, and the sums of the few best."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf, isnan, nan
from typing import TYPE_CHECKING

from edge_tui.decoders.base import names_of
from edge_tui.engine.explanation import Candidate, Explanation, StageView

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from edge_tui.decoders.base import Rng
    from edge_tui.engine.decode.proposal_check import ProposalCheck, Verdict
    from edge_tui.engine.decode.run_plan import RunPlan
    from edge_tui.engine.decode.stage_trace import StageChange, Trace
    from edge_tui.engine.port import Question

BEST, LIKELIEST = 20, 20
"""Candidates by their sums, and by the model's own distribution."""


@dataclass(frozen=True, slots=True)
class ExplainedChoice:
    """Holds the first row of a step that was followed, and what decided there.

    Attributes:
        question: The question.
        plan: The run's facts.
        trace: The step.
        proposal: What would become of a proposal; None for strategies that make none.
        luck: Gives the noise float32 `[N]` of tokens int64 `[N]`; None where none decided or it is unknown.
    """

    question: Question
    plan: RunPlan
    trace: Trace
    proposal: ProposalCheck | None
    luck: Callable[[Tensor], Tensor] | None

    @classmethod
    def of(
        cls,
        question: Question,
        plan: RunPlan,
        trace: Trace,
        proposal: ProposalCheck | None,
        rng: Rng,
    ) -> ExplainedChoice:
        """Adds the luck, which the strategy knows.

        Args:
            question: The question.
            plan: The run's facts.
            trace: The step.
            proposal: See the class.
            rng: The step's random numbers.
        """
        choice = cls(question, plan, trace, proposal, None)
        if plan.decoder.owns_eos or choice.is_by_ratio or trace.took_best:
            return choice
        return replace(choice, luck=lambda ids: plan.decoder.luck(ids[None], rng)[0])

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
        return int(self.trace.step.chosen[0])

    def explanation(self) -> Explanation:
        """Builds the explanation; sentence, others and exactness are for the caller to add."""
        import torch

        trace, token = self.trace, self.question.token
        final, raw = trace.final[0], trace.raw[0].log_softmax(-1)
        finite = (final > -torch.inf).nonzero()[:, 0]
        sums, left = final, len(finite)
        if (
            self.luck is not None
        ):  # of those that are left alone, as a draw on a CPU: it is the same and cheaper
            sums = final.index_put((finite,), final[finite] + self.luck(finite))
        best = [
            token
            for z, token in zip(*(each.tolist() for each in sums.topk(min(BEST, len(sums)))), strict=True)
            if z > -inf
        ]
        likeliest = raw.topk(min(LIKELIEST, len(raw))).indices.tolist()
        ids = list(dict.fromkeys((token, *best, self.winner, *likeliest, *self.question.ids)))
        return Explanation(
            token=token,
            winner=self.winner,
            margin=self._margin(sums, left),
            candidate_count=left,
            chance=float(final.softmax(-1)[token]),
            entropy=float(torch.special.entr(raw.exp()).sum()),
            drawn=self.luck is not None and left > 1,
            stages=tuple(_view(change) for change in trace.changes),
            candidates=self._candidates(ids, raw, sums),
            facts=self._facts(),
            sentence="",
        )

    def _margin(self, sums: Tensor, left: int) -> float:
        """Gives by how much the best sum was ahead; the record's number where no sum of these decided."""
        if self.plan.decoder.owns_eos or self.is_by_ratio:
            return self.question.margin
        if isnan(self.trace.margin) and left > 1:  # a draw that tells none
            first, second = sums.topk(2).values.tolist()
            return float(first - second)
        return self.trace.margin

    def _candidates(self, ids: Sequence[int], raw: Tensor, sums: Tensor) -> tuple[Candidate, ...]:
        """Follows some tokens through the stages."""
        import torch

        at = torch.tensor(ids, device=raw.device)
        changes, final = self.trace.changes, self.trace.final[0]
        missing = raw.new_full((len(ids),), nan)
        logps = [change.after[0].log_softmax(-1)[at] for change in changes]
        criteria = [missing if each.criterion is None else each.criterion.values[0, at] for each in changes]
        luck = missing if self.luck is None else self.luck(at)
        # Less the constant that makes log-probabilities of logits.
        total = missing if self.luck is None else sums[at].double() - final.double().logsumexp(-1)
        ranks = (raw > raw[at, None]).sum(-1)
        columns = torch.stack([raw[at], ranks, luck, total, *logps, *criteria]).double().T.tolist()
        texts, count = self.plan.main.tokenizer.token_strings(ids), len(changes)
        return tuple(
            Candidate(
                id=token,
                text=text,
                raw_logp=of_model,
                rank=int(rank),
                logps=tuple(rest[:count]),
                criteria=tuple(rest[count:]),
                removing_stage=next((i for i, logp in enumerate(rest[:count]) if logp == -inf), -1),
                luck=noise,
                sum=whole,
            )
            for token, text, (of_model, rank, noise, whole, *rest) in zip(ids, texts, columns, strict=True)
        )

    def _facts(self) -> tuple[tuple[str, str], ...]:
        """Lists what the strategy recorded of the token, or what its step computes of it, and the verdict."""
        decoder, token, tokenizer = self.plan.decoder, self.question.token, self.plan.main.tokenizer
        numbers = dict(self.question.recorded)
        if decoder.kind == "sample":
            step, names = self.trace.step, names_of(decoder.columns)
            numbers |= {name: float(step.candidates[name][0, token]) for name in names if step.candidates}
        facts = []
        if "parent" in numbers:
            facts.append(("parent", f"row {numbers['parent'] + 1:.0f}"))
        for column in decoder.all_columns:
            value = numbers.get(column.name, nan)
            if isnan(value) or (column.role in ("parent", "token", "score") and value < 0):
                continue
            is_token = column.role == "token"
            text = tokenizer.token_strings([int(value)])[0] if is_token else column.text(value)
            facts.append((column.name.replace("_", " "), text))
        if self.proposed and "drafted" not in numbers:
            facts += [("proposed", self.proposed), ("verdict", self.verdict)]
        if self.is_by_ratio and self.proposal is not None:
            facts.append(("p/q", f"{self.proposal.ratio:.3g}, needed {self.proposal.bound:.3g}"))
        return tuple(facts)


def _view(change: StageChange) -> StageView:
    """Counts what one stage has removed."""
    import torch

    before, after, criterion = change.before[0], change.after[0], change.criterion
    gone = (after == -torch.inf) & (before > -torch.inf)
    return StageView(
        name=change.name,
        title=change.title,
        kept=int((after > -torch.inf).sum()),
        removed=int(gone.sum()),
        mass=float(before.softmax(-1).masked_fill(~gone, 0.0).sum()),
        criterion="" if criterion is None else criterion.label,
        edge=nan if criterion is None else float(criterion.bound[0, 0]),
        neutral=change.neutral,
    )
