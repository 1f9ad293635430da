"""Compares greedy, auto and contrastive with their references; parameters that change while a run goes on."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GenerationConfig, LlamaForCausalLM

from edge_tui import decoders
from edge_tui.decoders import base
from edge_tui.decoders.base import Env, Output, ParamError, names_of
from edge_tui.decoders.contrastive import contrast
from edge_tui.decoders.core.tokens import add_tokens
from edge_tui.engine.ops.choose_plan import plan
from tests.decoders.conftest import VOCAB, logits_of, tiny
from tests.decoders.driver import begin, numbers, param_values, run, table

PROMPT = [5, 1, 9]


def generate(model: LlamaForCausalLM, **options: Any) -> Any:
    return model.generate(
        torch.tensor([PROMPT]),
        attention_mask=torch.ones(1, len(PROMPT), dtype=torch.int64),
        return_dict_in_generate=True,
        output_scores=True,
        pad_token_id=0,
        **options,
    )


@pytest.mark.parametrize("penalty", [1.0, 1.4])
def test_greedy_is_generate_without_sampling(models: list[LlamaForCausalLM], penalty: float) -> None:
    for model in models[:2]:
        found = run(
            decoders.find("greedy"),
            {"model": logits_of(model)},
            PROMPT,
            12,
            VOCAB,
            repetition_penalty=penalty,
        )
        out = generate(model, do_sample=False, max_new_tokens=12, repetition_penalty=penalty)
        assert found.answer == out.sequences[0, len(PROMPT) :].tolist()
        assert all((final > -torch.inf).sum() == 1 for final in found.finals)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"repetition_penalty": 1.3},
        {"do_sample": True},
        {"do_sample": True, "top_k": 20, "top_p": 0.8, "temperature": 0.7, "repetition_penalty": 1.1},
        {"do_sample": True, "top_k": 0, "min_p": 0.1, "temperature": 1.4},
        {"do_sample": True, "typical_p": 0.7, "top_p": 0.95},
        {"no_repeat_ngram_size": 2, "min_new_tokens": 6, "eos_token_id": list(range(40, 90))},
        {"bad_words_ids": [[7], [3, 4], [44]], "eos_token_id": [44], "repetition_penalty": 0.2},
        {"do_sample": True, "top_h": 0.6, "top_k": 5, "temperature": 1.5, "no_repeat_ngram_size": 1},
        {"do_sample": True, "epsilon_cutoff": 0.012, "eta_cutoff": 0.3, "typical_p": 0.9, "temperature": 0.8},
        {"do_sample": True, "epsilon_cutoff": 1.0, "eta_cutoff": 0.0, "no_repeat_ngram_size": 0},
    ],
)
def test_auto_has_the_distribution_of_generate_without_arguments(config: dict[str, Any]) -> None:
    model = tiny(0, vocab=90)  # wider than generate()'s silent top_k of 50
    model.generation_config = GenerationConfig(**config)
    out = generate(model, max_new_tokens=8)
    tokens = out.sequences[0, len(PROMPT) :].tolist()
    decoder = decoders.find("auto").with_settings(config)
    values, eos = decoder.from_checkpoint(config), torch.tensor(config.get("eos_token_id", []))

    def forced(step: int) -> Tensor:
        """Returns the final distribution after generate()'s own first tokens."""
        ids = torch.tensor([PROMPT + tokens[:step]])
        env = Env(1, 90, "cpu", torch.tensor([PROMPT]), eos, param_values(decoder), 9)
        state = begin(decoder, env)
        for token in tokens[:step]:
            add_tokens(state, torch.tensor([token]))
        logits = logits_of(model)(ids)[:, None]
        return decoder.step(
            {"model": Output(logits)}, state, table(decoder, **values), numbers(step=step)
        ).final

    for step in range(len(tokens)):
        final = forced(step)
        if config.get("do_sample"):
            torch.testing.assert_close(final.softmax(-1), out.scores[step].softmax(-1), rtol=1e-4, atol=1e-6)
            assert torch.equal(final > -torch.inf, out.scores[step] > -torch.inf)
        else:
            assert (final > -torch.inf).nonzero()[:, 1].tolist() == [tokens[step]]


