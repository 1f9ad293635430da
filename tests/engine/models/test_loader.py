from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import pytest
import torch

from edge_tui.engine.checkpoints.checkpoint import CheckpointError
from edge_tui.engine.models import device_memory, loader, memory_estimate
from edge_tui.engine.models.loader import LoadError, available_precisions, load
from edge_tui.engine.ops import quantisation
from edge_tui.engine.port import ModelSpec
from edge_tui.errors import Cancelled
from tests.engine.random_checkpoints import TOKENS, make_checkpoint

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "model", chat_template=True)


def test_a_model_is_loaded_with_its_tokenizer(folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    loaded = load(ModelSpec(str(folder), device="cpu"), lambda done, total: seen.append((done, total)))
    assert loaded.model.info.tier == "flat"
    assert (loaded.model.info.device, loaded.model.info.precision) == ("cpu", "float32")
    assert loaded.context == 256
    ids = loaded.tokenizer.encode("the fox")
    assert loaded.tokenizer.decode(ids) == "the fox"
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] >= 0.99 * loaded.checkpoint.bytes
    assert seen[-1][1] >= seen[-1][0]


def test_the_demo_pair_loads() -> None:
    expert, amateur = (load(ModelSpec(f"demo/{which}", device="cpu")) for which in ("expert", "amateur"))
    assert expert.tokenizer.size == amateur.tokenizer.size
    assert expert.model.info.parameters > amateur.model.info.parameters


@pytest.mark.parametrize(("asked", "given"), [(0, 256), (100, 100), (10_000, 256)])
def test_the_context_is_at_most_the_models_own(folder: Path, asked: int, given: int) -> None:
    loaded = load(ModelSpec(str(folder), device="cpu", context=asked))
    assert loaded.context == given
    assert any("256 positions" in notice for notice in loaded.notices) == (asked > 256)


def test_the_context_is_cut_to_memory_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_checkpoint(tmp_path / "m", context=10_000_000)
    monkeypatch.setattr(memory_estimate, "free_memory", lambda _device: 200 * 2**20)
    loaded = load(ModelSpec(str(folder), device="cpu"))
    assert 1000 < loaded.context < 1_000_000
    assert any("does not fit in memory" in notice for notice in loaded.notices)


@pytest.mark.parametrize("most", [TOKENS - 1, TOKENS])
def test_a_vocabulary_without_random_numbers_of_its_own_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    folder = make_checkpoint(tmp_path / "m", vocab=TOKENS)
    monkeypatch.setattr(loader, "MOST_TOKENS", most)
    if most == TOKENS:
        assert load(ModelSpec(str(folder), device="cpu")).tokenizer.size == TOKENS
        return
    with pytest.raises(LoadError, match=f"a vocabulary of {TOKENS} tokens, but at most {most} have random"):
        load(ModelSpec(str(folder), device="cpu"))


def test_no_template_is_said(tmp_path: Path) -> None:
    loaded = load(ModelSpec(str(make_checkpoint(tmp_path / "m")), device="cpu"))
    assert any("chat template" in notice for notice in loaded.notices)


