"""Explains a token: computes the step that took it once more, and follows the logits to the choice.

The prompt and the answer before the token are read as those of a run that goes on, so the cached context
makes that one forward where the run is still there. Then the strategy's own step is followed stage by stage
(`stage_trace`) in place of being taken.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edge_tui import decoders
from edge_tui.decoders.base import ParamError
from edge_tui.decoders.core import kernels
from edge_tui.decoders.core.params import KnownParams
from edge_tui.decoders.registry.registry import UnknownStrategy
from edge_tui.engine.decode.explained_choice import ExplainedChoice
from edge_tui.engine.decode.generation import Generation
from edge_tui.engine.decode.known_luck import KnownLuck
from edge_tui.engine.decode.other_choices import other_choices
from edge_tui.engine.decode.proposal_check import check_proposal
from edge_tui.engine.decode.reason import note_of, sentence_of
from edge_tui.engine.decode.resolve import check_ids
from edge_tui.engine.decode.run_plan import plan_run
from edge_tui.engine.decode.stage_trace import trace_step
from edge_tui.engine.ops.current_device import computing
from edge_tui.errors import Cancelled, CannotExplain, EdgeError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edge_tui.decoders.base import Decoder
    from edge_tui.engine.decode.prefix_cache import PrefixCache
    from edge_tui.engine.decode.run_plan import RunPlan
    from edge_tui.engine.explanation import Explanation
    from edge_tui.engine.models.loader import LoadedModel
    from edge_tui.engine.models.manager import ModelManager
    from edge_tui.engine.port import Question

EPSILON = {"float32": 1e-3}
"""By precision, nats that a sum may be off where a model reads at once what a run read token by token."""
COARSE_EPSILON = 0.15
"""The same in all other precisions: such a reading moves logits by 0.03 (standard deviation)."""


def explain_token(
    question: Question,
    manager: ModelManager,
    run_caches: Sequence[PrefixCache],
    question_cache: PrefixCache,
    stopped: Callable[[], bool],
) -> Explanation:
    """Answers a question.

    Args:
        question: The question.
        manager: The models; none is loaded.
        run_caches: Contexts of runs, which are read where they hold the step's own keys and values, and
            left as they are.
        question_cache: Contexts of questions; updated.
        stopped: True ends the work.

    Raises:
        CannotExplain: one sentence.
        Cancelled: `stopped()` said so.
    """
    if stopped():
        raise Cancelled
    try:
        plan = _plan(question, manager, stopped)
        with computing(plan.main.model.info.device):
            return _explain(question, plan, run_caches, question_cache, stopped)
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
    return replace(plan, num_draft_tokens=0)  # its steps are taken one token at a time


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
    run_caches: Sequence[PrefixCache],
    question_cache: PrefixCache,
    stopped: Callable[[], bool],
) -> Explanation:
    decoder, generation = plan.decoder, Generation(plan, captures=False)
    held = (each for each in run_caches if generation.is_held(each, stepped=True))
    cache = question_cache if plan.learns_by_decoding else next(held, question_cache)
    is_own = cache is not question_cache
    ids = {key: generation.ids[stream] for stream, key in generation.keys().items()}
    with cache.later_ids_kept(ids):
        generation.prefill(cache, lambda done, total: None, stopped)
        runner = generation.runner
        outs, state, _, rng = runner.arguments()
        values = runner.table.known()
        params = KnownParams(values, plan.rows, runner.device)
        if runner.device != "cpu":  # which draws of those tokens alone that are left
            rng = KnownLuck(rng, plan.width)
        with kernels.torch_only():
            trace = trace_step(decoder, outs, state, params, rng, values)
            proposes = decoder.kind == "propose"
            proposal = check_proposal(decoder, outs, state, params, rng) if proposes else None
            others = other_choices(question, plan, trace.raw, state, rng)
            choice = ExplainedChoice(question, plan, trace, proposal, rng)
            explanation = choice.explanation()
    precision = plan.main.model.info.precision
    is_same = precision in EPSILON and explanation.winner == explanation.token
    explanation = replace(
        explanation,
        others=others,
        exactness="own" if is_own or is_same else "near",
        epsilon=0.0 if is_own else EPSILON.get(precision, COARSE_EPSILON),
    )
    return replace(explanation, sentence=sentence_of(explanation, choice), note=note_of(explanation, choice))
