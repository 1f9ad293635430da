"""Runs `auto` on checkpoints whose own settings ask for stages, against generate() without arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import ModelSpec, Request
from tests.engine.decode.explaining import add_up, explain
from tests.engine.random_checkpoints import TOKENS, make_checkpoint
from tests.engine.watch import watch

if TYPE_CHECKING:
    from pathlib import Path

PROMPT, STEPS = "the quick brown fox jumps", 16


def runs(folder: Path, **settings: Any) -> tuple[list[int], list[int], tuple[str, ...]]:
    """Decodes twice on a checkpoint with these settings: our ids, those of generate(), our notices."""
    make_checkpoint(folder, vocab=TOKENS, seed=3, generation=settings)
    engine = LocalEngine({"model": ModelSpec(str(folder), device="cpu", precision="float32")})
    try:
        ours, again = (watch(engine, Request(PROMPT, "auto", max_length=STEPS)) for _ in range(2))
    finally:
        assert engine.close(60.0)
    assert ours.ids == again.ids
    prompt = AutoTokenizer.from_pretrained(folder)(
        PROMPT, add_special_tokens=False, return_tensors="pt"
    ).input_ids
    peer = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    theirs = peer.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=STEPS)
    return ours.ids, theirs[0, prompt.shape[1] :].tolist(), ours.started.notices


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[int]:
    """Decodes on a checkpoint that sets nothing."""
    return runs(tmp_path_factory.mktemp("models") / "plain")[0]


def test_auto_decodes_by_the_settings_of_the_checkpoint(tmp_path: Path, plain: list[int]) -> None:
    settings = {"no_repeat_ngram_size": 1, "bad_words_ids": [[plain[0]], [plain[2], plain[3]]]}
    ours, theirs, notices = runs(tmp_path / "set", min_new_tokens=9, **settings)
    assert ours == theirs != plain
    assert notices == ()


def test_guidance_of_a_checkpoint_is_named_and_not_followed(tmp_path: Path, plain: list[int]) -> None:
    ours, _, notices = runs(tmp_path / "set", guidance_scale=2.0)
    assert ours == plain
    assert notices == ("generation_config.json sets guidance_scale = 2.0, which auto does not follow.",)


def test_an_explanation_shows_the_stages_that_the_checkpoint_asked_for(tmp_path: Path) -> None:
    settings = {"do_sample": True, "top_k": 0, "epsilon_cutoff": 0.01, "bad_words_ids": [[7]]}
    make_checkpoint(tmp_path / "m", vocab=TOKENS, seed=3, generation=settings)
    engine = LocalEngine({"model": ModelSpec(str(tmp_path / "m"), device="cpu", precision="float32")})
    request = Request(PROMPT, "auto", max_length=4, seed=5)
    try:
        run = watch(engine, request)
        why = explain(engine, request, run, 2)
    finally:
        assert engine.close(60.0)
    add_up(why)
    (barred,) = (stage for stage in why.stages if stage.name == "bad_words")
    assert barred.removed == 1
    assert (why.stages[-1].title, why.stages[-1].criterion) == ("epsilon 0.01", "p")
    assert why.stages[-1].removed > 0
