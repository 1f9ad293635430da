"""Makes a transcript of a prompt that a model has read, so that it is shown as answers are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edge_tui.engine.events import Finished, PromptRead, Started, TokenBatch
from edge_tui.engine.token_fields import token_fields
from edge_tui.transcript.transcript import Transcript

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def transcript_of(read: PromptRead, texts_of: Callable[[Sequence[int]], list[str]]) -> Transcript:
    """Returns a transcript of one ended row, whose tokens are those of the prompt.

    Args:
        read: The prompt.
        texts_of: Gives the names of control tokens.
    """
    import numpy as np

    count = len(read.ids)
    names = dict(zip(read.control_ids, texts_of(read.control_ids), strict=False))
    columns: dict[str, Any] = {
        field.name: np.full((count, *field.shape(0)), field.empty, field.dtype)
        for field in token_fields("position", "number", "alternatives", "extras")
    }
    columns |= {
        "step": np.arange(count, dtype=np.int32),
        "id": np.array(read.ids, np.int32),
        "raw_logp": read.logp,
        "final_logp": read.logp,
        "rank": read.rank,
        "entropy": read.entropy,
        "top_ids": read.top_ids,
        "top_logp": read.top_logp,
        "final_ids": read.top_ids,
        "final_top_logp": read.top_logp,
    }
    texts = tuple(
        control_name(names[token]) if token in names else text.replace("\n", "↵\n")
        for token, text in zip(read.ids, read.text, strict=True)
    )
    made = Transcript(Started(read.run, "", 1, (), 0, 0, 0, count, 0, {}))
    made.extend(TokenBatch(run=read.run, text=texts, **columns))
    made.finish(Finished(read.run, "length", count, 0.0, 0.0))
    return made


def control_name(name: str) -> str:
    """Writes a control token so that no text looks like it: `<|im_end|>` as ⟨im_end⟩."""
    inner = name.removeprefix("<").removesuffix(">").strip("|｜")
    return f"⟨{inner or name}⟩"


def entropy_after(read: PromptRead, index: int | None) -> float:
    """Returns the entropy of the distribution after a token; None means after the last one."""
    if index is None or index + 1 >= len(read.ids):
        return read.next_entropy
    return float(read.entropy[index + 1])
