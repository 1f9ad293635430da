"""`python -m tests.engine.ops.building [check]` builds every kernel for a Hopper GPU, there or not.

Triton's interpreter takes what its compiler refuses, such as a variable whose shape changes in a loop. So
each is launched as the engine launches it, but for the launch itself, and those that were built are named.
With `check` the compiler stops at its own representation, behind which it refuses little.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any, NamedTuple, get_args

import torch
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import CUDABackend
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from edge_tui import decoders
from edge_tui.decoders.base import Env, Output, Params
from edge_tui.decoders.core.kernels import Noise, Statistic
from edge_tui.engine.ops.choose_plan import plan
from edge_tui.engine.ops.code_groups import pack
from edge_tui.engine.ops.experts import Experts, Routing
from edge_tui.engine.ops.packed import PackedMatrix
from edge_tui.engine.ops.row_kernels import made_by_triton
from edge_tui.engine.ops.triton import attend as attend_triton
from edge_tui.engine.ops.triton import beam as beam_triton
from edge_tui.engine.ops.triton import choose as choose_triton
from edge_tui.engine.ops.triton import contrast as contrast_triton
from edge_tui.engine.ops.triton import contrastive_search as contrastive_search_triton
from edge_tui.engine.ops.triton import experts as experts_triton
from edge_tui.engine.ops.triton import norms as norms_triton
from edge_tui.engine.ops.triton import past_states as past_states_triton
from edge_tui.engine.ops.triton import project as project_triton
from edge_tui.engine.ops.triton import speculate as speculate_triton
from edge_tui.engine.ops.triton import stats as stats_triton
from edge_tui.engine.ops.triton.project_configs import Config
from edge_tui.engine.ops.triton.widen_groups import widen
from edge_tui.verify.driver import with_layers
from tests.decoders.driver import numbers, param_values, table
from tests.engine.ops import random_groups

HOPPER = 9, 0
VOCABULARY = 151_936


class Absent:
    """What Triton asks about a GPU that is not there."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 10 * HOPPER[0] + HOPPER[1], 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


class Start(NamedTuple):
    """What a fused step is given."""

    outs: dict[str, Output]
    state: dict[str, torch.Tensor]
    params: Params
    rng: Any


def start(name: str, rows: int, *streams: str) -> Start:
    decoder = decoders.find(name)
    prompt, ends = torch.zeros(rows, 3, dtype=torch.int64), torch.ones(1, dtype=torch.int64)
    env = Env(rows, VOCABULARY, "cpu", prompt, ends, param_values(decoder), 9)
    outs = {stream: Output(torch.zeros(rows, 1, VOCABULARY)) for stream in streams}
    return Start(outs, decoder.init(env), table(decoder, rows), numbers(rows))


