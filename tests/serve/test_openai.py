"""`/v1` through the official client, on the demo model."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import openai
import pytest

from tests.serve.serving import Running, tokenizer

MODEL = "demo/expert"
PROMPT = "def main("


@pytest.fixture(scope="module")
def client(server: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def test_the_model_is_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError, match=MODEL):
        client.models.retrieve("gpt-4")
    with pytest.raises(openai.NotFoundError) as refused:
        client.completions.create(model="gpt-4", prompt="a")
    assert refused.value.code == "model_not_found"


def test_prompts_are_texts_or_ids_or_lists_of_either(client: openai.OpenAI, server: Running) -> None:
    def texts(prompt: Any) -> list[str]:
        answer = client.completions.create(model=MODEL, prompt=prompt, max_tokens=6, temperature=0)
        assert [choice.index for choice in answer.choices] == list(range(len(answer.choices)))
        return [choice.text for choice in answer.choices]

    encode = tokenizer().encode
    one, two = texts("def main("), texts("import os")
    assert texts(["def main(", "import os"]) == one + two
    assert texts(encode("def main(")) == one
    assert texts([encode("def main("), encode("import os")]) == one + two
    assert texts([[int(i)] for i in encode("def main(")[:1]])


def test_usage_and_reasons(client: openai.OpenAI, server: Running) -> None:
    answer = client.completions.create(model=MODEL, prompt=[PROMPT, PROMPT], n=2, max_tokens=5, seed=1)
    assert answer.usage is not None
    prompt = 2 * len(tokenizer().encode(PROMPT))
    new = answer.usage.completion_tokens
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (prompt, prompt + new)
    assert new == 20
    assert [choice.finish_reason for choice in answer.choices] == ["length"] * 4
    assert answer.object == "text_completion"


def test_every_answer_has_an_id_of_its_own(client: openai.OpenAI) -> None:
    answers = [client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=1) for _ in range(2)]
    assert answers[0].id != answers[1].id


def test_a_seed_repeats_and_samples_differ(client: openai.OpenAI) -> None:
    def draw(**more: Any) -> list[str]:
        answer = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=8, n=3, **more)
        return [choice.text for choice in answer.choices]

    assert draw(seed=5, temperature=1.0) == draw(seed=5, temperature=1.0) != draw(seed=6, temperature=1.0)
    assert len(set(draw(seed=5, temperature=1.0))) > 1


def test_each_choice_is_the_run_of_its_own_seed(server: Running) -> None:
    def complete(**more: Any) -> dict[str, Any]:
        body = {"prompt": PROMPT, "max_tokens": 8, "temperature": 1.0, **more}
        answer: dict[str, Any] = server.post("/v1/completions", body).json()
        return answer

    both = complete(prompt=[PROMPT, PROMPT], n=2, seed=5)
    assert [run["seeds"] for run in both["edge_tui"]["runs"]] == [[5, 6]] * 2
    alone = [complete(seed=seed)["choices"][0]["text"] for seed in (5, 6)]
    assert [choice["text"] for choice in both["choices"]] == alone * 2
    assert "seeds" not in complete(seed=5)["edge_tui"]["runs"][0]


def test_stop_strings(client: openai.OpenAI) -> None:
    whole = (
        client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=24, temperature=0).choices[0].text
    )
    stop = whole[5:8]
    for given in (stop, [stop, "never there"]):
        choice = client.completions.create(
            model=MODEL, prompt=PROMPT, max_tokens=24, temperature=0, stop=given
        ).choices[0]
        assert (choice.text, choice.finish_reason) == (whole[: whole.index(stop)], "stop")


def test_log_probabilities_of_a_completion(client: openai.OpenAI, server: Running) -> None:
    choice = client.completions.create(
        model=MODEL, prompt=PROMPT, max_tokens=6, temperature=0, logprobs=3
    ).choices[0]
    told = choice.logprobs
    assert told is not None
    assert told.tokens
    assert told.token_logprobs
    assert told.top_logprobs
    assert told.text_offset is not None
    assert len(told.tokens) == len(told.token_logprobs) == len(told.top_logprobs) == 6
    assert "".join(told.tokens) == choice.text
    for token, logp, top in zip(told.tokens, told.token_logprobs, told.top_logprobs, strict=True):
        assert logp == max(top.values()) == top[token], "greedy"
        assert len(top) == 3
    assert [choice.text[a:] for a in told.text_offset][-1] == told.tokens[-1]


@pytest.mark.parametrize("as_ids", [False, True])
def test_an_echo_judges_the_prompt(client: openai.OpenAI, server: Running, as_ids: bool) -> None:
    text = "import os\nimport sys\n"
    ids = tokenizer().encode(text)
    choice = client.completions.create(
        model=MODEL, prompt=ids if as_ids else text, max_tokens=0, echo=True, logprobs=1
    ).choices[0]
    assert choice.text == text
    assert choice.logprobs is not None
    assert choice.logprobs.token_logprobs is not None
    assert choice.logprobs.token_logprobs[0] is None
    expected = _transformers_logps("expert", ids)
    np.testing.assert_allclose(choice.logprobs.token_logprobs[1:], expected, atol=1e-3)
    plain = client.completions.create(model=MODEL, prompt=ids if as_ids else text, max_tokens=3, echo=True)
    assert plain.choices[0].text.startswith(text)
    assert len(plain.choices[0].text) > len(text)


def test_log_likelihoods_as_an_evaluation_asks_for_them(client: openai.OpenAI, server: Running) -> None:
    """The requests of lm-evaluation-harness' `local-completions`: contexts and continuations as ids in one
    list, one token more, echo; its sums equal transformers' to 1e-3 on both models of the demo pair."""
    encode = tokenizer().encode
    pairs = [("import ", "os"), ("def main(", "argv):"), ("The sky is", " blue"), ("for i in ", "range(10):")]
    encoded = [(encode(context), encode(context + rest)) for context, rest in pairs]
    answer = client.completions.create(
        model=MODEL,
        prompt=[whole for _, whole in encoded],
        max_tokens=1,
        temperature=0,
        logprobs=1,
        seed=1234,
        echo=True,
    )
    for choice, (context, whole) in zip(answer.choices, encoded, strict=True):
        told = choice.logprobs
        assert told is not None
        assert told.token_logprobs is not None
        assert told.top_logprobs is not None
        assert len(told.token_logprobs) == len(whole) + 1
        start = len(context)
        ours = sum(told.token_logprobs[start:-1])
        theirs = sum(_transformers_logps("expert", whole)[start - 1 :])
        assert math.isclose(ours, theirs, abs_tol=1e-3)
        greedy = all(
            logp == max(top.values())
            for logp, top in zip(told.token_logprobs[start:-1], told.top_logprobs[start:-1], strict=True)
        )
        assert greedy == all(rank == 0 for rank in _transformers_ranks("expert", whole)[start - 1 :])


