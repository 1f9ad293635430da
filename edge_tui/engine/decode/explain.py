"""Explains a token: computes the step that took it once more, and follows the logits to the choice.

The prompt and the answer before the token are read as those of a run that goes on, so the cached context
makes that one forward where the run is still there. Then the strategy's own step is followed stage by stage
(`stage_trace`) in place of being taken.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import nan
from typing import TYPE_CHECKING

from edge_tui import decoders
from edge_tui.decoders.base import ParamError
from edge_tui.decoders.registry.registry import UnknownStrategy
from edge_tui.engine.decode.generation import Generation
from edge_tui.engine.decode.other_choices import other_choices
from edge_tui.engine.decode.reason import reason_of
from edge_tui.engine.decode.resolve import check_ids
from edge_tui.engine.decode.run_plan import plan_run
from edge_tui.engine.decode.stage_trace import follow_step
from edge_tui.engine.explanation import Candidate, Explanation, OtherChoice, StageView
from edge_tui.errors import CannotExplain, EdgeError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from edge_tui.decoders.base import Decoder, Params, Rng
    from edge_tui.engine.decode.prefix_cache import PrefixCache
    from edge_tui.engine.decode.run_plan import RunPlan
    from edge_tui.engine.decode.stage_trace import Passage, Trace
    from edge_tui.engine.explanation import Exactness
    from edge_tui.engine.models.loader import LoadedModel
    from edge_tui.engine.models.manager import ModelManager
    from edge_tui.engine.port import Question

BEST, LIKELIEST = 5, 20
"""Candidates by their sums, and by the model's own distribution."""
FLOAT32_EPSILON = 1e-3
"""Nats that a sum may be off where a float32 model reads at once what a run read token by token."""
EPSILON = 0.15
"""The same in 16 or fewer bits: such a reading moves logits by 0.03 (standard deviation)."""


def explain_token(
    question: Question,
    manager: ModelManager,
    prefix_cache: PrefixCache,
    question_cache: PrefixCache,
    stopped: Callable[[], bool],
) -> Explanation:
    """Answers a question.

    Args:
        question: The question.
        manager: The models; none is loaded.
        prefix_cache: Contexts of runs, which are read where they hold the step's own keys and values, and
            left as they are.
        question_cache: Contexts of questions; updated.
        stopped: True ends the work.

    Raises:
        CannotExplain: one sentence.
        Cancelled: `stopped()` said so.
    """
    import torch

    try:
        plan = _plan(question, manager, stopped)
        with torch.inference_mode():
            return _explain(question, plan, prefix_cache, question_cache, stopped)
    except (EdgeError, ParamError, UnknownStrategy) as error:
        raise CannotExplain(str(error)) from error


def _plan(question: Question, manager: ModelManager, stopped: Callable[[], bool]) -> RunPlan:
    """Plans the run that would go on with the token, as one that reaches as far as the question's run."""
    request = question.request
    decoder = decoders.find(request.strategy)
    models = {role: _model(manager, role, decoder) for role in decoder.roles}
    main = models[decoder.roles[0]]
    if question.model and question.model != main.model.info.name:
        raise CannotExplain(
            f"{question.model} wrote this, but {main.model.info.name} is loaded: load {question.model} to see"
            " why each token was taken."
        )
    if request.seed is None or request.seed < 0:
        raise CannotExplain("The seed of this run is not known, and so no token's luck.")
    left = max(1, request.max_length - len(request.prefix))
    asked = replace(request, max_length=left, samples=1, prompt_logps=False, stop=())
    plan = plan_run(asked, decoder, models, stopped)
    check_ids((question.token, *question.ids), plan.width, "question")
    return replace(plan, num_draft_tokens=0)


def _model(manager: ModelManager, role: str, decoder: Decoder) -> LoadedModel:
    loaded = manager.peek(role)
    if loaded is None:
        spec = manager.spec(role)
        name = spec.name if spec is not None else f"a model in the role {role}"
        raise CannotExplain(f"{decoder.title} needs {name}, which is not loaded: load it to see why.")
    return loaded


def _explain(
    question: Question,
    plan: RunPlan,
    prefix_cache: PrefixCache,
    question_cache: PrefixCache,
    stopped: Callable[[], bool],
) -> Explanation:
    generation = Generation(plan, captures=False)
    is_float32 = plan.main.model.info.precision == "float32"
    own = not plan.learns_by_decoding and generation.is_held(prefix_cache, stepped=True)
    cache = prefix_cache if own else question_cache
    ids = {key: generation.ids[stream] for stream, key in generation.keys().items()}
    with cache.later_ids_kept(ids):
        generation.prefill(cache, lambda done, total: None, stopped)
        runner = generation.runner
        runner.table.refresh()
        outs, state, params, rng = runner.arguments()
        values = {name: float(view[0, 0]) for name, view in params.items()}
        trace = follow_step(plan.decoder, outs, state, params, rng, values)
        others = other_choices(question, plan, trace.raw, rng)
    epsilon = 0.0 if own else FLOAT32_EPSILON if is_float32 else EPSILON
    found = _Choice.of(plan.decoder, trace, params, rng)
    return _answer(question, plan, trace, found, epsilon, "own" if own or is_float32 else "near", others)


