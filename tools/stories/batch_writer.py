"""Samples texts in one batch whose rows never wait for each other: a row that ends takes the next prompt.

A prompt is fed a token a step like the answer, so that there is one kind of step, which a GPU replays as one
CUDA graph. What all prompts begin with is fed once. A text may have parts that are given, too: the model goes
on after each for a sentence. The noise of a text is a function of its number, so texts depend neither on the
batch nor on what was written before, but for rounding.
"""

from __future__ import annotations

import time
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import torch

from edge_tui.decoders.core.random import Rng, key_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tools.stories.batch_model import BatchModel

_CHOICES = 64
"""Tokens that a draw chooses from at most; min-p cuts among them."""
_CONTEXT = 2
"""Tokens after which the text does not go on as it did before: a small model falls into loops otherwise."""
_AGAIN = 2.5
"""Taken from the logit of a token that would go on as before."""
_PATIENCE, _HURRY = 2, 0.8
"""Tokens of a sentence after which its end becomes likelier, and what each further one adds to its logit."""
SENTENCE = -1
"""Stands in a script where the model writes a sentence of its own."""
_END = -2
"""Stands behind each script."""
_STEPS = 16
"""Steps between two looks at the rows, each of which waits for the device."""


class Prompt(NamedTuple):
    """Describes a text to be written.

    Attributes:
        number: Seeds its noise.
        ids: The prompt without what all begin with, at least one token.
        script: The text: ids that are given, and `SENTENCE` for each that the model writes.
        temperature: Above 0.
        min_p: Share of the likeliest token's probability below which none is drawn, at most 1.
    """

    number: int
    ids: list[int]
    script: list[int]
    temperature: float
    min_p: float


class Written(NamedTuple):
    """Holds what followed a prompt.

    Attributes:
        prompt: What it followed.
        ids: Its tokens.
        ended: False if the row's length cut it off.
    """

    prompt: Prompt
    ids: list[int]
    ended: bool


