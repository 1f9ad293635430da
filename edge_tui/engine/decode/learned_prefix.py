"""Makes anew what a strategy has learned of the tokens that a run goes on from."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edge_tui.decoders.base import Decoder, Token
from edge_tui.decoders.core.errors import name_of
from edge_tui.engine.decode.resolve import resolve_params
from edge_tui.errors import RequestError

if TYPE_CHECKING:
    from edge_tui.decoders.base import Env
    from edge_tui.engine.decode.run_plan import RunPlan
    from edge_tui.engine.decode.step_runner import StepRunner


def learn_prefix(runner: StepRunner, env: Env, plan: RunPlan) -> None:
    """Tells the strategy each kept token, under the parameters that it was taken under.

    Where the log-probabilities of a kept token are not known, the tokens are decoded again, each forced: the
    numbers are those of a run that took them. The runner then has read the prompt alone.

    Args:
        runner: After `begin`; left ready for the first new token.
        env: The argument of `begin`.
        plan: The run's facts.

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
    prompt = env.prompt[:, : env.prompt.shape[1] - env.prefix]
    runner.restart_state(replace(env, prompt=prompt, prefix=0))
    runner.buffers.step.fill_(0)
    tokens = [] if plan.learns_by_decoding else _tokens(plan, runner.device)
    for index, token in enumerate(plan.request.prefix):
        if not index or values[index] is not values[index - 1]:
            runner.table.restart(values[index])
            runner.table.refresh()
        if tokens:
            runner.observe(tokens[index])
        else:
            runner.force(token)
    runner.buffers.step.fill_(env.prefix)
    runner.table.restart(env.values)


def _tokens(plan: RunPlan, device: str) -> list[Token]:
    """Lists the kept tokens with the log-probabilities that their run recorded."""
    import torch

    ids = torch.tensor(plan.request.prefix, device=device)[:, None].expand(-1, plan.rows)
    logps = torch.tensor(plan.request.prefix_logps, device=device)[:, :, None].expand(-1, -1, plan.rows)
    steps = torch.arange(len(ids), device=device)[:, None]
    raw, final = logps.unbind(1)
    return [Token(*each) for each in zip(ids, raw, final, steps, strict=True)]


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
