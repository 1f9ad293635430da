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
    import torch

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
    for index, token in enumerate(plan.request.prefix):
        runner.table.restart(values[index])
        runner.table.refresh()
        if plan.learns_by_decoding:
            runner.force(token)
            continue
        raw, final = (torch.full((plan.rows,), logp) for logp in plan.request.prefix_logps[index])
        ids = torch.full((plan.rows,), token)
        step = torch.tensor([index])
        runner.observe(Token(*(each.to(runner.device) for each in (ids, raw, final, step))))
    runner.buffers.step.fill_(env.prefix)
    runner.table.restart(env.values)


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