class BatchWriter:
    """Writes texts with a model, as many at once as the model has rows.

    Args:
        model: Of the rows.
        last: Ids that end a sentence.
        seed: Of the draws, with each prompt's number.
        before: Ids that every prompt begins with.
    """

    def __init__(
        self,
        model: BatchModel,
        last: Sequence[int],
        seed: int,
        before: Sequence[int] = (),
    ) -> None:
        self.model, self._seed, self._before = model, seed, len(before)
        rows, device = model.rows, model.device
        self._last = torch.tensor(last, dtype=torch.int64, device=device)
        self._ids = torch.zeros((rows, model.length), dtype=torch.int64, device=device)
        self._script = torch.full((rows, model.length), _END, dtype=torch.int64, device=device)
        self._at, self._position, self._given, self._own = (
            torch.zeros(rows, dtype=torch.int64, device=device) for _ in range(4)
        )
        self._done = torch.ones(rows, dtype=torch.bool, device=device)
        self._key = torch.ones(rows, dtype=torch.int64, device=device)
        self._temperature = torch.ones(rows, device=device)
        self._min_p = torch.ones(rows, device=device)
        self._row = torch.arange(rows, device=device)
        self._read_first(before)
        self._graph = self._capture() if device.type == "cuda" else None

    def write(self, prompts: Iterator[Prompt], seconds: float) -> Iterator[Written]:
        """Yields texts as they end, until the prompts do or the time is over; unfinished ones are lost."""
        until = time.monotonic() + seconds
        at: list[Prompt | None] = [None] * self.model.rows
        self._done.fill_(True)
        ready = deque(islice(prompts, self.model.rows))
        while time.monotonic() < until:
            done = self._done.nonzero().flatten().tolist()
            ended = self._collect(done, at)
            for row in done:
                at[row] = ready.popleft() if ready else next(prompts, None)
            self._begin([(row, prompt) for row in done if (prompt := at[row]) is not None])
            if any(at):
                for _ in range(_STEPS):
                    self._replay()
            # The device works on while the texts are looked at.
            yield from ended
            if not any(at):
                return
            ready.extend(islice(prompts, max(0, len(done) + 8 - len(ready))))

    def _collect(self, rows: list[int], at: list[Prompt | None]) -> list[Written]:
        if not rows:
            return []
        ids, ended = self._ids[rows].tolist(), self._ended()[rows].tolist()
        written = []
        for row, text, end, whole in zip(rows, ids, self._position[rows].tolist(), ended, strict=True):
            prompt = at[row]
            if prompt is not None:
                first = self._before + len(prompt.ids)
                written.append(Written(prompt, text[first : end + 1], whole))
        return written

    def _begin(self, prompts: list[tuple[int, Prompt]]) -> None:
        if not prompts:
            return
        width = self.model.length - self._before
        scripts = torch.full((len(prompts), self.model.length), _END)
        for n, (_, prompt) in enumerate(prompts):
            script = [*prompt.ids, *prompt.script]
            if len(script) >= width:
                raise ValueError(f"A prompt with its script has {len(script)} tokens; a row has {width}.")
            scripts[n, : len(script)] = torch.tensor(script)
        rows = torch.tensor([row for row, _ in prompts], device=self.model.device)
        for held, values in (
            (self._script, scripts),
            (self._ids[:, self._before], scripts[:, 0]),
            (self._at, torch.ones(len(prompts), dtype=torch.int64)),
            (self._own, torch.zeros(len(prompts), dtype=torch.int64)),
            (self._position, torch.full((len(prompts),), self._before)),
            (self._given, torch.tensor([self._before + len(p.ids) for _, p in prompts])),
            (self._done, torch.zeros(len(prompts), dtype=torch.bool)),
            (self._key, torch.tensor([key_of(self._seed + p.number) for _, p in prompts])),
            (self._temperature, torch.tensor([p.temperature for _, p in prompts])),
            (self._min_p, torch.tensor([p.min_p for _, p in prompts])),
        ):
            held.index_copy_(0, rows, values.to(self.model.device))

    @torch.inference_mode()
    def _read_first(self, ids: Sequence[int]) -> None:
        for position, id in enumerate(ids):
            self._ids[:, position] = id
            self.model.step(self._ids[:, position], torch.full_like(self._position, position))
        self._position.fill_(len(ids))

    def _step(self) -> None:
        """Reads each row's token and writes its next; rows that are done stand still."""
        token = self._ids[self._row, self._position]
        drawn = self._draw(self.model.step(token, self._position))
        whole = (self._next() == SENTENCE) & (self._own > 0) & _among(token, self._last) & ~self._done
        self._at += whole
        given = self._next()
        own = (given == SENTENCE) & ~self._done
        end = given == _END
        going = ~(self._done | end)
        self._own.copy_(torch.where(own, self._own.masked_fill(whole, 0) + 1, 0))
        token = torch.where(own, drawn, given)
        after = (self._position + 1).clamp_(max=self.model.length - 1)
        self._ids[self._row, after] = torch.where(going, token, self._ids[self._row, after])
        self._position.copy_(torch.where(going, after, self._position))
        self._at += going & ~own
        self._done |= end | (after == self.model.length - 1)

    def _next(self) -> torch.Tensor:
        """Returns what comes next in each row's script."""
        return self._script.gather(1, self._at.unsqueeze(1)).squeeze(1)

    def _ended(self) -> torch.Tensor:
        """Tells which rows have come to the end of their script."""
        return self._next() == _END

    def _draw(self, logits: torch.Tensor) -> torch.Tensor:
        """Draws a token for each row."""
        best, at = logits.topk(min(_CHOICES, logits.shape[-1]), -1)
        ids = self.model.scored[at]
        hurry = _HURRY * (self._own - _PATIENCE).clamp(min=0).unsqueeze(1)
        best = best.float() - _AGAIN * self._would_repeat(ids) + hurry * _among(ids, self._last)
        best = best / self._temperature.unsqueeze(1)
        outside = best < best.amax(-1, keepdim=True) + self._min_p.log().unsqueeze(1)
        drawn = best.masked_fill(outside, float("-inf")) + Rng(self._key, self._position).gumbel(ids)
        return ids.gather(1, drawn.argmax(-1, keepdim=True)).squeeze(1)

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

    def _capture(self) -> Callable[[], None] | None:
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), torch.inference_mode():
            for _ in range(3):
                self._step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.inference_mode(), torch.cuda.graph(graph):
                self._step()
        except RuntimeError as error:
            print(f"The step is not replayed as a graph: {error}", flush=True)
            torch.cuda.synchronize()
            return None
        return graph.replay

    @torch.inference_mode()
    def _replay(self) -> None:
        if self._graph is not None:
            self._graph()
        else:
            self._step()


def _among(ids: torch.Tensor, some: torch.Tensor) -> torch.Tensor:
    return (ids.unsqueeze(-1) == some).any(-1)
