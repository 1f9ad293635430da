"""Strategies that read hidden states: what reaches their step is what transformers' own forward gives."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from edge_tui import decoders
from edge_tui.engine.events import Noticed
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.models.base import Caps
from edge_tui.engine.models.loader import LoadedModel, load
from edge_tui.engine.port import ModelSpec, Request
from tests.engine.models.references import reference
from tests.engine.random_checkpoints import TOKENS, make_checkpoint
from tests.engine.watch import Watched, watch

PROMPT, LENGTH = (40, 61, 52, 73, 44, 95, 86), 9
READER = """
import torch

from edge_tui.decoders.base import Choice, Decoder, Needs, Step


class Reader(Decoder):
    name = "reader"
    title = "reader"
    summary = "Writes down some numbers of what it reads."
    needs = Needs(hidden=(0, -1), early=(1,), past=True)
    columns = ("embedded", "last", "early", "past", "length")
    {kind}

    def init(self, env):
        return {{}}

    def step(self, outs, s, p, rng):
        out = outs["model"]
        z = out.logits[:, -1]
        valid = torch.arange(out.past.shape[1], device=z.device) < out.past_length[:, None]
        extras = {{
            "embedded": out.hidden[:, -1, 0].float().sum(-1),
            "last": out.hidden[:, -1, 1].float().sum(-1),
            "early": out.early[:, -1, 0].logsumexp(-1),
            "past": out.past.float().sum(-1).masked_fill(~valid, 0.0).sum(-1),
            "length": out.past_length.float(),
        }}
        {choose}
"""
SAMPLES = READER.format(kind="traceable = False", choose="return Step(z.argmax(-1), z, extras=extras)")
FIELDS = """
import torch

from edge_tui.decoders.base import Decoder, Needs, Step


class Fields(Decoder):
    name = "fields"
    title = "fields"
    summary = "Writes down which tensors are there."
    needs = NEEDS
    columns = ("hidden", "early", "past")

    def init(self, env):
        return {}

    def step(self, outs, s, p, rng):
        z = outs["model"].logits[:, -1]
        there = outs["model"].tensors()
        extras = {name: z[:, 0] * 0 + (name in there) for name in self.columns}
        return Step(z.argmax(-1), z, extras=extras)
"""
SEARCH = READER.format(
    kind="""owns_eos = True

    def rows(self, values):
        return 3

    def finish(self, records):
        return Choice(records.path(len(records.tokens) - 1, 0), 0.0)
""",
    choose="""row = torch.arange(3, device=z.device)
        parent = 2 * (row != 1).long()
        chosen = z.topk(3).indices[parent].gather(-1, row[:, None])[:, 0]
        return Step(chosen, z[parent], parent, extras=extras)
