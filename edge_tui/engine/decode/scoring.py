"""Scores a text: the log-probability of each of its tokens under a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from edge_tui.engine.decode.prefix_cache import PrefixCache
from edge_tui.engine.events import PromptRead
from edge_tui.engine.models.capacity import SLACK
from edge_tui.engine.ops.stats import summarise
from edge_tui.errors import Cancelled

if TYPE_CHECKING:
    from edge_tui.engine.models.loader import LoadedModel

_CHUNK = 64
"""Positions of one forward: each has logits over the whole vocabulary."""


def score_prompt(
    run: int,
    ids: list[int],
    main: LoadedModel,
    cache: PrefixCache,
    ahead: int,
    cancelled: Callable[[], bool],
) -> PromptRead:
    """Computes the log-probability of each token of a text given those before it.

    The text stays in the cached context, so that decoding on from it reads one token again and no more.

    Args:
        run: The run that asked.
        ids: The text, at least one id.
        main: The model.
        cache: Contexts of earlier runs; updated.
        ahead: New tokens that the context should have room for.
        cancelled: Called between chunks; True ends the reading.

    Raises:
        Cancelled: between chunks.
    """
    import torch

    model, device = main.model, main.model.info.device
    total = len(ids) + ahead
    columns = []
    width = min(main.tokenizer.size, model.info.vocab)
    with torch.inference_mode():
        entry = cache.open((id(model), 0), model, [], total + SLACK, total)
        text = torch.tensor([ids], dtype=torch.int64, device=device)
        for start in range(0, len(ids), _CHUNK):
            if cancelled():
                raise Cancelled
            chunk = text[:, start : start + _CHUNK]
            logits = model.forward(entry.context, chunk).logits[0, :, :width].float()
            entry.ids.extend(ids[start : start + _CHUNK])
            after = text[0, start + 1 : start + 1 + chunk.shape[1]].clamp(max=width - 1)
            if len(after):  # nothing follows the last token
                logp, _, _, top_ids, top_logp = summarise(logits[: len(after)], after)
                columns.append((logp.cpu(), top_ids.int().cpu(), top_logp.cpu()))
    empty = summarise(torch.zeros(1, width), torch.zeros(1, dtype=torch.int64))
    columns.insert(0, (empty[0] * torch.nan, empty[3].int() * 0 - 1, empty[4] * torch.nan))
    logp, top_ids, top_logp = (torch.cat(column) for column in zip(*columns, strict=True))
    detokenizer = main.tokenizer.detokenizer()
    # A character that the prompt leaves unfinished comes with the token that completes it, which follows.
    texts = tuple(detokenizer.push(token) for token in ids)
    return PromptRead(run, tuple(ids), logp.numpy(), top_ids.numpy(), top_logp.numpy(), texts)