@pytest.mark.parametrize("more", [{}, {"n": 3}, {"logprobs": 2}, {"echo": True, "logprobs": 1}])
def test_a_stream_is_the_answer_in_pieces(client: openai.OpenAI, more: dict[str, Any]) -> None:
    common: dict[str, Any] = {"model": MODEL, "max_tokens": 8, "seed": 9, "temperature": 0.9, **more}
    prompts = [PROMPT, "import os"]
    whole = client.completions.create(prompt=prompts, **common)
    texts = [""] * len(whole.choices)
    reasons = [""] * len(whole.choices)
    logps: list[list[Any]] = [[] for _ in whole.choices]
    chunks = 0
    for chunk in client.completions.create(prompt=prompts, stream=True, **common):
        for choice in chunk.choices:
            chunks += 1
            texts[choice.index] += choice.text
            reasons[choice.index] += choice.finish_reason or ""
            if choice.logprobs is not None:
                logps[choice.index] += choice.logprobs.token_logprobs or []
    assert texts == [choice.text for choice in whole.choices]
    assert reasons == [choice.finish_reason for choice in whole.choices]
    assert chunks >= 8 * len(texts)
    if "logprobs" in more:
        for index, choice in enumerate(whole.choices):
            assert choice.logprobs is not None
            expected = choice.logprobs.token_logprobs
            assert expected is not None
            assert [each is None for each in logps[index]] == [each is None for each in expected]
            known = [each for each in logps[index] if each is not None]
            assert known == pytest.approx([each for each in expected if each is not None], abs=1e-4)


def test_a_stream_tells_usage_when_asked(client: openai.OpenAI) -> None:
    chunks = list(
        client.completions.create(
            model=MODEL, prompt=PROMPT, max_tokens=4, stream=True, stream_options={"include_usage": True}
        )
    )
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 4
    assert chunks[-1].choices == []