def test_auto_has_more_stages_only_where_the_checkpoint_sets_them() -> None:
    auto, config = decoders.find("auto"), {"no_repeat_ngram_size": 3, "top_h": 0.5, "bad_words_ids": [[5]]}
    assert auto.with_settings({"epsilon_cutoff": 1.0, "eta_cutoff": 0, "do_sample": True, "top_k": 9}) is auto
    followed = auto.with_settings(config)
    assert followed is auto.with_settings(dict(config)), "captured graphs belong to one object"
    assert followed.params == auto.params
    assert plan(auto) is not None
    assert plan(followed) is not None, "what the checkpoint adds runs between the kernels"
    assert auto.ignored_settings(config) == ()
    around = decoders.find("auto:no_repeat_ngram").with_settings(config)
    names = [link.name for link in (*around.before.links, *around.after.links)]
    assert names.count("no_repeat_ngram") == 1
    assert "no_repeat_ngram_size" in {param.name for param in around.params}
    selects = decoders.find("auto:mirostat").with_settings(config | {"eta_cutoff": 0.01})
    assert [link.name for link in selects.after.links][-2:] == ["eta", "mirostat"]


def test_auto_says_what_it_does_not_follow() -> None:
    config = {
        "num_beams": 4,
        "guidance_scale": 3,
        "no_repeat_ngram_size": 300,
        "bad_words_ids": [[1], ["word"]],
        "min_p": 7,
        "do_sample": False,
        "top_p": None,
        "suppress_tokens": [],
        "eos_token_id": [1, 2],
        "transformers_version": "4.40.0",
    }
    auto = decoders.find("auto")
    sentences = auto.ignored_settings(config)
    assert len(sentences) == 5
    for word in ("num_beams", "guidance_scale", "no_repeat_ngram_size is 300", "bad_words_ids", "min_p"):
        assert any(word in sentence for sentence in sentences)
    assert auto.from_checkpoint(config) == {"do_sample": 0.0}
    assert auto.ignored_settings({"do_sample": True, "num_beams": 1, "temperature": 0.6}) == ()


EXPERT = torch.tensor([[0.80, 0.15, 0.02, 0.03]]).log()
AMATEUR = torch.tensor([[0.10, 0.60, 0.25, 0.05]]).log()


def values(**given: object) -> Any:
    return table(decoders.find("contrastive"), amateur_temperature=1, **given)


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("seed", (0.10, 3.71, 2.82)),
        ("li2022", (2.08, -1.39, -2.53)),
        ("obrien2023", (0.82, -2.59, -5.18)),
    ],
)
def test_contrastive_scores_by_hand(formula: str, expected: tuple[float, ...]) -> None:
    scores = contrast(EXPERT, AMATEUR, values(formula=formula, alpha=0.001))["score"]
    assert scores[0, :3].tolist() == pytest.approx(expected, abs=0.006)


def test_contrastive_head_and_amateur_temperature_by_hand() -> None:
    head = contrast(EXPERT, AMATEUR, values(alpha=0.1))["score"] > -torch.inf
    assert head.tolist() == [[True, True, False, False]]  # 0.1 · 0.80 = 0.08
    sharp = contrast(EXPERT, AMATEUR, table(decoders.find("contrastive"), amateur_temperature=0.5))["score"]
    squares = [p**2 for p in (0.10, 0.60, 0.25, 0.05)]
    assert sharp[0, 0].item() == pytest.approx(math.log(0.80) - math.log(squares[0] / sum(squares)), abs=1e-5)


