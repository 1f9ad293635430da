"""Mixtures of experts: the plain operations against a loop, the kernels against the plain operations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from zlib import crc32

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from edge_tui.engine.ops.experts import Experts, Routing, choose, mix
from edge_tui.engine.ops.row_counts import STEP, kernels, rounded

HIDDEN, WIDTH, EXPERTS = 24, 20, 6
BOUND = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 2e-2}
CLAMPED = Routing(3, True, 0.8, 1.3)
WAYS = {
    "normalised": Routing(2, True),
    "as the softmax over all has them": Routing(3, False),
    "one expert": Routing(1, True),
    "all experts": Routing(EXPERTS, False),
    "clamped": CLAMPED,
}


def random(seed: object, *shape: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Tensor:
    generator = torch.Generator().manual_seed(crc32(repr((seed, shape)).encode()))
    return torch.randn(*shape, generator=generator).to(device, dtype)


def made(biased: bool, shared: bool, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Experts:
    def weight(name: str, *shape: int) -> Tensor:
        return random(name, *shape, dtype=dtype, device=device) / shape[-1] ** 0.5

    return Experts(
        weight("router", EXPERTS + shared, HIDDEN) * 3,
        weight("gate_up", EXPERTS, 2 * WIDTH, HIDDEN),
        weight("down", EXPERTS, HIDDEN, WIDTH),
        random("router bias", EXPERTS, dtype=dtype, device=device) if biased else None,
        random("gate_up bias", EXPERTS, 2 * WIDTH, dtype=dtype, device=device) if biased else None,
        random("down bias", EXPERTS, HIDDEN, dtype=dtype, device=device) if biased else None,
    )


def looped(x: Tensor, weights: Experts, logits: Tensor, how: Routing) -> Tensor:
    """The definition, a token and an expert at a time, in float64."""

    def wide(tensor: Tensor | None) -> Tensor:
        return torch.zeros(EXPERTS, 1, dtype=torch.float64) if tensor is None else tensor.double().cpu()

    gate_up, down = wide(weights.gate_up), wide(weights.down)
    rows = []
    for token, z in zip(x.double().cpu(), logits.double().cpu(), strict=True):
        z = z[:EXPERTS]
        best = sorted(range(EXPERTS), key=lambda e: (-float(z[e]), e))[: how.active]
        among = best if how.normalised else range(EXPERTS)
        total = sum(float(z[e].exp()) for e in among)
        row = torch.zeros(HIDDEN, dtype=torch.float64)
        for e in best:
            gate, up = (gate_up[e] @ token + wide(weights.gate_up_bias)[e]).chunk(2)
            if how.limit:
                gate, up = gate.clamp(max=how.limit), up.clamp(-how.limit, how.limit)
                inner = gate * torch.sigmoid(how.alpha * gate) * (up + 1)
            else:
                inner = gate * torch.sigmoid(gate) * up
            row += float(z[e].exp()) / total * (down[e] @ inner + wide(weights.down_bias)[e])
        rows.append(row)
    return torch.stack(rows)


def off(got: Tensor, wanted: Tensor) -> float:
    return float((got.double().cpu() - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("biased", [False, True], ids=["plain", "biased"])
@pytest.mark.parametrize("way", WAYS)
def test_a_mixture_is_the_weighted_sum_of_its_chosen_experts(way: str, biased: bool) -> None:
    how, weights, x = WAYS[way], made(biased, False), random(way, 17, HIDDEN)
    logits = F.linear(x, weights.router, weights.router_bias)
    chosen, shares = choose(logits, EXPERTS, how)
    assert off(mix(x, weights, chosen, shares, how), looped(x, weights, logits, how)) < 1e-5


class RowCounts(TorchDispatchMode):
    """Notes how many rows are multiplied by a matrix at once."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().removeprefix("aten::").partition(".")[0]
        if name in ("mm", "addmm"):
            self.seen.add(len(args[name == "addmm"]))
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("biased", [False, True], ids=["plain", "biased"])
@pytest.mark.parametrize("tokens", [1, 5, 41, 300])
def test_products_of_16_bits_have_few_numbers_of_rows(tokens: int, biased: bool) -> None:
    """Each costs a CPU a kernel that is kept; whose rows they are does not change."""
    dtype, how = torch.bfloat16, Routing(2, True)
    weights, x = made(biased, False, dtype), random("x", tokens, HIDDEN, dtype=dtype)
    logits = F.linear(x, weights.router, weights.router_bias)
    chosen, shares = choose(logits, EXPERTS, how)
    with RowCounts() as counts:
        got = mix(x, weights, chosen, shares, how)
    assert off(got, looped(x, weights, logits, how)) < BOUND[dtype]
    assert counts.seen <= {rounded(count) for count in range(1, 2 * tokens + 1)} | {*range(1, STEP)}
    with RowCounts() as exact:
        mix(x.float(), made(biased, False), chosen, shares, how)
    assert exact.seen == set(chosen.flatten().bincount().tolist()) - {0}, "float32 needs no rounding"


def test_rounded_numbers_are_counted() -> None:
    for most in (1, 2, 3, 31, 32, 33, 64, 65, 512):
        assert kernels(most) == len({rounded(count) for count in range(1, most + 1)})
        assert all(rounded(count) >= count for count in range(1, most + 1))


def test_a_token_gets_the_same_alone_and_among_others() -> None:
    how, weights, x = WAYS["normalised"], made(False, False), random("x", 9, HIDDEN)
    chosen, shares = choose(F.linear(x, weights.router), EXPERTS, how)
    together = mix(x, weights, chosen, shares, how)
    for i in range(9):
        alone = mix(x[i : i + 1], weights, chosen[i : i + 1], shares[i : i + 1], how)
        torch.testing.assert_close(alone, together[i : i + 1])