def test_our_strategies_ride_along(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model=MODEL,
        prompt=PROMPT,
        max_tokens=6,
        seed=3,
        extra_body={"strategy": "min_p", "params": {"min_p": 0.2, "temperature": 1.5}},
    )
    run = answer.model_extra["edge_tui"]["runs"][0]  # type: ignore[index]
    assert (run["strategy"], run["seed"]) == ("min_p", 3)
    assert run["params"]["min_p"] == pytest.approx(0.2)
    assert run["params"]["temperature"] == 1.5
    contrast = client.completions.create(
        model=MODEL, prompt=PROMPT, max_tokens=6, extra_body={"strategy": "contrastive"}
    )
    assert contrast.choices[0].text


def test_openais_numbers_reach_the_strategy_they_mean(client: openai.OpenAI, server: Running) -> None:
    def asked(**more: Any) -> Any:
        client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=1, **more)
        return server.engine.requests[-1]

    assert asked(temperature=0).strategy == "greedy"
    assert asked().strategy == server.app.settings.strategy
    drawn = asked(temperature=0.7, top_p=0.8, presence_penalty=0.5, frequency_penalty=-0.5)
    assert drawn.strategy == "top_p"
    expected = {"temperature": 0.7, "top_p": 0.8, "presence_penalty": 0.5, "frequency_penalty": -0.5}
    assert drawn.values == expected
    assert asked(temperature=0.7).values == {"temperature": 0.7, "top_p": 1.0}
    with pytest.raises(openai.UnprocessableEntityError, match="top_p"):
        asked(top_p=0.5, extra_body={"strategy": "greedy"})
    assert asked(top_p=1, temperature=1, extra_body={"strategy": "greedy"}).strategy == "greedy"


def test_beams_come_through_n(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model=MODEL, prompt=PROMPT, max_tokens=6, n=3, extra_body={"strategy": "beam"}
    )
    texts = [choice.text for choice in answer.choices]
    assert len(set(texts)) == 3
    scores = answer.model_extra["edge_tui"]["runs"][0]["scores"]  # type: ignore[index]
    assert scores == sorted(scores, reverse=True)
    streamed = ["", "", ""]
    for chunk in client.completions.create(
        model=MODEL, prompt=PROMPT, max_tokens=6, n=3, stream=True, extra_body={"strategy": "beam"}
    ):
        for choice in chunk.choices:
            streamed[choice.index] += choice.text
    assert streamed == texts


def test_a_conversation_is_answered(client: openai.OpenAI) -> None:
    messages: Any = [
        {"role": "system", "content": "You write Python."},
        {"role": "user", "content": [{"type": "text", "text": PROMPT}]},
    ]
    common: dict[str, Any] = {
        "model": MODEL,
        "messages": messages,
        "max_completion_tokens": 8,
        "temperature": 0,
    }
    answer = client.chat.completions.create(**common, logprobs=True, top_logprobs=4)
    choice = answer.choices[0]
    assert (choice.message.role, choice.finish_reason) == ("assistant", "length")
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    tokens = choice.logprobs.content
    assert len(tokens) == 8
    assert b"".join(bytes(token.bytes or []) for token in tokens).decode() == choice.message.content
    for token in tokens:
        assert len(token.top_logprobs) == 4
        assert token.top_logprobs[0].logprob == token.logprob
    text, roles, logps, reasons = "", [], [], []
    for chunk in client.chat.completions.create(**common, logprobs=True, top_logprobs=4, stream=True):
        part = chunk.choices[0]
        text += part.delta.content or ""
        roles.append(part.delta.role)
        reasons.append(part.finish_reason)
        if part.logprobs is not None:
            logps += [token.logprob for token in part.logprobs.content or []]
    assert text == choice.message.content
    assert roles[0] == "assistant"
    assert reasons[-1] == "length"
    # The second time the prompt was still there: another way to the same numbers, up to rounding.
    assert logps == pytest.approx([token.logprob for token in tokens], abs=1e-4)


