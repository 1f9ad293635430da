"""A strategy's own step beside its fused one: interpreted on the CPU, compiled where there is a GPU."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import Tensor

from edge_tui import decoders
from edge_tui.decoders.base import Decoder, Env, Output, Params, Step, Text
from edge_tui.decoders.core.random import Rng
from edge_tui.decoders.core.step_log import StepLog, logged
from edge_tui.engine.decode.step_record import margin_of
from edge_tui.engine.ops.choose_plan import plan
from edge_tui.engine.ops.removal import removals_of, removing_stages
from edge_tui.verify.driver import with_layers
from tests.decoders.driver import begin, numbers, param_values, table

choose_triton = pytest.importorskip("edge_tui.engine.ops.triton.choose")
launch = pytest.importorskip("edge_tui.engine.ops.triton.launch")
DEVICE = "cpu" if launch.INTERPRETED else "cuda"

PENALTIES = {"repetition_penalty": 1.4, "presence_penalty": 0.3, "frequency_penalty": -0.2}


def stages(log: StepLog, step: Step) -> Tensor:
    """The link that removed each token of the vocabulary, int8 `[R, V]`."""
    rows, vocab = step.final.shape
    ids = torch.arange(vocab, device=step.final.device).expand(rows, -1)
    (removals,) = removals_of(log, rows)
    return removing_stages(ids, step.final, removals, known=step.removing_stage).to(torch.int8)


@dataclass
class Pair:
    """A strategy beside its fused step: the same inputs, and a state for each."""

    decoder: Decoder
    params: Params
    states: tuple[dict[str, Tensor], dict[str, Tensor]]
    fused: Any
    rows: int
    device: str

    @classmethod
    def make(cls, name: str, rows: int, vocab: int, device: str = DEVICE, **values: object) -> Pair:
        return cls.of(decoders.find(name), rows, vocab, device, **values)

    @classmethod
    def of(
        cls,
        decoder: Decoder,
        rows: int,
        vocab: int,
        device: str = DEVICE,
        texts: Mapping[str, Text] = MappingProxyType({}),
        left_out: Collection[int] = (),
        **values: object,
    ) -> Pair:
        how = plan(decoder, left_out)
        assert how is not None
        generator = torch.Generator().manual_seed(vocab)
        prompt = torch.randint(0, vocab, (rows, 5), generator=generator).to(device)
        ends = torch.tensor([1], device=device)
        resolved = param_values(decoder, **values)
        env = Env(rows, vocab, device, prompt, ends, resolved, 9, prefix=2, texts=texts)
        params = table(decoder, rows, **values)
        params = Params(list(params), params.table.to(device))
        states = begin(decoder, env), begin(decoder, env)
        chosen = torch.zeros(rows, dtype=torch.int64, device=device)
        fused = choose_triton.FusedChoice(how, decoder, vocab, chosen)
        return cls(decoder, params, states, fused, rows, device)

    def outs(self, logits: Tensor) -> dict[str, Output]:
        """Makes what the strategy reads of logits `[R, 1, V']` of the main stream."""
        z = logits.to(self.device)
        outs = {
            stream.name: Output(z if not i else z.flip(i % 2 - 1) / 2)
            for i, stream in enumerate(self.decoder.streams)
        }
        return outs | {"model": with_layers(self.decoder, param_values(self.decoder), outs["model"])}

    def step(self, logits: Tensor, number: int = 0, seed: int = 3) -> tuple[Step, Step, Rng]:
        """The reference's step and the fused one, on logits `[R, 1, V']`."""
        host = numbers(self.rows, seed, number)
        rng = Rng(host.key.to(self.device), host.step.to(self.device))
        outs = self.outs(logits)
        with logged() as log:
            expected = self.decoder.step(outs, self.states[0], self.params, rng)
        margin = margin_of(self.decoder, expected, log)
        expected = replace(expected, margin=margin, removing_stage=stages(log, expected))
        with logged() as log:
            found = self.fused(outs, self.states[1], self.params, rng)
        self.fused.finish()
        margin = margin_of(self.decoder, found, log)
        found = replace(found, margin=margin, removing_stage=stages(log, found))
        raw = outs["model"].logits[:, -1, : self.fused.width].float()
        assert torch.equal(self.fused.raw.nan_to_num(9e9), raw.nan_to_num(9e9))
        unread = found.chosen.clone(), found.final.clone()
        return expected, Step(*unread, margin=found.margin, removing_stage=found.removing_stage), rng

    def agree(self, logits: Tensor, number: int = 0, seed: int = 3) -> None:
        """Both decide the same, leave the same distribution and the same counts."""
        expected, found, _ = self.step(logits, number, seed)
        assert found.chosen.tolist() == expected.chosen.tolist()
        assert torch.equal(found.final > -math.inf, expected.final > -math.inf)
        # A row at temperature 0 has one logit, which later stages may move.
        finals = found.final.log_softmax(-1), expected.final.log_softmax(-1)
        torch.testing.assert_close(*finals, rtol=1e-6, atol=1e-5)
        assert expected.margin is not None
        assert found.margin is not None
        assert expected.removing_stage is not None
        assert found.removing_stage is not None
        torch.testing.assert_close(found.margin, expected.margin, rtol=0, atol=1e-4)
        there = logits[:, -1, : self.fused.width].to(self.device) > -math.inf
        assert found.removing_stage[there].tolist() == expected.removing_stage[there].tolist()
        for key, tensor in self.states[0].items():
            torch.testing.assert_close(self.states[1][key], tensor, rtol=1e-5, atol=1e-5, msg=key)


def random(rows: int, vocab: int, seed: int = 0, scale: float = 3.0) -> Tensor:
    return torch.randn(rows, 1, vocab, generator=torch.Generator().manual_seed(seed)) * scale
