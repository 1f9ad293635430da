"""Two prompts of one model: a run equals a loop of whole forwards, and generate() of transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from edge_tui.decoders.base import Rng, draw
from edge_tui.decoders.core.random import key_of
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import ModelSpec, Request
from tests.engine.random_checkpoints import EOS_ID, TOKENS, make_checkpoint
from tests.engine.watch import watch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

PROMPT, OTHER, STEPS = "the quick brown fox jumps", "nobody had ever", 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("models") / "tiny", vocab=TOKENS, seed=3)


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[LocalEngine]:
    spec = ModelSpec(str(folder), device="cpu", precision="float32")
    engine = LocalEngine({"model": spec})
    yield engine
    assert engine.close(60.0)


@pytest.fixture(scope="module")
def peer(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def encode(folder: Path, text: str) -> list[int]:
    return list(AutoTokenizer.from_pretrained(folder)(text, add_special_tokens=False).input_ids)


def ids(engine: LocalEngine, strategy: str, **values: Any) -> list[int]:
    seen = watch(engine, Request(PROMPT, strategy, values, seed=11, max_length=STEPS))
    return seen.ids


@torch.inference_mode()
def loop(peer: Any, prompt: Sequence[int], other: Sequence[int], gamma: float) -> list[int]:
    """Reads both texts anew for each token, and draws from their mixture."""
    tokens: list[int] = []
    for step in range(STEPS):
        z, u = (peer(torch.tensor([[*text, *tokens]])).logits[:, -1] for text in (prompt, other))
        mixed = u.log_softmax(-1) + gamma * (z.log_softmax(-1) - u.log_softmax(-1))
        tokens.append(int(draw(mixed, Rng(torch.tensor([key_of(11)]), torch.tensor([step])))))
        if tokens[-1] == EOS_ID:
            break
    return tokens


@pytest.mark.parametrize(("strategy", "neutral"), [("cfg", "guidance_scale"), ("cad", "cad_alpha")])
def test_a_neutral_weight_is_plain_sampling_and_another_is_not(
    engine: LocalEngine, strategy: str, neutral: str
) -> None:
    plain = ids(engine, "top_k", top_k=0)
    weight = 1.0 if strategy == "cfg" else 0.0
    text = "negative" if strategy == "cfg" else "question"
    assert ids(engine, strategy, **{neutral: weight, text: OTHER}) == plain
    assert ids(engine, strategy, **{neutral: weight + 4, text: OTHER}) != plain


@pytest.mark.parametrize("text", [OTHER, ""])
def test_guidance_and_context_are_the_loop_of_two_forwards(
    engine: LocalEngine, peer: Any, folder: Path, text: str
) -> None:
    """Without a text the other stream reads the prompt's last token alone. CAD is guidance of γ = 1 + α."""
    prompt = encode(folder, PROMPT)
    other = encode(folder, text) or prompt[-1:]
    expected = loop(peer, prompt, other, 5.0)
    assert ids(engine, "cfg", guidance_scale=5.0, negative=text) == expected
    assert ids(engine, "cad", cad_alpha=4.0, question=text) == expected
    assert expected != loop(peer, prompt, prompt, 5.0)


def test_with_a_chat_template_the_negative_prompt_is_the_system_prompt(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "chat", vocab=TOKENS, seed=3, chat_template=True)
    peer = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def render(*turns: tuple[str, str]) -> list[int]:
        messages = [{"role": role, "content": text} for role, text in turns]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return list(tokenizer(text, add_special_tokens=False).input_ids)

    user = ("user", PROMPT)
    prompt, negative = render(user), render(("system", OTHER), user)
    engine = LocalEngine({"model": ModelSpec(str(folder), device="cpu", precision="float32")})
    try:
        guided = ids(engine, "cfg", guidance_scale=3.0, negative=OTHER)
        aware = ids(engine, "cad", cad_alpha=2.0, question=OTHER)
    finally:
        assert engine.close(60.0)
    assert guided == loop(peer, prompt, negative, 3.0)
    assert aware == loop(peer, prompt, render(("user", OTHER)), 3.0)


def test_guidance_is_that_of_generate(engine: LocalEngine, peer: Any, folder: Path) -> None:
    found = ids(engine, "cfg", guidance_scale=2.5, negative=OTHER, temperature=0)
    prompt, other = (torch.tensor([encode(folder, text)]) for text in (PROMPT, OTHER))
    expected = peer.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=False,
        guidance_scale=2.5,
        negative_prompt_ids=other,
        negative_prompt_attention_mask=torch.ones_like(other),
        max_new_tokens=STEPS,
        pad_token_id=0,
    )
    assert found == expected[0, prompt.shape[1] :].tolist()


def test_an_expert_and_an_anti_expert_steer_a_third_model(folder: Path, tmp_path: Path) -> None:
    """Where both are one model they steer nothing; two others do."""
    other = make_checkpoint(tmp_path / "other", vocab=TOKENS, seed=8)

    def run(expert: Path, amateur: Path, strategy: str = "dexperts", **values: Any) -> list[int]:
        roles = {"model": folder, "expert": expert, "amateur": amateur}
        specs = {role: ModelSpec(str(f), device="cpu", precision="float32") for role, f in roles.items()}
        engine = LocalEngine(specs)
        try:
            return ids(engine, strategy, **values)
        finally:
            assert engine.close(60.0)

    plain = run(folder, folder, "top_k", top_k=0)
    assert run(other, other) == plain
    assert run(other, folder) != plain
    assert run(folder, other) != run(other, folder)