def test_samples_and_beams_of_a_conversation(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": PROMPT}]
    drawn = client.chat.completions.create(
        model=MODEL, messages=messages, max_tokens=5, n=3, temperature=1, seed=2
    )
    assert [choice.index for choice in drawn.choices] == [0, 1, 2]
    beams = client.chat.completions.create(
        model=MODEL, messages=messages, max_tokens=5, n=2, extra_body={"strategy": "beam"}
    )
    assert len({choice.message.content for choice in beams.choices}) == 2


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, "response_format"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"n": 0}, "n"),
        ({"n": 1000}, "n"),
        ({"max_tokens": 10**9}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": 1e9}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"extra_body": {"params": {"nonsense": 1}}}, "nonsense"),
        ({"extra_body": {"guided_json": {}}}, "guided_json"),
        ({"logprobs": True, "extra_body": {"strategy": "beam"}}, "logprobs"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"),
    ],
)
def test_what_cannot_be_honoured_is_refused(client: openai.OpenAI, more: dict[str, Any], param: str) -> None:
    common: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": PROMPT}],
        "max_tokens": 1,
    }
    for stream in (False, True):
        with pytest.raises((openai.UnprocessableEntityError, openai.BadRequestError)) as refused:
            client.chat.completions.create(**{**common, **more}, stream=stream)
        assert str(refused.value.param).startswith(param)
        assert refused.value.body["message"]  # type: ignore[index]


def test_a_response_format_of_text_is_fine(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": PROMPT}],
        max_tokens=1,
        response_format={"type": "text"},
        user="somebody",
    )
    assert answer.choices[0].message.content is not None


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"best_of": 3}, "best_of"),
        ({"suffix": "x"}, "suffix"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a"] * 129}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [[5], "a"]}, "prompt"),
        ({"logprobs": 50}, "logprobs"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stop": "x", "extra_body": {"strategy": "beam"}}, "stop"),
    ],
)
def test_what_completions_cannot_honour(client: openai.OpenAI, more: dict[str, Any], param: str) -> None:
    common: dict[str, Any] = {"model": MODEL, "prompt": PROMPT, "max_tokens": 1}
    with pytest.raises((openai.UnprocessableEntityError, openai.BadRequestError)) as refused:
        client.completions.create(**{**common, **more})
    assert str(refused.value.param).startswith(param)


def test_a_prompt_beyond_the_context_is_refused_with_both_counts(client: openai.OpenAI) -> None:
    for _ in range(3):
        with pytest.raises(openai.BadRequestError, match=r"5001 tokens.*holds 2048") as refused:
            client.completions.create(model=MODEL, prompt=[7] * 5001, max_tokens=1)
        assert refused.value.code == "context_length_exceeded"


@pytest.mark.parametrize("control", [True, False])
def test_offsets_point_into_the_echoed_text(client: openai.OpenAI, control: bool) -> None:
    text = "import os<|endoftext|>def é(<|endoftext|>"
    common: dict[str, Any] = {"model": MODEL, "prompt": text, "echo": True, "logprobs": 0, "temperature": 0}
    common["extra_body"] = {"control_tokens": control}
    for new in (0, 3):
        choice = client.completions.create(**common, max_tokens=new).choices[0]
        told = choice.logprobs
        assert told is not None
        assert told.tokens is not None
        assert told.text_offset is not None
        assert told.tokens.count("<|endoftext|>") == 2 * control
        for token, offset in zip(told.tokens, told.text_offset, strict=True):
            assert "⟨" in token or choice.text[offset:].startswith(token), (token, offset)
        assert told.text_offset == sorted(told.text_offset)
        streamed: list[int] = []
        for chunk in client.completions.create(**common, max_tokens=new, stream=True):
            for part in chunk.choices:
                if part.logprobs is not None:
                    streamed += part.logprobs.text_offset or []
        assert streamed == told.text_offset


_references: dict[str, Any] = {}


def _reference_logps(which: str, ids: list[int]) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    from edge_tui.engine.checkpoints.locate import DEMO

    if which not in _references:
        _references[which] = AutoModelForCausalLM.from_pretrained(DEMO / which, dtype=torch.float32)
    with torch.no_grad():
        return _references[which](torch.tensor([ids])).logits[0].log_softmax(-1)


def _transformers_logps(which: str, ids: list[int]) -> list[float]:
    """What transformers thinks of each token but the first."""
    logps = _reference_logps(which, ids)
    return [float(logps[i, token]) for i, token in enumerate(ids[1:])]


def _transformers_ranks(which: str, ids: list[int]) -> list[int]:
    logps = _reference_logps(which, ids)
    return [int((logps[i] > logps[i, token]).sum()) for i, token in enumerate(ids[1:])]
