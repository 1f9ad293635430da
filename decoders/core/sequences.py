"""Changes the logit of a token where the sequence that it ends has been written up to it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

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
    needs = Needs(history=LONGEST - 1)

    @abstractmethod
    def sequences(self, env: Env) -> Sequences:
        """Reads the sequences from the run's texts; each has 1 to `LONGEST` ids.

        Raises:
            ParamError: a text is none.
        """

    def constants(self, env: Env) -> State:
        """Lays the sequences out by their last token, so that no two write to one place.

        Returns:
            `last` int64 `[U]`, the last tokens, each once; `before` int64 `[U, K, N]`, the tokens before
            them, −1 where a sequence is shorter; `bias` float32 `[U, K]`, 0 where a token ends fewer.
        """
        import torch

        ends: dict[int, list[tuple[tuple[int, ...], float]]] = {}
        for ids, bias in self.sequences(env).items():
            if max(ids) < env.vocab:  # others are never written
                ends.setdefault(ids[-1], []).append((ids[:-1], bias))
        most = max(map(len, ends.values()), default=0)
        length = max((len(ids) for each in ends.values() for ids, _ in each), default=0)
        before = [
            [[-1] * (length - len(ids)) + list(ids) for ids, _ in each] + [[-1] * length] * (most - len(each))
            for each in ends.values()
        ]
        biases = [[number for _, number in each] + [0.0] * (most - len(each)) for each in ends.values()]
        shape = (len(ends), most, length)
        return {
            "last": torch.tensor(list(ends), dtype=torch.int64, device=env.device),
            "before": torch.tensor(before, dtype=torch.int64, device=env.device).reshape(shape),
            "bias": torch.tensor(biases, dtype=torch.float32, device=env.device).reshape(shape[:2]),
        }

    def apply(self, z: Tensor, p: Params, s: State, rng: Rng) -> Tensor:
        """Adds the numbers of the sequences that a token would complete."""
        before = s["before"]
        if not before.shape[0]:
            return z
        length = before.shape[-1]
        ids = s["ids"][:, s["ids"].shape[1] - length :]
        written = ((ids[:, None, None] == before) | (before < 0)).all(-1)
        added = s["bias"].where(written, 0.0).sum(-1)
        return z.scatter_add(1, s["last"].expand(len(z), -1), added)


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
