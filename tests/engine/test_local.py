"""The engine as its faces see it, on real (tiny, random) checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from edge_tui.decoders.base import ParamError
from edge_tui.engine.checkpoints.checkpoint import open_checkpoint
from edge_tui.engine.events import (
    Failed,
    Finished,
    FirstToken,
    Loaded,
    ParamChanged,
    Progress,
    TokenBatch,
    Unloaded,
)
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import ModelSpec, Request
from edge_tui.engine.text.tokenizer import Tokenizer
from tests.engine.random_checkpoints import make_checkpoint
from tests.engine.template_bombs import BOMBS
from tests.engine.watch import settle, watch

PROMPT = "the quick brown fox"


def test_greedy_equals_generate_token_for_token(engine: LocalEngine, checkpoint: Path) -> None:
    from transformers import AutoModelForCausalLM

    seen = watch(engine, Request(PROMPT, strategy="greedy", max_length=64))
    assert seen.all(Loaded)[0].tier == "flat"
    reference = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    tokenizer = Tokenizer.open(open_checkpoint(str(checkpoint)))
    prompt = torch.tensor([tokenizer.encode(PROMPT)])
    out = reference.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=False,
        max_new_tokens=64,
        pad_token_id=0,
        suppress_tokens=list(range(tokenizer.size, reference.config.vocab_size)) or None,
    )
    assert seen.ids == out[0, prompt.shape[1] :].tolist()
    assert seen.finished.new_tokens == len(seen.ids)


def test_greedy_statistics_are_those_of_the_model(engine: LocalEngine) -> None:
    seen = watch(engine, Request(PROMPT, strategy="greedy", max_length=12))
    assert seen.column("rank") == [0] * 12
    assert all(value == 0 for value in seen.column("final_logp"))
    for logp, top_logp, top_ids, token, entropy in zip(
        *(seen.column(name) for name in ("raw_logp", "top_logp", "top_ids", "id", "entropy")), strict=True
    ):
        assert math.isclose(logp, top_logp[0], abs_tol=1e-5)
        assert top_ids[0] == token
        assert list(top_logp) == sorted(top_logp, reverse=True)
        assert 0 <= entropy <= math.log(600)


def test_a_seed_decides_the_tokens_and_nothing_else_does(engine: LocalEngine) -> None:
    first = watch(engine, Request(PROMPT, strategy="top_p", seed=7, max_length=24))
    other = watch(engine, Request(PROMPT, strategy="top_p", seed=8, max_length=24))
    again = watch(engine, Request(PROMPT, strategy="top_p", seed=7, max_length=24))
    assert first.ids == again.ids != other.ids
    assert first.started.reused_tokens == 0
    assert again.started.reused_tokens == again.started.prompt_tokens
    assert first.started.seed == 7
    drawn = watch(engine, Request(PROMPT, strategy="top_p", seed=-1, max_length=4))
    replay = watch(engine, Request(PROMPT, strategy="top_p", seed=drawn.started.seed, max_length=4))
    assert drawn.ids == replay.ids


def test_continuing_from_a_prefix_is_the_run_itself(engine: LocalEngine) -> None:
    whole = watch(engine, Request(PROMPT, strategy="top_k", seed=5, max_length=20))
    rest = watch(
        engine, Request(PROMPT, strategy="top_k", seed=5, max_length=12, prefix=tuple(whole.ids[:8]))
    )
    assert rest.ids == whole.ids[8:]
    assert rest.column("step")[0] == 8
    assert rest.started.prefix_tokens == 8


def test_a_parameter_turned_while_running_holds_from_the_recorded_token(engine: LocalEngine) -> None:
    turned: list[int] = []

    def turn(run: int, events: list) -> None:
        if not turned and any(isinstance(event, FirstToken) for event in events):
            engine.set(run, "temperature", 0.0)
            turned.append(sum(len(event) for event in events if isinstance(event, TokenBatch)))

    seen = watch(
        engine,
        Request(PROMPT, strategy="top_p", values={"temperature": 3.0, "top_p": 1.0}, max_length=200, seed=1),
        during=turn,
    )
    (change,) = seen.changes
    assert (change.name, change.value) == ("temperature", 0.0)
    versions = seen.column("version")
    assert versions == [0] * change.index + [change.version] * (len(versions) - change.index)
    # Temperature 0 leaves one candidate.
    assert all(logp == 0 for logp in seen.column("final_logp")[change.index :])
    assert any(logp < 0 for logp in seen.column("final_logp")[: change.index])


def test_a_search_cut_short_is_judged_by_the_penalty_turned_last(engine: LocalEngine) -> None:
    turned: list[str] = []

    def turn(run: int, events: list) -> None:
        if not turned and any(isinstance(event, FirstToken) for event in events):
            engine.set(run, "length_penalty", 2.0)
            turned.append("length_penalty")

    values = {"num_beams": 3, "length_penalty": 0.0}
    seen = watch(engine, Request(PROMPT, strategy="beam", values=values, max_length=60), during=turn)
    assert [change.name for change in seen.changes] == ["length_penalty"]
    totals = [seen.column("extras", row)[-1][0] for row in range(3)]
    whole = [choice.score for choice in seen.finished.ranked if len(choice.tokens) == 60]
    assert whole
    assert all(any(math.isclose(score, total / 60**2, rel_tol=1e-5) for total in totals) for score in whole)


def test_turning_what_cannot_be_turned_is_refused_in_words(engine: LocalEngine) -> None:
    refused: list[str] = []

    def turn(run: int, events: list) -> None:
        if not refused and any(isinstance(event, FirstToken) for event in events):
            refused.append("both")
            with pytest.raises(ParamError, match="temperature"):
                engine.set(run, "temperature", -1)
            with pytest.raises(ParamError, match="no parameter 'banana'"):
                engine.set(run, "banana", 1)
            engine.cancel(run)

    watch(engine, Request(PROMPT, strategy="top_p", max_length=100_000), during=turn)
    assert refused


def test_cancel_takes_effect_within_a_step(engine: LocalEngine) -> None:
    counted: list[int] = []

    def stop(run: int, events: list) -> None:
        if not counted and any(isinstance(event, FirstToken) for event in events):
            engine.cancel(run)
            counted.append(1)

    seen = watch(engine, Request(PROMPT, strategy="top_p", max_length=100_000), during=stop)
    assert seen.finished.reason == "cancelled"
    assert 1 <= seen.finished.new_tokens == len(seen.ids) < 400
    assert watch(engine, Request(PROMPT, strategy="greedy", max_length=2)).finished.reason == "length"


def test_cancel_ends_a_chat_template(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "chatty", chat_template=True)
    (folder / "chat_template.jinja").write_text(BOMBS["equal"])
    engine = LocalEngine({"model": ModelSpec(str(folder), device="cpu")})
    engine.load("model")
    settle(engine, Loaded)
    seen = watch(engine, Request(PROMPT, max_length=2), during=lambda run, events: engine.cancel(run))
    assert seen.finished.reason == "cancelled"
    engine.submit(Request(PROMPT, max_length=2))
    assert engine.close(60.0)


@pytest.mark.parametrize("cut", [False, True])
def test_what_nobody_watches_comes_at_once_and_whole(engine: LocalEngine, cut: bool) -> None:
    def stop(run: int, events: list) -> None:
        if cut and any(isinstance(event, FirstToken) for event in events):
            engine.cancel(run)

    asked = Request(PROMPT, strategy="top_p", seed=1, max_length=100_000 if cut else 300, watched=False)
    seen = watch(engine, asked, during=stop)
    assert len(seen.all(TokenBatch)) == 1
    assert len(seen.ids) == seen.finished.new_tokens > 0
    watched = watch(engine, replace(asked, watched=True, max_length=seen.finished.new_tokens))
    assert cut or len(watched.all(TokenBatch)) > 1
    assert watched.ids == seen.ids
    assert watched.text == seen.text


def test_runs_are_decoded_one_after_the_other(engine: LocalEngine) -> None:
    runs = [engine.submit(Request(PROMPT, strategy="top_p", max_length=30)) for _ in range(3)]
    order: list[int] = []
    while len(order) < 3:
        for event in engine.poll():
            if isinstance(event, TokenBatch):
                assert event.run == runs[len(order)]
            if isinstance(event, Finished):
                order.append(event.run)
    assert order == runs


def test_a_stop_string_across_tokens_never_leaks(engine: LocalEngine) -> None:
    whole = watch(engine, Request(PROMPT, strategy="greedy", max_length=40))
    at = next(i for i in range(5, len(whole.text) - 3) if whole.text.find(whole.text[i : i + 3]) == i)
    stop = whole.text[at : at + 3]
    seen = watch(engine, Request(PROMPT, strategy="greedy", max_length=40, stop=(stop,)))
    assert seen.finished.reason == "stop"
    assert seen.text == whole.text[:at]


def test_a_stop_string_that_only_begins_is_text(engine: LocalEngine) -> None:
    whole = watch(engine, Request(PROMPT, strategy="greedy", max_length=12))
    stop = whole.text[-3:] + "\N{SNOWMAN}"
    seen = watch(engine, Request(PROMPT, strategy="greedy", max_length=12, stop=(stop,)))
    assert seen.finished.reason == "length"
    assert seen.text == whole.text
    assert seen.ids == whole.ids


def test_max_length_is_new_tokens_and_clamped_to_the_context(engine: LocalEngine) -> None:
    seen = watch(engine, Request(PROMPT, strategy="greedy", max_length=10**9))
    context = seen.all(Loaded)[0].context
    assert seen.started.max_new_tokens == context - seen.started.prompt_tokens
    assert any(str(context) in notice for notice in seen.started.notices)
    assert seen.finished.reason in {"length", "eos"}


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (Request("fox " * 5000, strategy="greedy"), ["prompt has", "context holds"]),
        (Request(PROMPT, strategy="banana"), ["banana", "greedy"]),
        (Request(PROMPT, strategy="top_p", values={"top_p": 2}), ["top_p", "2", "1"]),
        (Request(PROMPT, strategy="top_p", values={"beams": 2}), ["beams", "temperature"]),
        (Request(PROMPT, strategy="greedy", max_length=0), ["max_length", "at least 1"]),
        (Request(PROMPT, strategy="contrastive"), ["amateur"]),
    ],
)
def test_bad_requests_fail_in_one_sentence_and_the_engine_lives(
    engine: LocalEngine, request_: Request, words: list[str]
) -> None:
    failed = watch(engine, request_).failed
    assert all(word in failed.message for word in words), failed.message
    assert "\n" not in failed.message
    assert "Traceback" not in failed.message
    assert watch(engine, Request(PROMPT, strategy="greedy", max_length=2)).finished.new_tokens == 2


def test_nan_logits_are_noticed_and_name_the_token(
    open_engine: Callable[..., LocalEngine], checkpoint: Path, tmp_path: Path
) -> None:
    broken = make_checkpoint(tmp_path / "nan", arch="qwen2", seed=3)
    file = broken / "model.safetensors"
    weights = load_file(file)
    weights["model.norm.weight"] = torch.full_like(weights["model.norm.weight"], float("nan"))
    save_file(weights, file, metadata={"format": "pt"})
    engine = open_engine(model=broken)
    failed = watch(engine, Request(PROMPT, strategy="greedy", max_length=4)).failed
    assert "token 0" in failed.message
    assert engine.alive()


def test_unload_frees_and_the_next_run_loads_again(engine: LocalEngine) -> None:
    watch(engine, Request(PROMPT, strategy="greedy", max_length=2))
    known = engine.decode([250])
    engine.unload("model")
    (gone,) = [event for event in settle(engine, Unloaded) if isinstance(event, Unloaded)]
    assert gone.roles == ("model",)
    assert engine.decode([250]) == known != [""], "its tokens are on the screen still"
    again = watch(engine, Request(PROMPT, strategy="greedy", max_length=2))
    assert again.all(Loaded)


def test_unload_while_generating_cancels_first(engine: LocalEngine) -> None:
    asked: list[bool] = []

    def unload(run: int, events: list) -> None:
        if not asked and any(isinstance(event, FirstToken) for event in events):
            engine.unload("model")
            asked.append(True)

    seen = watch(engine, Request(PROMPT, strategy="greedy", max_length=100_000), during=unload)
    assert seen.finished.reason == "cancelled"
    assert seen.all(Unloaded) or settle(engine, Unloaded)


def test_the_last_of_two_loads_wins_and_one_model_is_resident(
    engine: LocalEngine, checkpoint: Path, tmp_path: Path
) -> None:
    other = make_checkpoint(tmp_path / "other", arch="llama", seed=4)
    engine.load("model")
    engine.assign("model", ModelSpec(str(other), device="cpu"))
    engine.load("model")
    seen = watch(engine, Request(PROMPT, strategy="greedy", max_length=2))
    assert [event.architecture for event in seen.all(Loaded)][-1] == "LlamaForCausalLM"
    assert len(engine.loaded()) == 1


def test_loading_reports_progress_in_bytes(engine: LocalEngine) -> None:
    engine.load("model")
    seen = settle(engine, Loaded)
    steps = [event for event in seen if isinstance(event, Progress)]
    assert steps
    assert steps[-1].done == steps[-1].total > 0


def test_a_missing_model_is_one_sentence(open_engine: Callable[..., LocalEngine], tmp_path: Path) -> None:
    engine = open_engine(model=tmp_path / "nowhere")
    failed = watch(engine, Request(PROMPT, strategy="greedy")).failed
    assert "nowhere" in failed.message
    assert "\n" not in failed.message


@pytest.mark.parametrize("state", ["idle", "loading", "decoding"])
def test_an_engine_closes_in_every_state(checkpoint: Path, state: str) -> None:
    engine = LocalEngine({"model": ModelSpec(str(checkpoint), device="cpu")})
    if state != "idle":
        engine.submit(Request(PROMPT, strategy="top_p", max_length=100_000))
    if state == "decoding":
        settle(engine, FirstToken)
    assert engine.close(10.0), "a run of 100,000 tokens was not left"
    assert not engine.alive()


def test_beam_streams_rows_with_parents_and_ends_with_a_choice(engine: LocalEngine) -> None:
    seen = watch(engine, Request(PROMPT, strategy="beam", values={"num_beams": 3}, max_length=16))
    assert seen.started.rows == 3
    batches = seen.all(TokenBatch)
    assert {int(row) for batch in batches for row in batch.row} == {0, 1, 2}
    assert all(0 <= parent < 3 for batch in batches for parent in batch.parent)
    assert seen.finished.answer
    assert seen.finished.score is not None
    assert seen.finished.answer_text


def test_each_beam_has_the_text_of_its_tokens(engine: LocalEngine, checkpoint: Path) -> None:
    seen = watch(engine, Request("", "beam", {"num_beams": 4}, ids=(40, 41, 42), max_length=40))
    tokenizer = Tokenizer.open(open_checkpoint(str(checkpoint)))
    rows = [
        list(zip(*(seen.column(name, row) for name in ("id", "parent", "text")), strict=True))
        for row in range(4)
    ]
    beams = [((), "")] * 4
    for step in zip(*rows, strict=True):
        beams = [((*beams[parent][0], int(token)), beams[parent][1] + text) for token, parent, text in step]
    ends = set(tokenizer.end_ids)
    for ids, text in beams:
        assert text == "".join(tokenizer.texts((40, 41, 42), [i for i in ids if i not in ends]))


def test_contrastive_records_expert_amateur_and_score(
    open_engine: Callable[..., LocalEngine], checkpoint: Path, tmp_path: Path
) -> None:
    amateur = make_checkpoint(tmp_path / "amateur", arch="qwen2", layers=1, seed=9)
    engine = open_engine(model=checkpoint, amateur=amateur)
    seen = watch(engine, Request(PROMPT, strategy="contrastive", max_length=8))
    assert seen.started.columns == ("expert", "amateur", "score")
    for (expert, amateur_logp, _), raw in zip(seen.column("extras"), seen.column("raw_logp"), strict=True):
        assert math.isclose(expert, raw, abs_tol=1e-4)
        assert amateur_logp <= 0


def test_pairs_with_other_vocabularies_are_refused_before_anything_loads(
    open_engine: Callable[..., LocalEngine], checkpoint: Path
) -> None:
    engine = open_engine(model=checkpoint, amateur="demo/amateur")
    seen = watch(engine, Request(PROMPT, strategy="contrastive"))
    assert not seen.all(Loaded)
    assert "vocabular" in seen.failed.message
    assert isinstance(seen.failed, Failed)


def test_an_expert_of_its_own_plays_in_pairs_and_nowhere_else(
    open_engine: Callable[..., LocalEngine], checkpoint: Path, tmp_path: Path
) -> None:
    expert = make_checkpoint(tmp_path / "expert", arch="llama", seed=5)
    engine = open_engine(model=checkpoint, expert=expert, amateur=checkpoint)
    alone = watch(engine, Request(PROMPT, strategy="greedy", max_length=4))
    pair = watch(engine, Request(PROMPT, strategy="contrastive", max_length=4))
    assert [event.role for event in alone.all(Loaded)] == ["model"]
    assert [(event.role, event.architecture) for event in pair.all(Loaded)] == [
        ("expert", "LlamaForCausalLM")
    ]
    own = open_engine(model=expert)
    assert (
        pair.column("raw_logp")[0]
        in watch(own, Request(PROMPT, strategy="greedy", max_length=1)).column("top_logp")[0]
    )


def test_without_an_expert_of_its_own_the_main_model_is_it(
    open_engine: Callable[..., LocalEngine], checkpoint: Path, tmp_path: Path
) -> None:
    other = make_checkpoint(tmp_path / "other", arch="llama", seed=5)
    engine = open_engine(model=checkpoint, expert=checkpoint, amateur=checkpoint)
    watch(engine, Request(PROMPT, strategy="contrastive", max_length=2))
    engine.assign("model", ModelSpec(str(other), device="cpu"))
    seen = watch(engine, Request(PROMPT, strategy="contrastive", max_length=2))
    assert [(event.role, event.architecture) for event in seen.all(Loaded)] == [("model", "LlamaForCausalLM")]


def test_unloading_cancels_a_run_that_knows_the_model_by_another_role(
    open_engine: Callable[..., LocalEngine], checkpoint: Path
) -> None:
    engine = open_engine(model=checkpoint, amateur=checkpoint)
    asked: list[bool] = []

    def unload(run: int, events: list) -> None:
        if not asked and any(isinstance(event, FirstToken) for event in events):
            engine.unload("model")
            asked.append(True)

    seen = watch(engine, Request(PROMPT, strategy="contrastive", max_length=100_000), during=unload)
    assert seen.finished.reason == "cancelled"
    (gone,) = [event for event in settle(engine, Unloaded) if isinstance(event, Unloaded)]
    assert gone.roles == ("model", "amateur")


def test_tokens_stay_those_of_the_model_that_wrote_them(
    open_engine: Callable[..., LocalEngine], checkpoint: Path
) -> None:
    engine = open_engine(model=checkpoint)
    watch(engine, Request(PROMPT, strategy="greedy", max_length=2))
    known = engine.decode(range(20, 40))
    engine.assign("model", ModelSpec("demo/amateur", device="cpu"))
    engine.load("model")
    gone, _ = [e for e in settle(engine, Loaded) if isinstance(e, Unloaded | Loaded)]
    assert gone.roles == ("model",)
    assert engine.decode(range(20, 40)) == known
    watch(engine, Request(PROMPT, strategy="greedy", max_length=2))
    assert engine.decode(range(20, 40)) != known


def test_changes_name_only_what_changed(engine: LocalEngine) -> None:
    seen = watch(engine, Request(PROMPT, strategy="top_p", max_length=4))
    assert not seen.all(ParamChanged)


@pytest.mark.parametrize("field", ["ids", "prefix"])
@pytest.mark.parametrize("bad", [-1, 10**6, 2**40, True, 1.0, "1"])
def test_ids_outside_the_vocabulary_never_reach_the_model(
    engine: LocalEngine, field: str, bad: object
) -> None:
    good = {"ids": (1,), "prefix": (2,)}
    seen = watch(engine, Request("", strategy="greedy", max_length=2, **{**good, field: (3, bad)}))
    assert seen.failed is not None
    assert seen.failed.field == field
    assert "ids are whole numbers from 0 to" in seen.failed.message
    assert seen.failed.detail == "", "a mistake in a request is none of the program"
    assert watch(engine, Request(PROMPT, strategy="greedy", max_length=1)).finished
