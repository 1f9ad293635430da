"""Samples texts in one batch whose rows never wait for each other: a row that ends takes the next prompt.

A prompt is fed a token a step like the answer, so that there is one kind of step, which a GPU replays as one
CUDA graph. The noise of a text is a function of its number, so texts depend neither on the batch nor on what
was written before, but for rounding.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import torch

from edge_tui.decoders.core.random import Rng, key_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tools.stories.batch_model import BatchModel

_CHOICES = 64
"""Tokens that a draw chooses from at most; top-p cuts among them."""
_CONTEXT = 3
"""Tokens after which the text does not go on as it did before: a small model falls into loops otherwise."""
_AGAIN = 4.0
"""Taken from the logit of a token that would go on as before."""
_PATIENCE, _HURRY = 140, 0.025
"""Tokens of a text after which its end becomes likelier, and what each further one adds to its logit."""
_STEPS = 16
"""Steps between two looks at the rows, each of which waits for the device."""


class Prompt(NamedTuple):
    """Describes a text to be written.

    Attributes:
        number: Seeds its noise.
        ids: The prompt, at least one token.
        temperature: Above 0.
        top_p: Above 0, at most 1.
    """

    number: int
    ids: list[int]
    temperature: float
    top_p: float


class Written(NamedTuple):
    """Holds what followed a prompt.

    Attributes:
        prompt: What it followed.
        ids: Its tokens, without the one that ended it.
        ended: False if the row's length cut it off.
    """

    prompt: Prompt
    ids: list[int]
    ended: bool


class BatchWriter:
    """Writes texts with a model, as many at once as the model has rows."""

    def __init__(self, model: BatchModel, ends: tuple[int, ...], seed: int) -> None:
        self.model, self._seed = model, seed
        rows, device = model.rows, model.device
        self._ends = torch.tensor(ends, device=device)
        self._ids = torch.zeros((rows, model.length), dtype=torch.int64, device=device)
        self._position = torch.zeros(rows, dtype=torch.int64, device=device)
        self._given = torch.ones(rows, dtype=torch.int64, device=device)
        self._done = torch.ones(rows, dtype=torch.bool, device=device)
        self._key = torch.ones(rows, dtype=torch.int64, device=device)
        self._temperature = torch.ones(rows, device=device)
        self._top_p = torch.ones(rows, device=device)
        self._row = torch.arange(rows, device=device)
        self._graph = self._capture() if device.type == "cuda" else None

    def write(self, prompts: Iterator[Prompt], seconds: float) -> Iterator[Written]:
        """Yields texts as they end, until the prompts do or the time is over; unfinished ones are lost."""
        until = time.monotonic() + seconds
        at: list[Prompt | None] = [None] * self.model.rows
        self._done.fill_(True)
        while time.monotonic() < until:
            done = self._done.nonzero().flatten().tolist()
            if done:
                yield from self._collect(done, at)
                for row in done:
                    at[row] = next(prompts, None)
                self._begin([(row, prompt) for row in done if (prompt := at[row]) is not None])
                if not any(at):
                    return
            for _ in range(_STEPS):
                self._replay()

    def _collect(self, rows: list[int], at: list[Prompt | None]) -> Iterator[Written]:
        ids, ends = self._ids[rows].tolist(), set(self._ends.tolist())
        last = self._position[rows].tolist()
        for row, text, end in zip(rows, ids, last, strict=True):
            prompt = at[row]
            if prompt is not None:
                ended = text[end] in ends
                yield Written(prompt, text[len(prompt.ids) : end + (not ended)], ended)

    def _begin(self, prompts: list[tuple[int, Prompt]]) -> None:
        if not prompts:
            return
        width = self.model.length
        ids = torch.zeros((len(prompts), width), dtype=torch.int64)
        for n, (_, prompt) in enumerate(prompts):
            if len(prompt.ids) >= width:
                raise ValueError(f"A prompt has {len(prompt.ids)} tokens; a row has {width}.")
            ids[n, : len(prompt.ids)] = torch.tensor(prompt.ids)
        rows = torch.tensor([row for row, _ in prompts], device=self.model.device)
        for held, values in (
            (self._ids, ids),
            (self._position, torch.zeros(len(prompts), dtype=torch.int64)),
            (self._given, torch.tensor([len(p.ids) for _, p in prompts])),
            (self._done, torch.zeros(len(prompts), dtype=torch.bool)),
            (self._key, torch.tensor([key_of(self._seed + p.number) for _, p in prompts])),
            (self._temperature, torch.tensor([p.temperature for _, p in prompts])),
            (self._top_p, torch.tensor([p.top_p for _, p in prompts])),
        ):
            held.index_copy_(0, rows, values.to(self.model.device))

    def _step(self) -> None:
        """Reads each row's token and writes its next; rows that are done stand still."""
        logits = self.model.step(self._ids[self._row, self._position], self._position)
        best, ids = logits.topk(min(_CHOICES, logits.shape[-1]), -1)
        best = best.float() - _AGAIN * self._would_repeat(ids)
        over = (self._position - self._given - _PATIENCE).clamp(min=0)
        best = best + _HURRY * over.unsqueeze(1) * self._is_end(ids)
        p = (best / self._temperature.unsqueeze(1)).softmax(-1)
        outside = p.cumsum(-1) - p >= self._top_p.unsqueeze(1)
        noise = -(-Rng(self._key, self._position).uniform(ids).log()).log()
        choice = (p.log().masked_fill(outside, float("-inf")) + noise).argmax(-1, keepdim=True)
        after = (self._position + 1).clamp_(max=self.model.length - 1)
        kept = self._ids[self._row, after]
        prompt = (after < self._given) | self._done
        token = torch.where(prompt, kept, ids.gather(1, choice).squeeze(1))
        self._ids[self._row, after] = token
        self._position.copy_(torch.where(self._done, self._position, after))
        ended = self._is_end(token) | (after == self.model.length - 1)
        self._done |= ended & (after >= self._given)

    def _is_end(self, ids: torch.Tensor) -> torch.Tensor:
        return (ids.unsqueeze(-1) == self._ends).any(-1)

    def _would_repeat(self, candidates: torch.Tensor) -> torch.Tensor:
        """Tells which tokens once followed the tokens that stand last, in the text after the prompt.

        Args:
            candidates: int64 `[rows, N]`.

        Returns:
            bool `[rows, N]`.
        """
        columns = torch.arange(self.model.length, device=self.model.device)
        begin = self._given.unsqueeze(1)
        position = self._position.unsqueeze(1)
        again = (columns > begin + _CONTEXT) & (columns <= position)
        for back in range(1, _CONTEXT + 1):
            last = self._ids.gather(1, (position + 1 - back).clamp(min=0))
            again &= self._ids.roll(back, 1) == last
        followed = torch.where(again, self._ids, -1)
        return (candidates.unsqueeze(-1) == followed.unsqueeze(1)).any(-1)

    def _capture(self) -> Callable[[], None]:
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), torch.inference_mode():
            for _ in range(3):
                self._step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.inference_mode(), torch.cuda.graph(graph):
            self._step()
        return graph.replay

    @torch.inference_mode()
    def _replay(self) -> None:
        if self._graph is not None:
            self._graph()
        else:
            self._step()