""",
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    endless = {"eos_token_id": 315}
    return make_checkpoint(tmp_path_factory.mktemp("m") / "m", layers=3, generation=endless, extra=endless)


@pytest.fixture
def read(tmp_path: Path) -> Iterator[Callable[[str], None]]:
    def write(text: str) -> None:
        (tmp_path / "reader.py").write_text(text)
        decoders.load([tmp_path])
        assert not decoders.current().problems

    yield write
    decoders.load()


@cache
def module_of(path: Path) -> Any:
    return reference(path)


@torch.inference_mode()
def numbers_after(path: Path, ids: tuple[int, ...], prompt: int) -> list[list[float]]:
    """The numbers that a reader writes down after the first `prompt` ids, and after each one that follows."""
    module = module_of(path)
    states = [state[0] for state in module(torch.tensor([ids]), output_hidden_states=True).hidden_states]
    embedded, last = states[0].sum(-1), states[-1].sum(-1)
    early = module.lm_head(module.model.norm(states[1]))[:, :TOKENS].logsumexp(-1)
    length = torch.arange(len(ids)) + 1
    return torch.stack((embedded, last, early, last.cumsum(0), length), 1)[prompt - 1 :].tolist()


def check_samples(path: Path, seen: Watched, ids: tuple[int, ...] = PROMPT) -> None:
    extras = seen.column("extras")
    assert len(extras) == len(seen.ids)
    for got, wanted in zip(extras, numbers_after(path, (*ids, *seen.ids[:-1]), len(ids)), strict=True):
        assert got.tolist() == pytest.approx(wanted, rel=1e-4, abs=1e-3)


@pytest.mark.parametrize("traceable", [False, True])
def test_samples_read_layers_after_every_way_to_a_position(
    engine_on: Callable[[Path], LocalEngine], model: Path, read: Callable[[str], None], traceable: bool
) -> None:
    read(SAMPLES.replace("traceable = False", f"traceable = {traceable}"))
    engine = engine_on(model)
    watch(engine, Request("", "greedy", ids=PROMPT, max_length=4))  # its context has no past states
    first = watch(engine, Request("", "reader", ids=PROMPT, max_length=LENGTH))
    assert first.started.reused_tokens == 0
    check_samples(model, first)
    longer = (*PROMPT, *first.ids[:4], 77, 78)
    again = watch(engine, Request("", "reader", ids=longer, max_length=LENGTH))
    assert again.started.reused_tokens == len(PROMPT) + 4
    check_samples(model, again, longer)
    watch(engine, Request("", "top_p", ids=longer, max_length=5, seed=1))  # goes on keeping past states
    last = watch(engine, Request("", "reader", ids=(*longer, 79), max_length=3, samples=2))
    assert last.started.reused_tokens >= len(longer)
    check_samples(model, last, (*longer, 79))
    assert last.column("id", 1) == last.ids


@pytest.fixture
def engine_on(open_engine: Callable[..., LocalEngine]) -> Callable[[Path], LocalEngine]:
    def on(path: Path) -> LocalEngine:
        engine = open_engine()
        engine.assign("model", ModelSpec(str(path), device="cpu", precision="float32"))
        return engine

    return on


@pytest.mark.parametrize("needs", ["early=(2,)", "hidden=(1, 2)", ""])
def test_needs_change_from_run_to_run(
    engine_on: Callable[[Path], LocalEngine], model: Path, read: Callable[[str], None], needs: str
) -> None:
    """What is not asked for is not there, also on a context of a run that asked for everything."""
    engine = engine_on(model)
    read(SAMPLES)
    watch(engine, Request("", "reader", ids=PROMPT, max_length=2))
    read(FIELDS.replace("NEEDS", f"Needs({needs})"))
    seen = watch(engine, Request("", "fields", ids=PROMPT, max_length=3))
    assert seen.started.reused_tokens == len(PROMPT) - 1
    fields = ["hidden" in needs, "early" in needs, False]
    assert [numbers.tolist() for numbers in seen.column("extras")] == [fields] * 3


def test_rows_that_move_take_their_past_along(
    engine_on: Callable[[Path], LocalEngine], model: Path, read: Callable[[str], None]
) -> None:
    read(SEARCH)
    seen = watch(engine_on(model), Request("", "reader", ids=PROMPT, max_length=LENGTH))
    tokens = [seen.column("id", row) for row in range(3)]
    parents = [seen.column("parent", row) for row in range(3)]
    extras = [seen.column("extras", row) for row in range(3)]
    texts: list[tuple[int, ...]] = [()] * 3
    for step in range(LENGTH):
        for row, text in enumerate(texts):
            wanted = numbers_after(model, (*PROMPT, *text), len(PROMPT))[-1]
            assert extras[row][step].tolist() == pytest.approx(wanted, rel=1e-4, abs=1e-3)
        texts = [(*texts[int(parents[row][step])], int(tokens[row][step])) for row in range(3)]


@pytest.mark.parametrize(
    ("caps", "words"),
    [
        (Caps(hidden=False), "reader reads hidden states of layers, but .*/m gives none: choose another"),
        (Caps(early=False), "reader reads logits of early layers, but .*/m shows no way"),
        (Caps(mixes=False), "reader reads the last layer beside others, but .*/m has states of two widths"),
    ],
)
def test_a_strategy_whose_needs_a_tier_lacks_is_refused(
    model: Path, read: Callable[[str], None], caps: Caps, words: str
) -> None:
    def load_lacking(*arguments: Any) -> LoadedModel:
        loaded = load(*arguments)
        loaded.model.caps = caps
        return loaded

    read(SAMPLES)
    engine = LocalEngine({"model": ModelSpec(str(model), device="cpu")}, load=load_lacking)
    failed = watch(engine, Request("", "reader", ids=PROMPT, max_length=2)).failed
    assert engine.close(60.0)
    assert re.search(words, failed.message)
    assert failed.field == "strategy"


@pytest.mark.parametrize("field", ["hidden=(4,)", "hidden=(-5,)", "early=(3,)", "early=(-1,)"])
def test_a_layer_that_the_model_has_not_is_refused(
    engine_on: Callable[[Path], LocalEngine], model: Path, read: Callable[[str], None], field: str
) -> None:
    read(SAMPLES.replace("hidden=(0, -1), early=(1,), past=True", field))
    failed = watch(engine_on(model), Request("", "reader", ids=PROMPT, max_length=2)).failed
    last = 3 if "hidden" in field else 2
    assert failed.message.endswith(f"/m go from 0 to {last}: choose a model with more layers.")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("text", [SAMPLES, SEARCH], ids=["samples", "search"])
def test_captured_runs_read_what_a_cpu_reads(
    open_engine: Callable[..., LocalEngine], model: Path, read: Callable[[str], None], text: str
) -> None:
    """Twice on each device: the second run replays the graphs of the first one, after another strategy."""
    read(text)
    extras = []
    for device in ("cpu", "cuda:0"):
        engine = open_engine()
        engine.assign("model", ModelSpec(str(model), device=device, precision="float32"))
        for strategy in ("reader", "greedy", "reader"):
            seen = watch(engine, Request("", strategy, ids=PROMPT, max_length=40))
            assert not [notice for notice in seen.all(Noticed) if "uncaptured" in notice.message]
            if strategy == "reader":
                extras.append([numbers.tolist() for row in (0, 2) for numbers in seen.column("extras", row)])
    for each in extras[1:]:
        assert len(each) == len(extras[0])
        for got, wanted in zip(each, extras[0], strict=True):
            assert got == pytest.approx(wanted, rel=1e-3, abs=1e-2)
