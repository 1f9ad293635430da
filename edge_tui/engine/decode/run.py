"""Decodes one request from the queue to its last token, on the owner thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from edge_tui import decoders
from edge_tui.decoders.core import step_checks
from edge_tui.decoders.core.errors import problem_of
from edge_tui.engine.decode.decode_loop import DecodeLoop
from edge_tui.engine.decode.generation import Generation
from edge_tui.engine.decode.kernel_build import KernelBuilds
from edge_tui.engine.decode.output_processor import OutputProcessor
from edge_tui.engine.decode.prefix_cache import PrefixCache
from edge_tui.engine.decode.run_plan import RunPlan, check_samples, plan_run
from edge_tui.engine.decode.scoring import score_prompt
from edge_tui.engine.events import Event, Finished, Progress, Ranked
from edge_tui.engine.models.device_memory import memory_of
from edge_tui.engine.models.manager import ModelManager
from edge_tui.errors import Cancelled

if TYPE_CHECKING:
    from edge_tui.engine.decode.param_table import Run
    from edge_tui.engine.models.loader import LoadedModel


def run_request(
    run: Run,
    manager: ModelManager,
    prefix_cache: PrefixCache,
    post: Callable[[Event], None],
    closing: Callable[[], bool],
    kernels: KernelBuilds | None = None,
) -> Iterator[None]:
    """Decodes one request to its end, posting what happens; one step for each item.

    Between two items the thread may decode another run, on contexts of its own.

    Args:
        run: The request, and the words other threads may change (cancelled, parameters).
        manager: The models.
        prefix_cache: Contexts of earlier runs; updated.
        post: Takes events.
        closing: Tells whether the engine shuts down.
        kernels: The kernels that are compiled beforehand; None for a run by itself.

    Raises:
        RequestError, CheckpointError, LoadError, …: one sentence each; nothing was decoded.
    """

    def stopped() -> bool:
        return run.cancelled or closing()

    began = time.perf_counter()
    decoder = decoders.find(run.request.strategy)
    manager.check_pair(decoder.roles)
    check_samples(decoder, run.request.samples)
    if stopped():
        post(_cancelled(run.id))
        return
    kernels = kernels or KernelBuilds()
    models = _load(run, decoder.roles, manager, kernels, post, stopped)
    manager.tokenizer = models[decoder.roles[0]].tokenizer
    try:
        # The request is read again: its parameters may have changed while the models were loading.
        plan = plan_run(run.request, decoder, models, stopped)
    except Cancelled:
        post(_cancelled(run.id))
        return
    generation, processor = Generation(plan), OutputProcessor(run.id, plan)
    _reset_peak(plan.main.model.info.device)
    if not _read_prompt(run, plan, generation, prefix_cache, post, stopped):
        return
    loop = DecodeLoop(run, generation, processor, post, stopped, began, kernels)
    try:
        yield from loop.run()
    finally:
        generation.remember(prefix_cache, loop.cached_ids)
    post(_finished(run.id, plan, processor, loop, began))


def _load(
    run: Run,
    roles: Sequence[str],
    manager: ModelManager,
    kernels: KernelBuilds,
    post: Callable[[Event], None],
    stopped: Callable[[], bool],
) -> dict[str, LoadedModel]:
    """Loads the models that are not there, while kernels are compiled in other processes.

    Those of later steps are compiled while the prompt is read; but kept tokens may be read by steps.
    """
    specs = {role: spec for role in roles if (spec := manager.spec(role)) is not None}
    if any(manager.peek(role) is None for role in roles):
        kernels.begin(run.request, specs)
    with kernels.while_loading(stopped):
        models = {role: manager.get(role, stopped) for role in roles}
    name = models[roles[0]].model.info.name

    def report(done: int, total: int) -> None:
        post(Progress("compile", done, total, name, run.id))

    kernels.wait(report, stopped, "all" if run.request.prefix else "first")
    return models


def _cancelled(run: int) -> Finished:
    """Builds the end of a run of which nothing was decoded."""
    return Finished(run, "cancelled", 0, 0.0, 0.0)


def _read_prompt(
    run: Run,
    plan: RunPlan,
    generation: Generation,
    prefix_cache: PrefixCache,
    post: Callable[[Event], None],
    stopped: Callable[[], bool],
) -> bool:
    """Reads the prompt into the models and posts `Started`; False if the run was stopped meanwhile."""
    request, main = plan.request, plan.main

    def progress(done: int, total: int) -> None:
        post(Progress("prefill", done, total, main.model.info.name, run.id))

    try:
        if request.prompt_logps:
            post(score_prompt(run.id, plan, prefix_cache, progress, stopped))
        reused = generation.prefill(prefix_cache, progress, stopped, again=run.reads_again)
        run.read_alone = generation.read_alone
        run.table = table = generation.runner.table
        for name, value in run.request.values.items():  # changed while the prompt was read
            if request.values.get(name) != value:
                table.set(name, value)
        if request.prefix:
            generation.launch()  # a strategy that learns is refused here, before screens drop the old answer
    except Cancelled:
        post(plan.started(run.id, 0))
        post(_cancelled(run.id))
        return False
    except Exception as error:
        if problem_of(error, decoders.current().is_strategy_file) is not None:
            post(plan.started(run.id, 0))  # so that histories keep it, as they do where a step fails
        raise
    post(plan.started(run.id, reused))
    return True


def _finished(
    run: int, plan: RunPlan, processor: OutputProcessor, loop: DecodeLoop, began: float
) -> Finished:
    """Builds the event that ends a run."""
    ranked = _rank(plan, processor, loop.changed_params)
    best = ranked[0] if ranked else None
    return Finished(
        run=run,
        reason=processor.reason or "cancelled",
        new_tokens=len(best.tokens) if best else processor.count,
        time_to_first_token=loop.first_token_at - began if loop.first_token_at else 0.0,
        seconds=loop.seconds,
        answer=best.tokens if best else None,
        answer_text=best.text if best else None,
        score=best.score if best else None,
        peak_bytes=memory_of(plan.main.model.info.device).peak,
        tail="".join(processor.tails[:1]),
        reasons=processor.reasons,
        tails=processor.tails,
        ranked=ranked,
        proposing_ended=loop.proposing_ended,
    )


def _rank(plan: RunPlan, processor: OutputProcessor, changed: dict[str, float]) -> tuple[Ranked, ...]:
    """Lists the finished sequences that a strategy chooses among, best first."""
    tokenizer, records = plan.main.tokenizer, processor.records(plan.params.values | changed)
    if not records.tokens:
        return ()
    choices = step_checks.ranked(plan.decoder, records, plan.rows, tokenizer.size)
    return tuple(
        Ranked(choice.tokens, tokenizer.answer(plan.ids, choice.tokens), choice.score) for choice in choices
    )


def _reset_peak(device: str) -> None:
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(device)
