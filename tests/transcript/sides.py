"""Runs of strategies on a toy model, as the sides of a comparison."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from edge_tui import decoders
from edge_tui.engine.events import TOP, Resolved, Started, TokenBatch
from edge_tui.engine.port import Request
from edge_tui.transcript.draw_conditions import Side
from edge_tui.transcript.transcript import Transcript
from tests.decoders import driver
from tests.history.runs import LOADED

VOCAB = 48
WORDS = tuple(f" w{id}" for id in range(VOCAB))


def toy_model(ids: Tensor) -> Tensor:
    """Logits that are a function of the last two tokens."""
    seeds = (ids[:, -1] * 64 + ids[:, -2]).tolist()
    rows = [torch.randn(VOCAB, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return 2.5 * torch.stack(rows)


def decode(strategy: str, length: int, seed: int = 0, **values: float) -> tuple[Side, driver.Run]:
    """Decodes on the toy model; returns the run as a side, and its steps."""
    decoder = decoders.find(strategy)
    models = dict.fromkeys(decoder.roles, toy_model)
    done = driver.run(decoder, models, [3, 5], length, VOCAB, seed=seed, **values)
    return side_of(strategy, [row[0] for row in done.tokens], done.finals, seed, done.values), done


def side_of(strategy: str, ids: list[int], finals: list[Tensor], seed: int, values: dict[str, float]) -> Side:
    """Records tokens as an engine does."""
    resolved = {name: Resolved(value, "user") for name, value in values.items()}
    transcript = Transcript(Started(1, strategy, 1, (), 2, 0, 0, len(ids), seed, resolved))
    for step, token in enumerate(ids):
        read = torch.tensor([[3, 5, *ids[:step]]])
        raw, final = toy_model(read)[0].log_softmax(-1), finals[step][0].log_softmax(-1)
        transcript.extend(_record(step, token, raw, final))
    return Side(Request("toy", strategy, seed=seed), transcript, {"model": LOADED})


def _record(step: int, token: int, raw: Tensor, final: Tensor) -> TokenBatch:
    tops = [z.topk(TOP) for z in (raw, final)]

    def floats(values: Tensor) -> np.ndarray:
        return values.reshape(1, -1).numpy().astype(np.float32)

    def one(value: float, kind: type) -> np.ndarray:
        return np.array([value], kind)

    return TokenBatch(
        run=1,
        step=one(step, np.int32),
        row=one(0, np.int32),
        parent=one(0, np.int32),
        id=one(token, np.int32),
        raw_logp=floats(raw[token])[0],
        final_logp=floats(final[token])[0],
        rank=one(int((raw > raw[token]).sum()), np.int32),
        entropy=one(float(torch.special.entr(raw.exp()).sum()), np.float32),
        version=one(0, np.int32),
        top_ids=tops[0].indices[None].numpy().astype(np.int32),
        top_logp=floats(tops[0].values),
        final_ids=tops[1].indices[None].numpy().astype(np.int32),
        final_top_logp=floats(tops[1].values),
        extras=np.zeros((1, 0), np.float32),
        text=(WORDS[token],),
    )