def test_too_little_memory_is_refused_before_the_weights_are_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_tui.engine.models import loading

    monkeypatch.setattr(memory_estimate, "free_memory", lambda _device: 50_000)

    def read(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("read although it does not fit")

    monkeypatch.setattr(loading, "load_flat", read)
    with pytest.raises(LoadError, match=r"needs .* on cpu .*; 50.0 kB are free: choose"):
        load(ModelSpec(str(folder), device="cpu"))


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError, RuntimeError])
def test_running_out_of_memory_gives_it_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    """What was already there must not be kept alive by the error's traceback."""
    from edge_tui.engine.checkpoints import weights

    read = weights.Weights.stack
    calls = iter(range(100))
    alive: list[weakref.ref[torch.Tensor]] = []

    def fails(self: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        if next(calls) == 5:
            raise error("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")
        tensor = read(self, *args, **kwargs)
        alive.append(weakref.ref(tensor))
        return tensor

    monkeypatch.setattr(weights.Weights, "stack", fails)
    with pytest.raises(LoadError, match="ran out of memory") as caught:
        load(ModelSpec(str(folder), device="cpu"))
    assert "\n" not in str(caught.value)
    assert alive
    assert not any(reference() is not None for reference in alive)
    monkeypatch.undo()
    assert load(ModelSpec(str(folder), device="cpu")).model.info.parameters


def test_whatever_a_library_raises_is_one_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_tui.engine.models import loading

    def fails(*_args: object, **_kwargs: object) -> None:
        raise NotImplementedError("no kernel\nfor this")

    monkeypatch.setattr(loading, "load_flat", fails)
    with pytest.raises(LoadError, match=r"cannot be loaded as float32 on cpu \(no kernel\); choose"):
        load(ModelSpec(str(folder), device="cpu"))


def test_a_loading_can_be_cancelled(folder: Path) -> None:
    calls = iter([False, False, False])
    with pytest.raises(Cancelled):
        load(ModelSpec(str(folder), device="cpu"), cancelled=lambda: next(calls, True))


def test_a_checkpoint_that_does_not_hold_what_its_config_says_is_refused(folder: Path) -> None:
    file = folder / "config.json"
    file.write_text(file.read_text().replace('"intermediate_size": 96', '"intermediate_size": 97'))
    with pytest.raises(LoadError, match="shape"):
        load(ModelSpec(str(folder), device="cpu"))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (ModelSpec("demo/expert", "auto", "cuda:7"), "cuda:7"),
        (ModelSpec("demo/expert", "auto", "tpu"), "tpu"),
        (ModelSpec("demo/expert", "fp8", "cpu"), "fp8"),  # type: ignore[arg-type]
    ],
)
def test_what_is_not_there_is_named(spec: ModelSpec, words: str) -> None:
    with pytest.raises(LoadError, match=words):
        load(spec)


def test_an_unknown_checkpoint_stays_a_checkpoint_error() -> None:
    with pytest.raises(CheckpointError, match="no/such"):
        load(ModelSpec("no/such"))


def test_precisions_carry_the_reason_they_are_missing(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    assert available_precisions("cpu") == dict.fromkeys(loader.PRECISIONS)
    assert "Apple" in (available_precisions("mps")["4bit"] or "")
    monkeypatch.setattr(quantisation, "find_spec", lambda _name: None)
    monkeypatch.setattr(quantisation, "cpu_packs_int4", lambda: True)
    assert available_precisions("cpu")["4bit"] is available_precisions("cpu")["int8"] is None, "our own"
    monkeypatch.setattr(quantisation, "cpu_packs_int4", lambda: False)
    assert "bitsandbytes" in (available_precisions("cpu")["4bit"] or "")
    assert available_precisions("cpu")["int8"] is None, "our own kernel"
    assert "bitsandbytes" in (available_precisions("cuda:0")["int8"] or "")
    with pytest.raises(LoadError, match="4bit does not run on cpu: bitsandbytes is not installed"):
        load(ModelSpec(str(folder), "4bit", "cpu"))


@pytest.mark.gpu
@pytest.mark.timeout(600)
@pytest.mark.parametrize("precision", ["auto", "float32", "float16", "int8", "4bit"])
def test_memory_comes_back_after_a_load_on_a_gpu(folder: Path, precision: Any) -> None:
    # The first load in a precision leaves what all later ones share: the 16 levels of NF4.
    load(ModelSpec(str(folder), precision, "cuda:0")).model.release()
    device_memory.release_cached_memory()
    before = torch.cuda.memory_allocated(0)
    loaded = load(ModelSpec(str(folder), precision, "cuda:0"))
    assert torch.cuda.memory_allocated(0) > before
    loaded.model.release()
    del loaded
    device_memory.release_cached_memory()
    assert torch.cuda.memory_allocated(0) == before


@pytest.mark.gpu
def test_auto_takes_the_gpu() -> None:
    assert load(ModelSpec("demo/expert")).model.info.device.startswith("cuda")