def test_seed_formula_looks_at_the_experts_ten_best() -> None:
    expert = torch.arange(30.0)[None]
    scores = contrast(expert, torch.zeros(1, 30), values(formula="seed"))["score"]
    assert (scores > -torch.inf).nonzero()[:, 1].tolist() == list(range(20, 30))


def test_obrien_with_beta_chooses_as_li_with_its_lambda() -> None:
    generator = torch.Generator().manual_seed(0)
    expert, amateur = (
        torch.randn(200, 60, generator=generator) * 3,
        torch.randn(200, 60, generator=generator) * 3,
    )
    for beta in (0.25, 0.5, 1.0):
        decoder = decoders.find("contrastive")
        a = contrast(expert, amateur, table(decoder, 200, formula="obrien2023", beta=beta))["score"]
        b = contrast(
            expert,
            amateur,
            table(decoder, 200, formula="li2022", strength=beta / (1 + beta), amateur_temperature=1),
        )["score"]
        assert torch.equal(a.argmax(-1), b.argmax(-1))


def test_contrastive_records_expert_amateur_and_score(models: list[LlamaForCausalLM]) -> None:
    pair = {"expert": logits_of(models[0]), "amateur": logits_of(models[1])}
    decoder = decoders.find("contrastive")
    found = run(decoder, pair, PROMPT, 6, VOCAB, amateur_temperature=1, strength=0.8)
    for step, token in enumerate(found.answer):
        ids = torch.tensor([PROMPT + found.answer[:step]])
        expert, amateur = (pair[role](ids).log_softmax(-1)[0, token].item() for role in decoder.roles)
        assert found.extras["expert"][step][0] == pytest.approx(expert, abs=1e-5)
        assert found.extras["amateur"][step][0] == pytest.approx(amateur, abs=1e-5)
        assert found.extras["score"][step][0] == pytest.approx(expert - 0.8 * amateur, abs=1e-4)
        assert found.finals[step].argmax() == token
    greedy = run(decoders.find("greedy"), {"model": pair["expert"]}, PROMPT, 6, VOCAB).answer
    assert run(decoder, pair, PROMPT, 6, VOCAB, strength=0).answer == greedy
    assert run(decoder, pair, PROMPT, 6, VOCAB, alpha=1).answer == greedy
    assert found.answer != greedy


@pytest.mark.parametrize("formula", ["li2022", "obrien2023", "seed"])
def test_contrastive_records_the_numbers_that_add_up_to_the_score(formula: str) -> None:
    """With penalties, and with the amateur at its own temperature."""
    generator = torch.Generator().manual_seed(3)
    decoder = decoders.find("contrastive")
    params = table(decoder, formula=formula, repetition_penalty=1.3, frequency_penalty=0.4)
    env = Env(1, 30, "cpu", torch.tensor([[4, 5]]), torch.tensor([0]), param_values(decoder), 9)
    state = begin(decoder, env)
    for step in range(3):
        outs = {
            stream.name: Output(3 * torch.randn(1, 1, 30, generator=generator)) for stream in decoder.streams
        }
        took = decoder.step(outs, state, params, numbers(step=step))
        said, heard, score = (took.candidates[name] for name in names_of(decoder.columns))
        made = {
            "li2022": said - heard,
            "obrien2023": 1.5 * said - 0.5 * heard,
            "seed": said / (heard + 1e-9),
        }[formula]
        kept = score > -torch.inf
        assert 1 <= kept.sum() < 30
        assert torch.allclose(made[kept], score[kept], atol=1e-5)
        assert torch.equal(took.final[kept], score[kept])
        if formula == "li2022":
            assert torch.allclose(heard.exp().sum(), torch.ones(()))
            assert torch.allclose(heard, (outs["amateur"].logits[:, 0] / 0.5).log_softmax(-1))