# ---------------------------------------------------------------------------------------------------- kernels

launch = pytest.importorskip("edge_tui.engine.ops.triton.launch")
experts_triton: Any = pytest.importorskip("edge_tui.engine.ops.triton.experts")
configs = pytest.importorskip("edge_tui.engine.ops.triton.project_configs")
DEVICE = "cpu" if launch.INTERPRETED else "cuda"
TINY = configs.Config(block_n=8, block_k=16, warps=1)


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "shared"])
@pytest.mark.parametrize("way", WAYS)
def test_the_kernel_chooses_as_the_reference_does(way: str, shared: bool) -> None:
    how, logits = WAYS[way], 4 * random((way, shared), 5, EXPERTS + shared, device=DEVICE)
    logits[0, :3] = logits[0, :3].amax()  # the first of equal ones
    chosen = torch.full((5, how.active), -1, dtype=torch.int32, device=DEVICE)
    shares = torch.full((5, how.active + shared), torch.nan, device=DEVICE)
    experts_triton.choose_experts(logits, chosen, shares, EXPERTS, how)
    wanted = choose(logits, EXPERTS, how)
    assert torch.equal(logits.gather(1, chosen.long()), logits.gather(1, wanted[0]))
    torch.testing.assert_close(shares, wanted[1])
    assert all(len(set(row)) == how.active for row in chosen.tolist())


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_logits_that_are_no_numbers_choose_experts_that_are_there(value: float) -> None:
    logits = torch.full((2, EXPERTS), value, device=DEVICE)
    chosen = torch.full((2, 4), 99, dtype=torch.int32, device=DEVICE)
    experts_triton.choose_experts(logits, chosen, torch.empty(2, 4, device=DEVICE), EXPERTS, Routing(4, True))
    assert 0 <= int(chosen.min()) <= int(chosen.max()) < EXPERTS


@pytest.mark.parametrize(
    ("dtype", "tokens", "way", "biased", "norm", "shared", "residual"),
    [
        (torch.bfloat16, 1, "normalised", False, True, False, True),
        (torch.float16, 2, "clamped", True, False, False, False),
        (torch.float32, 2, "as the softmax over all has them", False, True, True, True),
    ],
)
def test_kernels_compute_what_the_reference_does(
    dtype: torch.dtype, tokens: int, way: str, biased: bool, norm: bool, shared: bool, residual: bool
) -> None:
    """The cut leaves a rest in both directions."""
    how, weights = WAYS[way], made(biased, shared, dtype, DEVICE)
    x, gain = random("x", tokens, HIDDEN, dtype=dtype, device=DEVICE), random("norm", HIDDEN, dtype=dtype)
    seen = F.rms_norm(x.float(), (HIDDEN,), gain.float().to(DEVICE), 1e-5) if norm else x.float()
    logits = F.linear(seen, weights.router.float(), None if not biased else weights.router_bias.float())
    chosen = torch.empty(tokens, how.active, dtype=torch.int32, device=DEVICE)
    shares = torch.empty(tokens, how.active + shared, device=DEVICE)
    wide = torch.full((tokens * how.active, WIDTH), torch.nan, dtype=dtype, device=DEVICE)
    frame = torch.full((tokens + 2, HIDDEN), torch.nan, dtype=dtype, device=DEVICE)
    always = random("always", tokens, HIDDEN, dtype=dtype, device=DEVICE) if shared else None
    before = random("before", tokens, HIDDEN, dtype=dtype, device=DEVICE) if residual else None
    experts_triton.choose_experts(logits, chosen, shares, EXPERTS, how)
    given = gain.to(DEVICE) if norm else None
    experts_triton.gate_up(x, weights, chosen, wide, how, norm=given, eps=1e-5, cut=TINY)
    cut = replace(TINY, block_n=16)
    how_down: dict[str, Any] = {"shared": always, "residual": before, "cut": cut}
    experts_triton.down(wide, weights, chosen, shares, frame[1:-1], how, **how_down)
    wanted = looped(seen, weights, logits, how)
    if always is not None:
        wanted += always.double().cpu() * logits[:, EXPERTS:].double().cpu().sigmoid()
    if before is not None:
        wanted += before.double().cpu()
    assert off(frame[1:-1], wanted) < BOUND[dtype]
    assert frame[0].isnan().all()
    assert frame[-1].isnan().all()


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "shared"])
def test_the_kernels_own_cut_fits_any_shape(shared: bool) -> None:
    how, weights, x = CLAMPED, made(False, shared, device=DEVICE), random("x", 1, HIDDEN, device=DEVICE)
    logits = F.linear(x, weights.router)
    always = random("always", 1, HIDDEN, device=DEVICE) if shared else None
    got = experts_triton.mix(x, logits, weights, how, always)
    wanted = looped(x, weights, logits, how)
    if always is not None:
        wanted += always.double().cpu() * logits[:, EXPERTS:].double().cpu().sigmoid()
    assert off(got, wanted) < 1e-5


@pytest.mark.gpu
def test_the_same_input_gives_the_same_bits() -> None:
    how, weights, x = CLAMPED, made(True, False, device=DEVICE), random("x", 3, HIDDEN, device=DEVICE)
    logits = F.linear(x, weights.router, weights.router_bias)
    first, second = (experts_triton.mix(x, logits, weights, how) for _ in range(2))
    assert torch.equal(first, second)
