"""Models whose matrices stay codes, against their own dequantised weights; interpreted or compiled."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import torch
from gguf import GGMLQuantizationType as Type

from edge_tui.engine.checkpoints.checkpoint import open_checkpoint
from edge_tui.engine.events import PromptRead
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.models import loader, memory_estimate
from edge_tui.engine.models.architectures import flat_config
from edge_tui.engine.models.loading import load_flat
from edge_tui.engine.models.memory_estimate import estimate, keeps_codes, packed_precision, resolve_precision
from edge_tui.engine.models.weight_bytes import CODE_COPIES, count_weights
from edge_tui.engine.ops import code_check
from edge_tui.engine.ops.linear import PlainLinear
from edge_tui.engine.ops.packed_linear import GroupLinear
from edge_tui.engine.ops.triton import compiled_ahead
from edge_tui.engine.ops.triton.availability import available
from edge_tui.engine.port import ModelSpec, Request
from edge_tui.transcript.transcript import Transcript
from tests.engine.checkpoints.coded import CODINGS, make_coded
from tests.engine.checkpoints.gguf.files import PACKED, write_gguf
from tests.engine.models.architectures import make_tiny
from tests.engine.random_checkpoints import make_checkpoint, save_tokenizer
from tests.engine.watch import watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy as np

    from edge_tui.engine.models.flat import FlatModel

launch = pytest.importorskip("edge_tui.engine.ops.triton.launch")
widen_groups = pytest.importorskip("edge_tui.engine.ops.triton.widen_groups")
project_triton = pytest.importorskip("edge_tui.engine.ops.triton.project")
Config = pytest.importorskip("edge_tui.engine.ops.triton.project_configs").Config
DEVICE = "cpu" if launch.INTERPRETED else "cuda:0"
NARROW: dict[str, Any] = {"hidden": 64, "intermediate": 96, "heads": 4, "kv_heads": 2, "layers": 1}
WIDE: dict[str, Any] = NARROW | {"hidden": 256, "intermediate": 256}


def k_m(name: str) -> Type:
    """A mixture as llama.cpp's Q4_K_M is one."""
    return Type.Q6_K if name.split(".")[-2] in ("attn_v", "ffn_down", "output") else Type.Q4_K


def as_gguf(kinds: Callable[[str], Type], arch: str, shape: dict[str, Any], folder: Path) -> str:
    return str(write_gguf(make_checkpoint(folder / "m", arch, **shape), folder / "m.gguf", kinds))


def make(case: str, folder: Path) -> str:
    """Makes a checkpoint by the name of its kind."""
    if case in CODINGS:
        return str(make_coded(folder, CODINGS[case], layers=1)[0])
    if case == "Q4_K_M":
        return as_gguf(k_m, "llama", WIDE, folder)
    if case == "Gemma 3":
        sizes = {"vocab_size": 320, "hidden_size": 64, "intermediate_size": 96, "query_pre_attn_scalar": 8}
        save_tokenizer(gemma := make_tiny(folder / "m", "gemma3_text", **sizes))
        return str(write_gguf(gemma, folder / "m.gguf", lambda _: Type.Q4_0))
    kind = Type[case]
    return as_gguf(lambda _: kind, "qwen2", WIDE if case.endswith("_K") else NARROW, folder)


def read(name: str, codes: bool, dtype: torch.dtype = torch.float16) -> FlatModel:
    checkpoint = open_checkpoint(name)
    precision = packed_precision(checkpoint) if codes else str(dtype).removeprefix("torch.")
    return load_flat(checkpoint, device=DEVICE, dtype=dtype, precision=precision, context=64, codes=codes)


def kinds_of(model: FlatModel) -> list[str]:
    assert model.weights is not None
    matrices = model.weights.matrices
    return [m.packed().kind if isinstance(m, GroupLinear) else "plain" for m in matrices]


MODELS = {
    "Q4_0": ["group4"] * 5,
    "Q4_K_M": ["group8m", "group4m", "group4m", "group8", "group8"],
    "awq": ["group4m"] * 4 + ["plain"],
    "gptq act-order": ["plain"] * 5,
    "gptq 8 bit": ["group8m"] * 4 + ["plain"],
    "Q8_0": ["group8"] * 5,
}
SHORT = {"Q4_K_M", "awq", "gptq act-order"}