def products() -> None:
    rows, columns = 1152, 896
    norm = torch.ones(columns, dtype=torch.bfloat16)
    for kind, dtype in (("plain", torch.bfloat16), ("int8", torch.int8)):
        weight = torch.zeros(rows, columns, dtype=dtype)
        scale = torch.ones(rows) if kind != "plain" else None
        packed = PackedMatrix(kind, weight, scale, None, rows, columns)
        for tokens in (1, 4):
            x = torch.zeros(tokens, columns, dtype=torch.bfloat16)
            gated = torch.zeros(tokens, rows // 2, dtype=torch.bfloat16)
            for gate in ("silu", "gelu"):
                project_triton.project(x, packed, gated, norm=norm, eps=1e-6, gate=gate, factor=0.5, cap=30.0)
    for kind in ("Q4_0", "AWQ g128", "Q4_K", "Q6_K", "Q8_0", "Q4_K above Q6_K", "NF4"):
        packed = pack(random_groups.random_groups(random_groups.KINDS[kind], 32, 4096))
        for tokens in (1, 4):
            x, out = torch.zeros(tokens, 4096, dtype=torch.bfloat16), torch.zeros(tokens, 16).bfloat16()
            how = {"norm": torch.ones_like(x[0]), "eps": 1e-6, "gate": "gelu_tanh"}
            project_triton.project(x, packed, out, **how, config=Config(16, 512, 2, tensor=True))
        widen(packed, torch.bfloat16)
    x = torch.zeros(4, columns, dtype=torch.bfloat16)
    project_triton.embed(torch.zeros(4, dtype=torch.int64), weight.view(torch.bfloat16).view(-1, 8), x, 8.0)
    norms_triton.add_normed(x, norm, 1e-6, x, x)
    norms_triton.norm_heads(x, norm[:768].view(6, 128), 1e-6, 1)


def mixtures() -> None:
    """Launches those of experts; nobody reads their two gigabytes, so nobody writes them either."""
    hidden, width, experts, active = 2048, 768, 128, 8

    def empty(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        return torch.empty(*shape, dtype=dtype)

    for biased, how in ((False, Routing(active, True)), (True, Routing(active, False, 7.0, 1.702))):
        biases = (empty(experts), empty(experts, 2 * width), empty(experts, hidden)) if biased else ()
        weights = Experts(empty(1), empty(experts, 2 * width, hidden), empty(experts, hidden, width), *biases)
        x, logits = empty(4, hidden), empty(4, experts + 1 - biased, dtype=torch.float32)
        experts_triton.mix(x, logits, weights, how, None if biased else x)
        chosen, wide = empty(4, active, dtype=torch.int32), empty(4 * active, width)
        experts_triton.gate_up(x, weights, chosen, wide, how, norm=x[0], eps=1e-6)
        shares = empty(4, active, dtype=torch.float32)
        experts_triton.down(wide, weights, chosen, shares, x, how, residual=x)


def attention() -> None:
    rows, heads, kv_heads, room = 4, 8, 2, 512
    for d in (128, 256):
        attend(rows, heads, kv_heads, room, d)


def attend(rows: int, heads: int, kv_heads: int, room: int, d: int) -> None:
    wide = d == 256
    cache = torch.zeros(rows, 2 * kv_heads, room, d, dtype=torch.bfloat16)
    owner, length = torch.zeros(rows, room, dtype=torch.int32), torch.zeros(rows, dtype=torch.int64)
    angles = torch.zeros(room, 2 * d, dtype=torch.bfloat16)[:, d:]
    plain, fork = (cache, None, None, None), (cache[:2], cache, length, owner)
    for k, given in ((1, fork), (5, plain)):
        qkv = torch.zeros(rows * k, (heads + 2 * kv_heads) * d, dtype=torch.bfloat16)
        out = torch.zeros(rows * k, heads * d, dtype=torch.bfloat16)
        scratch = attend_triton.Scratch(rows, k, heads, d, qkv.device, 132)
        how: dict[str, Any] = {"heads": heads, "kv_heads": kv_heads, "k": k}
        how |= {"sinks": out[0] if k == 5 else None, "cap": 50.0 if wide else 0.0}
        how |= {"qk_norm": out[:, : (heads + kv_heads) * d], "over_heads": k == 1} if wide else {}
        attend_triton.attend(qkv, *given, length, angles, angles, out, scratch, **how)
    if wide:
        attend_triton.follow(owner, length)


def choices() -> None:
    chosen = torch.zeros(4, dtype=torch.int64)
    later_passes = "temperature+quadratic+penalties+min_p+typical+temperature#2", "xtc"
    for name in ("greedy", "auto", *later_passes):
        decoder = decoders.find(name)
        how = plan(decoder)
        assert how is not None
        choose_triton.FusedChoice(how, decoder, VOCABULARY, chosen[:1])(*start(name, 1, "model"))
    contrast_triton.FusedContrast(VOCABULARY, chosen[:1])(*start("contrastive", 1, "model", "amateur"))
    beam = beam_triton.FusedBeam(VOCABULARY, chosen, chosen.clone())
    beam(*start("beam", 4, "model"))
    beam.finish()
    search = contrastive_search_triton.FusedContrastiveSearch(VOCABULARY, chosen, chosen.clone())
    outs, state, params, rng = start("contrastive_search", 4, "model")
    out, lengths = with_layers(decoders.find("contrastive_search"), {}, outs["model"]), chosen + 9
    half = {name: getattr(out, name).to(torch.bfloat16) for name in ("hidden", "past")}
    search({"model": replace(out, **half)}, state, params, rng)
    shared = torch.zeros(2, dtype=torch.int64)
    past_states_triton.append(half["past"], half["hidden"].view(4, -1), lengths, 1, shared)
    past_states_triton.reorder(half["past"], chosen, lengths, shared)
    speculative = speculate_triton.FusedSpeculative(VOCABULARY, chosen[:1], 1)
    outs, state, params, rng = start("speculative", 1, "model")
    speculative.propose(outs["model"], state, params, rng, 0)
    speculative.step({"model": Output(torch.zeros(1, 2, VOCABULARY))}, state, params, rng)


def records() -> None:
    logits, row = torch.zeros(4, VOCABULARY), torch.zeros(4, dtype=torch.int64)
    given = logits, logits, row, row, row == 0, logits[:, 0]
    record = stats_triton.record(*given, [], True, [logits])
    stats_triton.record(
        *given, [logits[:, 0]] * 2, moved=False, margin=logits[:, 0], ends=torch.cat((row[:1], row[:1]))
    )
    slots = (part.expand(3, *part.shape).contiguous() for part in record)
    stats_triton.post(*record, *slots, row[:1])


def whole_rows() -> None:
    kernels, z, row = made_by_triton(), torch.zeros(4, VOCABULARY), torch.zeros(4, dtype=torch.int64)
    for log in (False, True):
        kernels.softmax(z, log)
    for name in get_args(Statistic):
        kernels.statistic(z, name)
    for kind in get_args(Noise):
        kernels.noise(kind, torch.arange(VOCABULARY).expand(4, -1), row, row[:1], 0)
    for count in (4, 100):
        kernels.best(z, count)
    kernels.reach(z, z[:, :1])
    kernels.argmax_and_lead(z)
    kernels.draw(z, row, row[:1], 0)
    kernels.repeat_lengths(torch.zeros(4, 1024, dtype=torch.int64), 50)


def stop_early() -> None:
    """Leaves out all stages behind the first."""
    whole = CUDABackend.add_stages

    def add_stages(self: CUDABackend, stages: dict[str, Any], *rest: Any) -> None:
        whole(self, stages, *rest)
        for name in list(stages)[1:]:
            stages[name] = skip

    def skip(source: Any, metadata: dict[str, Any]) -> bytes:
        metadata.update(name="unbuilt", shared=0)
        return b""

    CUDABackend.add_stages = add_stages


def main() -> None:
    built = JITFunction.run

    def build(kernel: Any, *given: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        print(kernel.__name__, flush=True)
        return built(kernel, *given, grid=grid, warmup=True, **options)

    if "check" in sys.argv:
        stop_early()
    driver.set_active(Absent())
    JITFunction.run = build  # type: ignore[method-assign]
    torch.cuda.get_device_capability = lambda *_: HOPPER  # type: ignore[assignment]
    products()
    mixtures()
    attention()
    choices()
    records()
    whole_rows()


if __name__ == "__main__":
    main()