@dataclass(frozen=True, slots=True)
class _Choice:
    """Holds the sums of one row.

    Attributes:
        logp: float32 `[V]`, log-probabilities that the token was chosen from.
        luck: float32 `[V]`, noise of each token; None where nothing is drawn.
        sums: float32 `[V]`, as the draw added them; the logits where nothing is drawn.
    """

    logp: Tensor
    luck: Tensor | None
    sums: Tensor

    @classmethod
    def of(cls, decoder: Decoder, trace: Trace, p: Params, rng: Rng) -> _Choice:
        import torch

        final = trace.final
        ids = torch.arange(final.shape[-1], device=final.device).expand_as(final)
        luck = decoder.luck(ids, p, rng)
        sums = final if luck is None else final + luck
        return cls(final[0].log_softmax(-1), None if luck is None else luck[0], sums[0])


def _answer(
    question: Question,
    plan: RunPlan,
    trace: Trace,
    choice: _Choice,
    epsilon: float,
    exactness: Exactness,
    others: tuple[OtherChoice, ...],
) -> Explanation:
    import torch

    raw = trace.raw[0].log_softmax(-1)
    best_sums, best_ids = choice.sums.topk(min(BEST, len(raw)))
    left = int((trace.final[0] > -torch.inf).sum())
    likeliest = raw.topk(min(LIKELIEST, len(raw))).indices.tolist()
    best = [token for token, z in zip(best_ids.tolist(), best_sums.tolist(), strict=True) if z > -torch.inf]
    ids = list(dict.fromkeys((question.token, *best, *likeliest, *question.ids)))
    winner = int(trace.step.chosen[0])
    second = best_sums[1] if left > 1 else best_sums[0] * nan
    drawn = choice.luck is not None and left > 1
    explanation = Explanation(
        token=question.token,
        winner=winner,
        margin=float(best_sums[0] - second),
        candidate_count=left,
        chance=float(choice.logp[question.token].exp()),
        entropy=float(torch.special.entr(raw.exp()).sum()),
        drawn=drawn,
        stages=tuple(_view(passage) for passage in trace.passages),
        candidates=_candidates(ids, plan, trace, choice, raw, drawn),
        sentence="",
        others=others,
        exactness=exactness,
        epsilon=epsilon,
    )
    sentence, note = reason_of(explanation, plan.decoder.title)
    return replace(explanation, sentence=sentence, note=note)


def _view(passage: Passage) -> StageView:
    """Counts what one stage has removed."""
    import torch

    before, after = passage.before[0], passage.after[0]
    removed = (after == -torch.inf) & (before > -torch.inf)
    criterion = passage.criterion
    return StageView(
        name=passage.name,
        title=passage.title,
        kept=int((after > -torch.inf).sum()),
        removed=int(removed.sum()),
        mass=float(before.softmax(-1).masked_fill(~removed, 0.0).sum()),
        criterion="" if criterion is None else criterion.label,
        edge=nan if criterion is None else float(criterion.bound[0, 0]),
        neutral=passage.neutral,
    )


def _candidates(
    ids: Sequence[int], plan: RunPlan, trace: Trace, choice: _Choice, raw: Tensor, drawn: bool
) -> tuple[Candidate, ...]:
    """Follows some tokens through the stages."""
    import torch

    at = torch.tensor(ids, device=raw.device)
    missing = raw.new_full((len(ids),), nan)
    logps = [passage.after[0].log_softmax(-1)[at] for passage in trace.passages]
    criteria = [
        missing if passage.criterion is None else passage.criterion.values[0, at].to(raw.dtype)
        for passage in trace.passages
    ]
    ranks = (raw > raw[at, None]).sum(-1)
    luck = choice.luck[at] if choice.luck is not None and drawn else missing
    sums = choice.sums[at].double() - trace.final[0].double().logsumexp(-1) if drawn else missing
    columns = torch.stack([raw[at], *logps, *criteria, luck, ranks]).double().T.tolist()
    texts, found = plan.main.tokenizer.token_strings(ids), []
    for token, text, total, (of_model, *rest) in zip(ids, texts, sums.tolist(), columns, strict=True):
        through, rest = rest[: len(logps)], rest[len(logps) :]
        stage = next((i for i, logp in enumerate(through) if logp == -torch.inf), -1)
        found.append(
            Candidate(
                id=token,
                text=text,
                raw_logp=of_model,
                rank=int(rest[-1]),
                logps=tuple(through),
                criteria=tuple(rest[: len(criteria)]),
                removing_stage=stage,
                luck=rest[-2],
                sum=total,
            )
        )
    return tuple(found)
