"""A step never waits for the device, keeps its addresses, and can be captured."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from edge_tui import decoders
from edge_tui.decoders import base
from edge_tui.decoders.base import Decoder, Env, Output, Params, Step, names_of
from edge_tui.decoders.core.random import Rng, key_of
from edge_tui.decoders.core.steady import why_unsteady
from edge_tui.decoders.core.writes import dispatch
from edge_tui.verify.driver import with_layers
from tests.decoders.driver import begin, param_values

if TYPE_CHECKING:
    from torch import Tensor

    from edge_tui.decoders.base import State

VOCAB = 6000
TEXTS = {"bad_words": ("ab", "c"), "logit_bias": ("ab=5", "c=-1")}
EACH = pytest.mark.parametrize("decoder", decoders.strategies(), ids=lambda decoder: decoder.name)


@dataclass
class Bench:
    """A strategy with fixed inputs on some device."""

    decoder: Decoder
    state: State
    outs: dict[str, Output]
    params: Params
    rng: Rng

    def step(self) -> Step:
        return self.decoder.step(self.outs, self.state, self.params, self.rng)


def bench(decoder: Decoder, device: str, **given: object) -> Bench:
    values = param_values(decoder, **given)
    rows = decoder.rows(values)
    generator = torch.Generator().manual_seed(1)

    def move(tensor: Tensor) -> Tensor:
        return tensor.to(device)

    prompt = move(torch.randint(0, VOCAB, (rows, 12), generator=generator))
    outs = {
        stream.name: Output(move(torch.randn(rows, 1, VOCAB, generator=generator) * 3))
        for stream in decoder.streams
    }
    main = decoder.streams[0].name
    outs[main] = with_layers(decoder, values, outs[main])
    table = move(torch.tensor(list(values.values()))[:, None].repeat(1, rows))
    rng = Rng(
        move(torch.full((rows,), key_of(7))),
        move(torch.zeros(1, dtype=torch.int64)),
    )
    texts = {param.name: TEXTS.get(param.name, param.default) for param in base.texts(decoder.params)}
    env = Env(rows, VOCAB, device, prompt, move(torch.tensor([5, 9])), values, 20, texts=texts)
    return Bench(decoder, begin(decoder, env), outs, Params(list(values), table), rng)


def only_on_meta() -> AbstractContextManager[None]:
    """Refuses tensors that are made on the host: on a GPU each is a copy that the host waits for."""

    def check(func: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        out = func(*args, **options)
        for each in out if isinstance(out, tuple | list) else (out,):
            assert not isinstance(each, torch.Tensor) or each.device.type == "meta", func
        return out

    return dispatch(check)


@EACH
def test_no_step_reads_a_value(decoder: Decoder) -> None:
    """On the meta device there are no values: `.item()`, `bool(tensor)`, `nonzero`, boolean indexing, copies
    to the host raise. What passes has static shapes and no branch on data, on every path that is not the
    CPU's own; the mode adds that nothing is made on the host on the way.
    """
    run = bench(decoder, "meta")
    with only_on_meta():
        for _ in range(2):
            step = run.step()
    rows = run.outs["model"].logits.shape[0]
    assert step.chosen.shape == (rows,)
    shape = (rows, 1) if decoder.num_draft_tokens({}) else (rows,)
    assert step.final.shape == (*shape, VOCAB)
    assert step.final.dtype == torch.float32
    assert step.extras.keys() == set(names_of(decoder.columns))
    assert all(column.shape == shape for column in step.extras.values())


@pytest.mark.parametrize(
    "decoder",
    [decoder for decoder in decoders.strategies() if decoder.kind == "propose"],
    ids=lambda decoder: decoder.name,
)
def test_no_proposal_and_no_check_of_proposals_reads_a_value(decoder: Decoder) -> None:
    run = bench(decoder, "meta")
    count = decoder.num_draft_tokens({})
    draft = run.outs["draft"] if len(decoder.streams) > 1 else None
    positions = {"model": Output(run.outs["model"].logits.expand(1, count + 1, VOCAB))}
    with only_on_meta():
        for at in range(count):
            assert decoder.propose(draft, run.state, run.params, run.rng, at).shape == (1,)
        step = decoder.step(positions, run.state, run.params, run.rng)
    assert step.tokens is not None
    assert step.tokens.shape == (1, count + 1)


PEEKS = pytest.mark.parametrize(
    "peek",
    [
        lambda z: z.sum().item(),
        lambda z: bool(z.any()),
        lambda z: [1 for each in z if each > 0],
        lambda z: int(z.argmax()),
        lambda z: z.tolist(),
        lambda z: z.nonzero(),
        lambda z: z[z > 0],
        lambda z: z.masked_select(z > 0),
        lambda z: z.unique(),
        lambda z: z.argwhere(),
        lambda z: torch.where(z > 0),
        lambda z: z.equal(z + 1),
        lambda z: z.cpu(),
        lambda z: z.to("cpu", torch.float64),
        lambda z: z.numpy(),
        lambda z: z + torch.tensor([1.0]),
        lambda z: z + torch.arange(3),
    ],
)


@PEEKS
def test_the_check_above_notices_each_way_to_peek(peek: Callable[[Tensor], object]) -> None:
    with only_on_meta(), pytest.raises((RuntimeError, NotImplementedError, AssertionError, TypeError)):
        peek(torch.zeros(3, device="meta"))


def why(run: Bench, step: Callable[..., object]) -> str:
    """Why a step is not steady, asked as the engine does."""
    with torch.inference_mode():
        return why_unsteady(SimpleNamespace(step=step), run.outs, run.state, run.params, run.rng)  # type: ignore[arg-type]


def on_logits(do: Callable[[Tensor], object]) -> Callable[..., object]:
    """A step that does something with three logits."""
    return lambda outs, s, p, rng: do(outs["model"].logits[0, 0, :3])


@EACH
def test_every_strategy_is_steady_and_its_inputs_are_left_as_they_are(decoder: Decoder) -> None:
    run = bench(decoder, "cpu")
    state = {name: tensor.clone() for name, tensor in run.state.items()}
    assert why(run, decoder.step) == ""
    assert all(run.state[name].equal(tensor) for name, tensor in state.items())


@PEEKS
def test_a_strategy_that_peeks_is_not_steady(peek: Callable[[Tensor], object]) -> None:
    assert why(bench(decoders.find("greedy"), "cpu"), on_logits(peek))


@pytest.mark.parametrize(
    "do",
    [
        lambda z: z.masked_fill(z > 0, 1.0)[torch.zeros(1, dtype=torch.int64, device=z.device)],
        lambda z: z.clone().add_(torch.ones(3, device=z.device)).sort().values.cumsum(0),
        lambda z: torch.where(z > 0, z, torch.full_like(z, -1)).scatter_(0, z.argmax()[None], 2.0),
    ],
)
def test_what_is_the_same_for_all_numbers_is_steady(do: Callable[[Tensor], object]) -> None:
    assert why(bench(decoders.find("greedy"), "cpu"), on_logits(do)) == ""


def test_a_run_imports_no_compiler() -> None:
    """On a CPU its import stops the app for seconds, in the middle of the first answer."""
    arguments = ["run", "--no-history", "--quiet", "--model", "demo/expert", "--max-new-tokens", "4", "a"]
    code = (
        f"import sys; from edge_tui.cli.main import main; code = main({arguments}); "
        "print(); print(code, *sys.modules.keys() & {'torch._dynamo', 'sympy'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].split() == ["0"], done.stdout


@EACH
def test_state_and_inputs_stay_where_they_are(decoder: Decoder) -> None:
    """Captured graphs hold addresses: a step updates its state in place, and writes to nothing else."""
    run = bench(decoder, "cpu")
    addresses = {key: tensor.data_ptr() for key, tensor in run.state.items()}
    rows = run.outs["model"].logits.shape[0]
    before = {
        (name, field): tensor.clone()
        for name, out in run.outs.items()
        for field, tensor in out.tensors().items()
    }
    table = run.params.table.clone()
    for _ in range(3):
        run.step()
    assert {key: tensor.data_ptr() for key, tensor in run.state.items()} == addresses
    for (name, field), tensor in before.items():
        assert torch.equal(getattr(run.outs[name], field), tensor), (name, field)
    assert torch.equal(run.params.table, table)
    of_rows = (tensor for name, tensor in run.state.items() if ":" not in name)  # the rest are constants
    assert all(tensor.shape[0] == rows for tensor in of_rows)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@EACH
def test_a_step_on_the_gpu_never_waits_can_be_captured_and_agrees_with_the_cpu(decoder: Decoder) -> None:
    reference = bench(decoder, "cpu")
    expected = [reference.step() for _ in range(4)]

    run = bench(decoder, "cuda")
    run.step()  # what is allocated or compiled once
    run = bench(decoder, "cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        first = run.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run.step()
    found = [first.chosen.cpu()]
    for _ in range(3):
        graph.replay()
        found.append(captured.chosen.cpu())
    assert [chosen.tolist() for chosen in found] == [step.chosen.tolist() for step in expected]
    kept, reference_kept = captured.final.cpu() > -torch.inf, expected[-1].final > -torch.inf
    # Sums in another order may move the edge of a set by a candidate.
    assert (kept != reference_kept).sum() <= 2 * kept.shape[0]
