"""Changes the logit of a token where the sequence that it ends has been written up to it."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from edge_tui.decoders.core.params import ParamError
from edge_tui.decoders.core.stage import Env, Filter, Needs, State

if TYPE_CHECKING:
    from torch import Tensor

    from edge_tui.decoders.core.params import Params
    from edge_tui.decoders.core.random import Rng

LONGEST = 32
"""Tokens of the longest sequence."""
Sequences: TypeAlias = Mapping[tuple[int, ...], float]
"""What is added to the logit of each sequence's last token."""


class SequenceBias(Filter):
    """Adds a number to a sequence's last token wherever its other tokens have just been written.

    The sequence of one token acts everywhere. Prompt and output count as written.
    """

    penalty = True
    reshapes = True
    needs = Needs(history=LONGEST - 1)

    @abstractmethod
    def sequences(self, env: Env) -> Sequences:
        """Reads the sequences from the run's texts; each has 1 to `LONGEST` ids.

        Raises:
            ParamError: a text is none.
        """

    def constants(self, env: Env) -> State:
        """Lays the sequences out in order of their last token.

        Returns:
            `bias` float32 `[S]`, and int64 tensors: `last` `[S]`, the last tokens; `before` `[S, N]`, those
            in front of them, −1 where a sequence is shorter; `end` `[U]`, the last sequence of each token;
            `merge` `[L, S]`, the sequence 1, 2, 4 … places in front if its last token is the same, else `S`.
        """
        import torch

        # Ids beyond the logits are never written.
        found = sorted((ids[::-1], bias) for ids, bias in self.sequences(env).items() if max(ids) < env.vocab)
        last = [ids[0] for ids, _ in found]
        count, length = len(found), max((len(ids) for ids, _ in found), default=1) - 1
        most = max(Counter(last).values(), default=1)
        steps = [1 << power for power in range((most - 1).bit_length())]

        def places(step: int) -> list[int]:
            return [i - step if i >= step and last[i - step] == last[i] else count for i in range(count)]

        def tensor(ids: list[Any], *shape: int) -> Tensor:
            return torch.tensor(ids, dtype=torch.int64, device=env.device).reshape(shape)

        return {
            "last": tensor(last, count),
            "before": tensor(
                [[-1] * (length + 1 - len(ids)) + list(ids[:0:-1]) for ids, _ in found], count, length
            ),
            "bias": torch.tensor([bias for _, bias in found], dtype=torch.float32, device=env.device),
            "end": tensor([i for i in range(count) if last[i + 1 : i + 2] != [last[i]]], -1),
            "merge": tensor([places(step) for step in steps], len(steps), count),
        }

    def apply(self, z: Tensor, p: Params, s: State, rng: Rng) -> Tensor:
        """Adds the numbers of the sequences that a token would complete.

        Those of one token are summed by doubling, so that no two threads add to one place: a sum of floats
        depends on their order.
        """
        import torch

        before, end = s["before"], s["end"]
        if not len(before):
            return z
        ids = s["ids"][:, None, s["ids"].shape[1] - before.shape[1] :]
        written = ((ids == before) | (before < 0)).all(-1)
        added = s["bias"].where(written, 0.0)
        none = added.new_zeros(len(z), 1)
        for place in s["merge"].unbind():
            added = added + torch.cat((added, none), 1)[:, place]
        return z.scatter_add(1, s["last"][end].expand(len(z), -1), added[:, end])


def encoded(name: str, text: str, env: Env) -> tuple[int, ...]:
    """Encodes a text of a parameter, at most `LONGEST` tokens.

    Raises:
        ParamError: it is longer, or has no token.
    """
    ids = env.tokenizer.encode(text)
    if not 0 < len(ids) <= LONGEST:
        shown = text if len(text) <= 40 else f"{text[:39]}…"
        raise ParamError(
            f"{name} has {shown!r}, which is {len(ids)} tokens; a text has 1 to {LONGEST}.", name
        )
    return ids