@pytest.mark.parametrize(
    "case", [name if name in SHORT else pytest.param(name, marks=pytest.mark.proof) for name in MODELS]
)
def test_a_model_says_what_its_dequantised_weights_say(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prompt, one token and two: as near to float32 as its twin of dequantised 16-bit weights."""
    if launch.INTERPRETED:  # which takes as long for a small block as for a large one
        monkeypatch.setattr(project_triton, "choose", lambda *_, **__: Config(128, 256, 1, tensor=True))
    name = make(case, tmp_path)
    ids = torch.arange(7, 29, device=DEVICE)[None]
    logits = []
    for codes, dtype in ((True, torch.float16), (False, torch.float16), (False, torch.float32)):
        model = read(name, codes, dtype)
        assert kinds_of(model) == (MODELS[case] if codes else ["plain"] * 5)
        ctx = model.open(1, 32)
        with torch.inference_mode():
            pieces = [ids[:, :19], ids[:, 19:20], ids[:, 20:22]]
            outputs = [model.forward(ctx, piece).logits.float().clone() for piece in pieces]
        logits.append(outputs)
    assert torch.equal(logits[0][0], logits[1][0]), "a prompt is read with the dequantised weights"
    for packed, plain, exact in zip(*logits, strict=True):
        rounding = (plain - exact).norm()  # of few positions: the two come to 0.6 to 2.2 of one another
        assert float((packed - exact).norm() / rounding) < 3


@pytest.mark.parametrize(
    "case", ["Q4_K_M", "awq", "gptq act-order", pytest.param("Q5_0", marks=pytest.mark.proof)]
)
def test_the_estimate_counts_the_weights_as_they_lie(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code_check, "check", lambda *_: None)
    name = make(case, tmp_path)
    checkpoint = open_checkpoint(name)
    forecast = estimate(checkpoint, "auto", 64, 1, "cuda:0")
    packed = read(name, codes=case != "gptq act-order")
    assert forecast.weights == packed.info.weight_bytes
    assert forecast.weights <= estimate(checkpoint, "float16", 64, 1, "cuda:0").weights


def test_the_estimate_has_room_for_a_head_of_codes_while_it_is_packed(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(make("Q4_K_M", tmp_path))
    flat = flat_config(checkpoint.config)
    first = count_weights(checkpoint, flat, "auto", "float16", "cuda:0", codes=True)[2]
    assert first == CODE_COPIES * flat.vocab * flat.embedding_width


def test_codes_stay_on_a_gpu_unless_another_precision_is_asked_for(tmp_path: Path) -> None:
    gguf = open_checkpoint(make("Q4_K_M", tmp_path / "gguf"))
    awq = open_checkpoint(make("awq", tmp_path / "awq"))
    plain = open_checkpoint(str(make_checkpoint(tmp_path / "plain", **NARROW)))
    assert resolve_precision(gguf, "auto", "cuda:0") == ("GGUF Q4_K, packed", "bfloat16")
    assert resolve_precision(awq, "auto", "cuda:0") == ("AWQ 4 bit g32, packed", "float16")
    assert resolve_precision(gguf, "GGUF Q4_K, packed", "cuda:0") == ("GGUF Q4_K, packed", "bfloat16")
    for checkpoint, precision, device in (
        (gguf, "bfloat16", "cuda:0"),
        (gguf, "int8", "cuda:0"),
        (gguf, "float32", "cpu"),
        (gguf, "auto", "mps"),
        (plain, "auto", "cuda:0"),
    ):
        assert not keeps_codes(checkpoint, precision, device)
        assert "packed" not in resolve_precision(checkpoint, precision, device)[0]
    assert "in GGUF Q4_K, packed needs" in estimate(gguf, "auto", 64, 1, "cuda:0").sentence


@pytest.fixture
def on_this_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the loader keep codes on the device of the tests, which need not be a GPU."""

    def keeps(checkpoint: Any, precision: str, _device: str) -> bool:
        return precision == "auto" or precision.endswith("packed")

    def of_a_gpu(checkpoint: Any, precision: str, _device: str) -> tuple[str, str]:
        return resolve_precision(checkpoint, precision, "cuda:0")

    monkeypatch.setattr(loader, "resolve_precision", of_a_gpu)
    monkeypatch.setattr(loader, "keeps_codes", keeps)
    monkeypatch.setattr(memory_estimate, "keeps_codes", keeps)


@pytest.mark.usefixtures("on_this_device")
def test_the_loader_keeps_codes_and_says_so(tmp_path: Path) -> None:
    loaded = loader.load(ModelSpec(make("awq", tmp_path), device=DEVICE, context=64))
    assert loaded.model.info.precision == "AWQ 4 bit g32, packed"
    assert loaded.model.info.dtype == "float16"
    assert not any("dequantised" in notice for notice in loaded.notices)


@pytest.mark.usefixtures("on_this_device")
def test_a_load_waits_for_kernels_before_it_launches_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    for module, name in (project_triton, "embed"), (project_triton, "project"), (widen_groups, "widen"):
        monkeypatch.setattr(module, name, recording(getattr(module, name), order))
    monkeypatch.setattr(code_check, "_results", {})
    available.cache_clear()
    with compiled_ahead.waiting_by(lambda: order.append("wait")):
        loader.load(ModelSpec(make("awq", tmp_path), device=DEVICE, context=64))
    assert order[:3] == ["wait", "embed", "widen"]
    assert order.count("wait") == 1


@pytest.mark.usefixtures("on_this_device")
def test_a_prompt_of_a_few_tokens_has_no_products_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    model = loader.load(ModelSpec(make("awq", tmp_path), device=DEVICE, context=64)).model
    for module, name in (project_triton, "project"), (widen_groups, "widen"):
        monkeypatch.setattr(module, name, recording(getattr(module, name), order))
    ctx, ids = model.open(1, 64), torch.ones(1, 5, dtype=torch.int64, device=DEVICE)
    model.prefill(ctx, ids)
    assert {*order} == {"widen"}
    order.clear()
    model.forward(ctx.fork(2), ids[:, :1].expand(2, 1))
    assert {*order} == {"project"}


def recording(function: Callable[..., Any], order: list[str]) -> Callable[..., Any]:
    """Notes the name of a function at each call."""

    def call(*given: Any, **options: Any) -> Any:
        order.append(function.__name__)
        return function(*given, **options)

    return call


def fail(*_: Any) -> torch.Tensor:
    raise RuntimeError("ptxas: unknown instruction\nmore lines")


@pytest.mark.usefixtures("on_this_device")
@pytest.mark.parametrize(
    ("module", "kernel", "words"),
    [
        (
            widen_groups,
            lambda packed, dtype: torch.zeros(packed.rows, packed.columns).to(dtype),
            "wrong results",
        ),
        (widen_groups, fail, r"could not build .* \(ptxas: unknown instruction\)"),
        (project_triton, lambda _x, _packed, out, **_: out.fill_(1.0), "wrong results"),
    ],
)
def test_a_kernel_that_is_wrong_here_means_dequantised_weights_and_a_notice(
    module: Any, kernel: Any, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = {widen_groups: "widen", project_triton: "project"}[module]
    monkeypatch.setattr(module, name, kernel)
    monkeypatch.setattr(code_check, "_results", {})
    loaded = loader.load(ModelSpec(make("awq", tmp_path), device=DEVICE, context=64))
    (notice,) = (notice for notice in loaded.notices if "dequantised to float16" in notice)
    assert re.search(words, notice)
    assert loaded.model.info.precision == "float16"
    assert loaded.model.weights is not None
    assert all(isinstance(m, PlainLinear) for m in loaded.model.weights.matrices)


@pytest.mark.gpu
@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", [*(kind.name for kind in PACKED), "Gemma 3", "Q4_K_M", "awq", "gptq 8 bit"])
@pytest.mark.parametrize("strategy", ["greedy", "beam"])
def test_an_engine_decodes_codes_as_their_dequantised_weights(
    case: str, strategy: str, tmp_path: Path
) -> None:
    """The answer's log-probabilities are as near to float32 as those of weights dequantised to 16 bits.

    Tokens of two runs would not do: rounding parts them where two tokens are nearly as likely.
    """
    name, dtype = make(case, tmp_path), "float16" if "g" in case else "bfloat16"
    with opened(name, "auto") as engine:
        run = watch(engine, Request("a b", strategy=strategy, max_length=64, seed=3))
        assert "packed" in next(iter(engine.loaded().values())).precision
    answer = Transcript(run.started)
    for event in run.events:
        answer.apply(event)
    count = len(answer) - (answer.ids()[-1] in run.started.end_ids)  # an engine keeps no end
    assert count >= 8
    packed, ids = answer.column("raw_logp", 0, count), answer.ids(count)
    plain, exact = (forced_logps(name, precision, ids) for precision in (dtype, "float32"))
    assert abs(packed - exact).mean() < 3 * abs(plain - exact).mean()


@contextmanager
def opened(name: str, precision: str) -> Iterator[LocalEngine]:
    engine = LocalEngine({"model": ModelSpec(name, precision, "cuda:0", 256)})
    try:
        yield engine
    finally:
        engine.close(timeout=30.0)


def forced_logps(name: str, precision: str, ids: tuple[int, ...]) -> np.ndarray:
    """Reads an answer after the prompt; returns the log-probability of each token of it."""
    with opened(name, precision) as engine:
        request = Request("a b", prefix=ids, max_length=0, prompt_logps=True)
        (read,) = watch(engine, request).all(PromptRead)
    return read.logp[-len(ids) :]


@pytest.mark.gpu
@pytest.mark.parametrize("case", ["Q4_0", "Q4_K_M", "awq"])
def test_memory_stays_within_the_estimate(case: str, tmp_path: Path) -> None:
    name = make(case, tmp_path)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    model = loader.load(ModelSpec(name, device="cuda:0", context=64)).model
    assert model.caps.kernels == "fused"
    assert model.caps.capture
    forecast = estimate(open_checkpoint(name), "auto", 64, 1, "cuda:0")
    assert model.info.weight_bytes == forecast.weights
    assert torch.cuda.max_memory_allocated() - before <= forecast.total
