"""The bench's own arithmetic, and what it does when something is in the way."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from edge_tui import decoders
from edge_tui.bench import edge_runner, roofline, scenarios, speed, transformers_runner
from edge_tui.bench.edge_runner import EdgeRunner, prompt_ids
from edge_tui.bench.job import BenchError, Job, Timing
from edge_tui.bench.random_models import CONFIGS, STD, write_random
from edge_tui.bench.roofline import kv_bytes_per_step, read_bandwidth, weight_bytes_per_step
from edge_tui.bench.session import Session
from edge_tui.cli import main
from edge_tui.decoders.base import Env, Output, Params
from edge_tui.decoders.core.random import Rng, key_of
from edge_tui.engine.checkpoints.checkpoint import open_checkpoint, pair_refusal
from edge_tui.engine.models.base import ModelInfo
from edge_tui.engine.port import ModelSpec
from edge_tui.engine.text.tokenizer import Tokenizer

KNOWN = {
    "qwen2-0.5b": 494_032_768,
    "phi-3-mini": 3_821_079_552,
    "llama-3.2-1b": 1_235_814_400,
    "qwen3-30b-a3b": 30_532_122_624,
}
"""Number of weights as the models' publishers state it, one model of each family."""

LONG = ("llama-3.2-1b", "qwen3-30b-a3b")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A model of random weights; what takes long is its tokenizer of 151,936 entries."""
    return write_random(tmp_path_factory.mktemp("random") / "small", "qwen2-0.5b")


@pytest.mark.parametrize(
    "name",
    ["qwen2-0.5b", "phi-3-mini", *(pytest.param(name, marks=pytest.mark.proof) for name in LONG)],
)
def test_random_models_have_the_true_size(name, tmp_path, small):
    folder = small if name == "qwen2-0.5b" else write_random(tmp_path / name, name)
    checkpoint = open_checkpoint(str(folder))
    assert checkpoint.parameters == KNOWN[name]
    assert checkpoint.eos_ids == ()
    assert Tokenizer.open(checkpoint).size == CONFIGS[name][1]
    on_disk = sum(file.stat().st_blocks * 512 for file in folder.iterdir())
    assert on_disk < 20_000_000


def test_random_qwens_decode_together(tmp_path, small):
    large = write_random(tmp_path / "large", "qwen2-7b")
    assert pair_refusal(open_checkpoint(str(small)), open_checkpoint(str(large))) is None


def test_prompts_have_their_length_and_share_no_beginning():
    tokenizer = Tokenizer.open(open_checkpoint("demo/expert"))
    prompts = [prompt_ids(tokenizer, 300, number) for number in range(6)]
    assert {len(ids) for ids in prompts} == {300}
    assert len({tuple(ids[:2]) for ids in prompts}) == len(prompts)


def test_the_floor_counts_what_a_step_reads(session):
    model = session.model("tiny", True)
    edge = session.edge_runner(model, "float32")
    try:
        facts = edge.load()
    finally:
        edge.close()
    config = facts.config
    assert weight_bytes_per_step(facts.info, config) == facts.info.weight_bytes  # the head is the embedding
    untied = {**config, "tie_word_embeddings": False}
    embedding = config["vocab_size"] * config["hidden_size"] * 4
    assert weight_bytes_per_step(facts.info, untied) == facts.info.weight_bytes - embedding
    assert facts.info.kv_bytes == 2 * 2 * 2 * 16 * 4  # K and V, layers, key heads, width, float32
    assert kv_bytes_per_step(facts.info, 100, 50, rows=4) == facts.info.kv_bytes * 200


def test_the_second_model_has_a_device_of_its_own(session, monkeypatch):
    specs = []
    monkeypatch.setattr("edge_tui.bench.session.EdgeRunner", lambda each, *_: specs.append(each))
    session.second_device = "cuda:7"
    model = session.model("tiny", True)
    session.edge_runner(model, "float32")
    devices = {role: spec.device for role, spec in specs[0].items()}
    main = session.device
    assert devices == {"model": main, "expert": main, "amateur": "cuda:7", "draft": "cuda:7"}


def test_the_floor_of_a_mixture_leaves_out_experts_that_no_token_chooses():
    config, _ = CONFIGS["qwen3-30b-a3b"]
    facts = "m", "Qwen3MoeForCausalLM", 151_936, 48, False, 40_960, 30_532_122_624, 61_064_245_248, 98_304
    info = ModelInfo(*facts, "bfloat16", "bfloat16", "cuda:0", "flat")
    expert = 2 * 3 * 2048 * 768
    read = info.weight_bytes - 2 * 151_936 * 2048 - 48 * (128 - 8) * expert
    assert weight_bytes_per_step(info, config) == read
    assert weight_bytes_per_step(info, config | {"num_experts_per_tok": 128}) == read + 48 * 120 * expert


def test_bandwidth_is_measured(monkeypatch):
    monkeypatch.setattr(roofline, "CPU_BYTES", 16 << 20)
    assert 1e8 < read_bandwidth("cpu") < 1e13


def test_rows_hold_what_was_measured(session):
    jobs = [Job("greedy", tokens=24), Job("top_p", {"temperature": 1.5}, tokens=24, batch=3)]
    speed.measure(session, session.model("tiny", True), "float32", jobs, peers=("eager",), rounds=2)
    rows = session.results.rows
    assert [(row["strategy"], row["who"]) for row in rows] == [
        ("greedy", "edge-tui"),
        ("greedy", "generate()"),
        ("top_p (temperature 1.5), batch 3", "edge-tui"),
        ("top_p (temperature 1.5), batch 3", "generate()"),
    ]
    for row in rows:
        assert (row["tokens"], row["prompt"], row["rounds"]) == (24, 64, 2)
        assert row["tokens_per_second"] == pytest.approx(row["batch"] / row["step"])
        assert row["of_floor"] == pytest.approx(row["floor"] / row["step"])
        assert row["setup"] > 0
    assert rows[1]["ratio"] == pytest.approx(rows[1]["step"] / rows[0]["step"])
    assert session.results.notes == []


def test_two_models_are_one_floor_and_two_roles_of_one_model_read_it_once(session, tmp_path):
    tiny = session.model("tiny", True)
    twin = replace(tiny, name=str(write_random(tmp_path / "twin", "tiny")))
    jobs = [Job("greedy", tokens=8), Job("contrastive", tokens=8)]
    for second in (twin, tiny):
        speed.measure(session, tiny, "float32", jobs, second=second, rounds=1)
    (alone, both), (_, shared) = session.results.rows[:2], session.results.rows[2:]
    assert both["floor"] == pytest.approx(2 * alone["floor"], rel=0.2)  # the bandwidth is measured anew
    assert shared["floor"] < 1.5 * alone["floor"]


def test_an_error_of_one_job_is_a_note_and_the_rest_goes_on(session):
    jobs = [Job("beam", tokens=8, batch=2), Job("greedy", tokens=8)]
    speed.measure(session, session.model("tiny", True), "float32", jobs, rounds=1)
    assert [row["strategy"] for row in session.results.rows] == ["greedy"]
    assert "samples is 2" in session.results.notes[0]
    with pytest.raises(BenchError, match="no architecture"):
        session.model("gpt-5", True)


def test_generate_has_the_defaults_of_the_strategies():
    assert transformers_runner.generate_options(Job("greedy")) == {"do_sample": False}
    assert transformers_runner.generate_options(Job("beam", {"num_beams": 3.0}))["num_beams"] == 3
    options = transformers_runner.generate_options(Job("top_p", {"temperature": 1.5}))
    assert options == {"do_sample": True, "top_k": 0, "temperature": 1.5, "top_p": 0.9}
    assert not transformers_runner.can_run("static", "beam", "bfloat16")
    assert not transformers_runner.can_run("eager", "contrastive", "bfloat16")


def test_a_peer_decodes_its_job(session):
    peer = session.transformers_runner(session.model("tiny", True), "float32")
    timing = peer.decode("eager", replace(Job("greedy"), tokens=9), [[1, 2, 3]] * 2)
    peer.close()
    assert (timing.tokens, timing.prompt) == (9, 3)
    assert timing.first > 0
    assert timing.step > 0


def test_a_row_is_the_median_of_its_rounds_with_their_spread(session, monkeypatch):
    rounds = iter(((0.1, 1.0), (0.1, 1.0), (0.1, 1.0), (0.3, 2.0), (0.2, 1.2)))  # two warm up

    def decode(self, job, ids):
        return Timing(*next(rounds), 11, len(ids))

    monkeypatch.setattr(EdgeRunner, "decode", decode)
    speed.measure(session, session.model("tiny", True), "float32", [Job("greedy", tokens=11)], rounds=3)
    (row,) = session.results.rows
    assert row["step"] == pytest.approx(0.12)
    assert row["spread"] == pytest.approx((0.2 - 0.1) / 2 / 0.12)
    assert (row["first"], row["rounds"]) == (0.2, 3)


def test_an_interrupted_bench_keeps_its_rows(tmp_path, monkeypatch, capsys):
    decode, decoded = EdgeRunner.decode, []

    def interrupted(self, job, ids):
        decoded.append(job.title)
        if decoded.count("top_p") > 3:
            raise KeyboardInterrupt
        return decode(self, job, ids)

    monkeypatch.setattr(EdgeRunner, "decode", interrupted)
    monkeypatch.setattr(Session, "measure_bandwidth", lambda self: setattr(self, "bandwidth", 1e10))
    file = tmp_path / "saved.json"
    order = ["bench", "table", "--random", "tiny", "--device", "cpu", "--json", str(file)]
    order += ["--strategies", "greedy,top_p", "--tokens", "16"]
    assert main.main(order) == 130
    saved = json.loads(file.read_text())
    assert [(row["strategy"], row["rounds"]) for row in saved["rows"]] == [("greedy", 3), ("top_p", 1)]
    assert any("Interrupted" in note for note in saved["notes"])
    said = capsys.readouterr()
    assert "greedy" in said.out
    assert "Interrupted: what was measured until then is kept." in said.err


@pytest.mark.parametrize(
    "rate", [0.8, *(pytest.param(rate, marks=pytest.mark.proof) for rate in scenarios.RATES if rate != 0.8)]
)
def test_a_temperature_gives_the_acceptance_that_a_figure_names(rate):
    """Normal logits of random weights; a step gives one token more than it accepts."""
    job = scenarios.SPECULATIVE[rate]
    rows, vocab, k = 400, 2000, scenarios.LOOKAHEAD
    decoder = decoders.find("speculative")
    keys = torch.tensor([key_of(seed) for seed in range(rows)])
    rng = Rng(keys, torch.zeros(1, dtype=torch.int64))
    table = torch.tensor([[float(k)], [job.values["temperature"]]]).expand(2, rows)
    params = Params(["lookahead", "temperature"], table)
    generator = torch.Generator().manual_seed(1)
    draft, target = (
        STD * CONFIGS[name][0]["hidden_size"] ** 0.5 * torch.randn(rows, count, vocab, generator=generator)
        for name, count in ((scenarios.SMALL, k), (scenarios.LARGE, k + 1))
    )
    prompt = torch.zeros(rows, 1, dtype=torch.int64)
    state = decoder.init(Env(rows, vocab, "cpu", prompt, prompt[0, :0], dict(job.values), 8))
    for at in range(k):
        decoder.propose(Output(draft[:, at : at + 1]), state, params, rng, at)
    step = decoder.step({"model": Output(target)}, state, params, rng)
    assert (step.accepted + 1).float().mean().item() == pytest.approx(
        scenarios.tokens_per_step(rate), rel=0.05
    )


def test_random_weights_of_an_architecture_that_only_transformers_knows(tmp_path, monkeypatch):
    config, _ = CONFIGS["hunyuan-0.5b"]
    small = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 640}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    monkeypatch.setitem(CONFIGS, "small", (config | small | heads, 600))
    folder = write_random(tmp_path / "small", "small")
    loaded, seconds = edge_runner.load(ModelSpec(str(folder), "float32", "cpu"), random_weights=True)
    assert loaded.model.info.tier == "transformers"
    assert seconds > 0
    logits = loaded.model.forward(loaded.model.open(1, 8), torch.tensor([[3, 5, 7]])).logits
    assert logits.isfinite().all()
    assert logits.std() > 0.01
