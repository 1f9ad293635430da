"""Captured steps of the transformers tier: the tokens of steps launched one by one, at every span."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers

from edge_tui.engine.decode import cuda_graphs
from edge_tui.engine.decode.generation import Generation
from edge_tui.engine.events import Loaded, Noticed
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.models.device_memory import release_cached_memory
from edge_tui.engine.models.static_context import LEAST_SPAN
from edge_tui.engine.port import ModelSpec, Request
from tests.engine.models import captured_table
from tests.engine.models.architectures import make_tiny
from tests.engine.random_checkpoints import save_tokenizer
from tests.engine.watch import Watched, watch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edge_tui.engine.decode.step_runner import StepRunner

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU"),
    pytest.mark.timeout(600),  # minutes go into compiling kernels where none are cached
]
DEVICE = "cuda:0"
ROLES = ("model", "amateur", "draft")
STRATEGIES = ("greedy", "top_p", "beam", "contrastive", "speculative", "contrastive_search", "dola")
KINDS = {
    "cwm": {"max_position_embeddings": 2000},
    "hunyuan_v1_dense": {"max_position_embeddings": 2000},
    "olmo": {
        "max_position_embeddings": 2000,
        "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0},
    },
}
"""Layers with windows and without, heads that are normed, and a rotation that may change with the length."""
IDS = tuple(3 + (7 * at) % 290 for at in range(LEAST_SPAN - 30))
NEW = 60


def _make(folder: Path, kind: str) -> Path:
    path = make_tiny(folder / kind, kind, vocab_size=320, **KINDS.get(kind, {}))
    save_tokenizer(path)
    return path


def _engine(open_engine: Callable[..., LocalEngine], path: Path) -> LocalEngine:
    engine = open_engine()
    for role in ROLES:
        engine.assign(role, ModelSpec(str(path), precision="float32", device=DEVICE))
    return engine


def _run(engine: LocalEngine, strategy: str, ids: tuple[int, ...] = IDS, **more: Any) -> Watched:
    return watch(engine, Request("", strategy, seed=4, ids=ids, **({"max_length": NEW} | more)))


def _tokens(seen: Watched) -> list[int]:
    return list(seen.finished.answer or seen.ids)


def _said(seen: Watched, word: str) -> list[str]:
    return [notice.message for notice in seen.all(Noticed) if word in notice.message]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("kind", KINDS)
def test_captured_says_what_eager_says_over_a_border(
    kind: str,
    strategy: str,
    tmp_path: Path,
    open_engine: Callable[..., LocalEngine],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = _engine(open_engine, _make(tmp_path, kind))
    seen = _run(engine, strategy)
    assert not [said for each in seen.all(Loaded) for said in each.notices if "not captured" in said]
    assert not _said(seen, "uncaptured")
    again, short = _run(engine, strategy), _run(engine, strategy, IDS[:40], max_length=20)
    once_more = _run(engine, strategy)
    monkeypatch.setattr(Generation, "_try_capture", lambda generation: None)
    for role in ROLES:
        engine.unload(role)  # with its contexts and their graphs
    eager = _run(engine, strategy)
    assert _tokens(eager) == _tokens(seen) == _tokens(again) == _tokens(once_more)
    assert len(_tokens(eager)) > LEAST_SPAN - len(IDS)
    assert _tokens(_run(engine, strategy, IDS[:40], max_length=20)) == _tokens(short)
    for number in ("raw_logp", "final_logp", "entropy"):
        assert seen.column(number) == pytest.approx(eager.column(number), abs=1e-3), number


def test_a_long_run_is_captured_at_each_span(
    tmp_path: Path, open_engine: Callable[..., LocalEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    captured = []

    class Counted(cuda_graphs.Graphs):
        def __init__(self, runner: StepRunner) -> None:
            captured.append(runner)
            super().__init__(runner)

    monkeypatch.setattr(cuda_graphs, "Graphs", Counted)
    engine = _engine(open_engine, _make(tmp_path, "cwm"))
    long: dict[str, Any] = {"max_length": 1100, "values": {"min_new_tokens": 2000}}
    first = _run(engine, "min_new_tokens", IDS[:20], **long)
    assert len(captured) == 4  # spans of 256, 512, 1024 and 2048 or all there is
    assert _tokens(_run(engine, "min_new_tokens", IDS[:20], **long)) == _tokens(first)
    assert len(captured) == 4


def test_going_on_and_other_paths(tmp_path: Path, open_engine: Callable[..., LocalEngine]) -> None:
    engine = _engine(open_engine, _make(tmp_path, "cwm"))
    whole = _tokens(_run(engine, "greedy"))
    for at in (5, 29, 30, 31, 45):
        rest = _run(engine, "greedy", prefix=tuple(whole[:at]), max_length=NEW - at)
        assert [*whole[:at], *rest.ids] == whole
    assert _tokens(_run(engine, "greedy")) == whole


def test_unloading_gives_the_memory_back(tmp_path: Path, open_engine: Callable[..., LocalEngine]) -> None:
    path = _make(tmp_path, "cwm")
    held = []
    for _ in range(3):
        engine = _engine(open_engine, path)
        for strategy in ("top_p", "beam"):
            _run(engine, strategy)
        for role in ROLES:
            engine.unload(role)
        assert engine.close(60.0)
        release_cached_memory()
        torch.cuda.synchronize()
        held.append((torch.cuda.memory_allocated(DEVICE), torch.cuda.memory_reserved(DEVICE)))
    assert held[2] <= held[1]  # the first leaves what libraries keep


def test_what_cannot_be_captured_says_why(tmp_path: Path, open_engine: Callable[..., LocalEngine]) -> None:
    seen = _run(_engine(open_engine, _make(tmp_path, "mamba")), "greedy", IDS[:20], max_length=8)
    said = " ".join(seen.all(Loaded)[0].notices)
    assert "not captured, and so slower: it keeps a running state." in said


@pytest.mark.proof
def test_the_table_of_captured_architectures_is_what_is_measured() -> None:
    shown = json.loads(captured_table.FILE.read_text(encoding="utf-8"))
    if shown["transformers"] != transformers.__version__ or shown["device"] != torch.cuda.get_device_name():
        pytest.skip(f"the table is of transformers {shown['transformers']} on an {shown['device']}")
    assert dict(captured_table.rows()) == shown["why_not"]
