"""Scores a text: the log-probability of each of its tokens under a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edge_tui.engine.decode.prefix_cache import PrefixCache
from edge_tui.engine.events import PromptRead
from edge_tui.engine.models.capacity import SLACK
from edge_tui.engine.ops.current_device import computing
from edge_tui.engine.ops.stats import summarise
from edge_tui.errors import Cancelled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_tui.engine.decode.run_plan import RunPlan

    Array = NDArray[Any]

_CHUNK = 64
"""Positions of one forward: each has logits over the whole vocabulary."""


_ROOM = 512
"""New tokens that a context has room for at least, so that the run that follows finds the prompt in it."""


def score_prompt(
    run: int,
    plan: RunPlan,
    cache: PrefixCache,
    progress: Callable[[int, int], None],
    cancelled: Callable[[], bool],
) -> PromptRead:
    """Computes the log-probability of each token of a prompt given those before it.

    The prompt stays in the cached context, so that decoding on from it reads one token again and no more.

    Args:
        run: The run that asked.
        plan: Its prompt and prefix, at least one id, and the model.
        cache: Contexts of earlier runs; updated.
        progress: Called with (done, total) tokens, before each part of a long prompt but the first.
        cancelled: Called between chunks; True ends the reading.

    Raises:
        Cancelled: between chunks.
    """
    import torch

    ids, main = plan.ids, plan.main
    model, device = main.model, main.model.info.device
    total = len(ids) + plan.max_new
    room = max(total, min(len(ids) + _ROOM, main.context)) + SLACK
    columns = []
    width = min(main.tokenizer.size, model.info.vocab)
    with computing(device):
        entry = cache.open((id(model), 0), model, [], room, total)
        # Nothing is known of what follows the last token, whose distribution is reported all the same.
        text = torch.tensor([[*ids, 0]], dtype=torch.int64, device=device)
        for start in range(0, len(ids), _CHUNK):
            if cancelled():
                raise Cancelled
            if start:
                progress(start, len(ids))
            stop = min(start + _CHUNK, len(ids))
            logits = model.forward(entry.context, text[:, start:stop]).logits[0, :, :width].float()
            entry.ids.extend(ids[start:stop])
            entry.stepped = stop
            after = text[0, start + 1 : stop + 1].clamp(max=width - 1)
            columns.append([column.cpu() for column in summarise(logits, after)])
    stats = (torch.cat(column) for column in zip(*columns, strict=True))
    return _prompt_read(run, plan, *(column.numpy() for column in stats))


def _prompt_read(
    run: int, plan: RunPlan, logp: Array, rank: Array, entropy: Array, top_ids: Array, top_logp: Array
) -> PromptRead:
    """Builds the event of statistics of the distributions after each token, the last included."""
    import numpy as np

    def shifted(column: Array, first: float) -> Array:
        """Moves numbers from the token before to the token itself."""
        return np.concatenate((np.full_like(column[:1], first), column[:-1]))

    tokenizer, ids, prompt = plan.main.tokenizer, plan.ids, plan.prompt
    detokenizer = tokenizer.detokenizer()
    kept = ("assistant",) * len(plan.request.prefix)
    return PromptRead(
        run,
        tuple(ids),
        shifted(logp, np.nan),
        shifted(rank.astype(np.int32), -1),
        shifted(entropy, np.nan),
        shifted(top_ids.astype(np.int32), -1),
        shifted(top_logp, np.nan),
        float(entropy[-1]),
        top_ids[-1].astype(np.int32),
        top_logp[-1],
        # A character that the prompt leaves unfinished comes with the token that completes it.
        tuple(detokenizer.push(token) for token in ids),
        prompt.roles + kept if prompt.roles else (),
        tuple(sorted(tokenizer.special.intersection(ids))),
    )
