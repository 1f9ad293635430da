"""Makes anew what a strategy has learned of the tokens that a run goes on from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby, repeat
from typing import TYPE_CHECKING

from edge_tui.decoders.base import Decoder, Token
from edge_tui.decoders.core.errors import name_of
from edge_tui.decoders.core.params import KnownParams
from edge_tui.decoders.core.tokens import TOKENS
from edge_tui.engine.decode.host_copies import to_device
from edge_tui.engine.decode.param_table import effective
from edge_tui.engine.decode.resolve import resolve_params
from edge_tui.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edge_tui.decoders.base import Env, Params, State
    from edge_tui.engine.decode.run_plan import RunPlan
    from edge_tui.engine.decode.step_runner import StepRunner


_PERIOD = 64
"""Tokens between the places at which a state is copied."""


@dataclass(frozen=True, slots=True)
class LearnedState:
    """Holds what a strategy had learned after some of the kept tokens, so that later ones follow from there.

    Attributes:
        run: Strategy, rows, prompt, parameters and texts.
        tokens: The tokens, each with its log-probabilities and parameters.
        state: A copy of the strategy's state after them.
    """

    run: tuple[object, ...]
    tokens: list[tuple[int, tuple[float, float], dict[str, float]]]
    state: State


def learn_prefix(
    runner: StepRunner, env: Env, plan: RunPlan, earlier: LearnedState | None = None
) -> LearnedState | None:
    """Tells the strategy each kept token, under the parameters that it was taken under.

    Where the log-probabilities of a kept token are not known, the tokens are decoded again, each forced: the
    numbers are those of a run that took them. The runner then has read the prompt alone.

    Args:
        runner: After `begin`; left ready for the first new token.
        env: The argument of `begin`.
        plan: The run's facts.
        earlier: What an earlier call on the same context returned: its tokens are not told again.

    Returns:
        The argument `earlier` of the next call: the state at the last multiple of 64 tokens, where one could
        be copied.

    Raises:
        RequestError: the tokens must be decoded again, and the strategy decides in one piece.
    """
    if plan.learns_by_decoding and type(plan.decoder).step is not Decoder.step:
        raise RequestError(
            f"{name_of(plan.decoder.step)} learns from each token, and the numbers of the kept ones are not"
            " known: run the prompt from its start.",
            "prefix",
        )
    values = _values(plan)
    if plan.learns_by_decoding:
        earlier = None
        prompt = env.prompt[:, : env.prompt.shape[1] - env.prefix]
        runner.restart_state(replace(env, prompt=prompt, prefix=0))
        runner.buffers.step.fill_(0)
        for index, token in enumerate(plan.request.prefix):
            if not index or values[index] is not values[index - 1]:
                runner.table.restart(values[index])
                runner.table.refresh()
            runner.force(token)
        runner.buffers.step.fill_(env.prefix)
        runner.table.restart(env.values)
    else:
        earlier = _observe(runner, env, plan, values, earlier)
    return earlier


def _observe(
    runner: StepRunner,
    env: Env,
    plan: RunPlan,
    values: list[dict[str, float]],
    earlier: LearnedState | None,
) -> LearnedState | None:
    """Tells the strategy the kept tokens by their recorded numbers; returns a copy of its state for later.

    A token takes a dozen small operations, which a CPU does sooner than a GPU begins them. A user's strategy
    learns where it decodes: its `init` may keep tensors of its own there.
    """
    request, decoder = plan.request, plan.decoder
    prompt = tuple(plan.ids[: len(plan.ids) - len(request.prefix)])
    run = decoder, plan.rows, prompt, plan.params.values, plan.params.texts
    known = list(zip(request.prefix, request.prefix_logps, values, strict=True))
    # A search's state, and a user's, may depend on the number of new tokens, which differs between questions.
    is_reusable = runner.is_own and decoder.kind == "sample"
    start, device = 0, "cpu" if runner.is_own else runner.device
    if (
        is_reusable
        and earlier is not None
        and earlier.run == run
        and known[: len(earlier.tokens)] == earlier.tokens
    ):
        start, state = len(earlier.tokens), _copy(earlier.state)
    else:
        state = _begin(runner, env, plan, prompt, device)
    place = len(known) // _PERIOD * _PERIOD if is_reusable else -1
    tokens, tables = _tokens(plan, device, start), _tables(plan, values[start:], device)
    for count, (token, params) in enumerate(zip(tokens, tables, strict=True), start + 1):
        decoder.observe(state, params, token)
        if count == place:
            earlier = LearnedState(run, known[:place], _copy(state))
    if runner.is_own:  # what was counted of the tokens is there already
        runner.restore_state({name: tensor for name, tensor in state.items() if name not in TOKENS})
    return earlier


def _begin(runner: StepRunner, env: Env, plan: RunPlan, prompt: tuple[int, ...], device: str) -> State:
    """Makes the state in front of the kept tokens, on a device."""
    import torch

    ids = to_device([prompt], torch.int64, device).expand(plan.rows, -1)
    ends = to_device(plan.main.tokenizer.end_ids, torch.int64, device)
    before = replace(env, device=device, prompt=ids, eos=ends, prefix=0)
    if runner.is_own:
        return plan.decoder.constants(before) | plan.decoder.init(before)
    runner.restart_state(before)
    return runner.state


def _copy(state: State) -> State:
    return {name: tensor.clone() for name, tensor in state.items()}


def _tables(plan: RunPlan, values: list[dict[str, float]], device: str) -> Iterator[Params]:
    """Yields the parameters of each kept token: one table for as long as they stay."""
    for _, same in groupby(values, id):
        own, *more = same
        params = KnownParams(effective(plan.decoder.params, own), plan.rows, device)
        yield from repeat(params, 1 + len(more))


def _tokens(plan: RunPlan, device: str, start: int) -> list[Token]:
    """Lists the kept tokens from one on, with the log-probabilities that their run recorded."""
    import torch

    ids = to_device(plan.request.prefix, torch.int64, device)[:, None].expand(-1, plan.rows)
    logps = to_device(plan.request.prefix_logps, torch.float32, device)[:, :, None].expand(-1, -1, plan.rows)
    steps = torch.arange(len(ids), device=device)[:, None]
    raw, final = logps.unbind(1)
    columns = (column[start:] for column in (ids, raw, final, steps))
    return [Token(*each) for each in zip(*columns, strict=True)]


def _values(plan: RunPlan) -> list[dict[str, float]]:
    """Lists the parameters of each kept token."""
    request = plan.request
    values, changes = plan.params.values, dict(request.prefix_values)
    listed = []
    for index in range(len(request.prefix)):
        if index in changes:
            # The mode is that of the new tokens; of the kept ones the temperature itself is known.
            mode = "custom" if "temperature" in changes[index] else request.mode
            changed = replace(request, values={**request.values, **changes[index]}, mode=mode)
            values = resolve_params(changed, plan.decoder, {}).values
        listed.append(values)
    return listed