def test_padded_vocabularies_are_cut_to_the_common_one() -> None:
    def padded(z: Tensor, by: int) -> Output:
        return Output(torch.nn.functional.pad(z, (0, by), value=99.0)[:, None])

    decoder = decoders.find("contrastive")
    env = Env(1, 4, "cpu", torch.tensor([[0]]), torch.tensor([]), param_values(decoder), 9)
    outs = {"model": padded(EXPERT, 3), "amateur": padded(AMATEUR, 8)}
    step = decoder.step(outs, begin(decoder, env), values(), numbers())
    assert step.final.shape == (1, 4)
    assert step.extras["expert"].exp().item() == pytest.approx(0.8, abs=1e-5)
    assert step.extras["amateur"].exp().item() == pytest.approx(0.1, abs=1e-5)


def test_a_changed_parameter_holds_from_the_very_next_step(models: list[LlamaForCausalLM]) -> None:
    found = run(
        decoders.find("top_k"), {"model": logits_of(models[0])}, PROMPT, 6, VOCAB, change={3: {"top_k": 2.0}}
    )
    assert [int((final > -torch.inf).sum()) for final in found.finals] == [48, 48, 48, 2, 2, 2]


EACH = pytest.mark.parametrize("decoder", decoders.strategies(), ids=lambda decoder: decoder.name)


@pytest.mark.parametrize(
    "decoder",
    [decoder for decoder in decoders.strategies() if not decoder.num_draft_tokens({})],
    ids=lambda decoder: decoder.name,
)
@pytest.mark.parametrize("penalty", ["repetition_penalty", "presence_penalty", "frequency_penalty"])
def test_penalties_work_in_every_strategy(decoder: Any, penalty: str) -> None:
    """A model that always prefers the same token goes on to the next best once it has been said."""

    def stubborn(ids: Tensor) -> Tensor:
        return torch.tensor([1.0, 0.95, 0.9, -5.0]).repeat(ids.shape[0], 1)

    def flat(ids: Tensor) -> Tensor:
        return torch.zeros(ids.shape[0], 4)

    likeliest = {"temperature": 0, "penalty_alpha": 0, "relative_top": 1}
    certain = {param.name: likeliest[param.name] for param in decoder.params if param.name in likeliest}
    logits = {"model": stubborn, "expert": stubborn, "amateur": flat}
    plain = run(decoder, logits, [3], 3, 4, **certain)
    penalised = run(decoder, logits, [3], 3, 4, **certain, **{penalty: 2})
    assert plain.answer == [0, 0, 0]
    assert sorted(penalised.answer) == [0, 1, 2]


@EACH
def test_parameters_are_well_declared(decoder: Any) -> None:
    names = [param.name for param in decoder.params]
    assert len(set(names)) == len(names)
    for param in decoder.params:
        assert param.name.isidentifier()
        assert param.parse(param.default) == param.default
        assert param.help.endswith(".")
        assert "\n" not in param.help
    for param in base.numbers(decoder.params):
        assert param.low <= param.default <= param.high
        for value in (float("nan"), 1e9, -1e9, "x", None, [], True if not param.choices else "maybe"):
            with pytest.raises(ParamError, match=param.name):
                param.parse(value)
        if param.low_open:
            with pytest.raises(ParamError):
                param.parse(param.low)


def test_temperature_and_top_p_may_be_zero_and_typical_p_may_not() -> None:
    params = {param.name: param for param in decoders.find("top-p").params}
    assert params["temperature"].parse(0) == 0
    assert params["top_p"].parse(0) == 0
    with pytest.raises(ParamError, match=r"typical_p is 0, but must be a number above 0 to 1\."):
        next(param for param in decoders.find("typical").params if param.name == "typical_p").parse(0)


def test_one_parameter_means_one_thing_in_every_strategy() -> None:
    """Defaults may differ (auto's are neutral), the range and the sense may not."""
    known: dict[str, Any] = {}
    for param in itertools.chain.from_iterable(base.numbers(d.params) for d in decoders.strategies()):
        other = known.setdefault(param.name, param)
        assert (param.low, param.high, param.choices, param.help) == (
            other.low,
            other.high,
            other.choices,
            other.help,
        )
