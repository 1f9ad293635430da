"""`/infer` and its stream on the demo model."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from edge_tui.engine.port import Request
from edge_tui.engine.token_fields import RESERVED
from tests.serve.serving import Running, events, tokenizer

PROMPT = "def main("


def test_the_seeds_request_gets_the_seeds_answer(server: Running) -> None:
    answer = server.post("/infer", {"prompt": PROMPT, "max_length": 12})
    assert answer.status_code == 200
    assert list(answer.json()) == ["output"]
    assert answer.json()["output"]
    assert server.engine.requests[-1].max_length == 12
    assert answer.headers["x-queue-length"] == "0"


def test_the_length_is_the_seeds_default(server: Running) -> None:
    server.post("/infer", {"prompt": PROMPT})
    assert server.engine.requests[-1].max_length == 100


def test_a_seed_gives_the_same_tokens_streamed_or_not(server: Running) -> None:
    body = {"prompt": PROMPT, "max_length": 24, "strategy": "top_p", "params": {"top_p": 0.95}, "seed": 11}
    whole = server.post("/infer", body).json()["output"]
    told = server.stream("/infer/stream", body)
    assert [kind for kind, _ in told] == ["start", *["token"] * 24, "end"]
    assert told[-1][1]["output"] == whole == "".join(data["text"] for kind, data in told if kind == "token")
    assert server.post("/infer", {**body, "seed": 12}).json()["output"] != whole


def test_a_token_comes_with_its_log_probability_and_alternatives(server: Running) -> None:
    told = server.stream("/infer/stream", {"prompt": PROMPT, "max_length": 4, "alternatives": 7})
    start, *tokens, end = (data for _, data in told)
    assert (start["strategy"], start["rows"]) == ("greedy", 1)
    for index, token in enumerate(tokens):
        assert set(token) <= RESERVED, "no column may stand in the place of one"
        assert token["index"] == index
        assert len(token["alternatives"]) == 7
        assert token["alternatives"][0]["id"] == token["id"], "greedy takes the first"
        assert token["alternatives"][0]["logprob"] == token["logprob"] < 0
        assert token["final_logprob"] == 0
    assert end["new_tokens"] == 4
    assert end["finish_reasons"] == ["length"]


def test_a_prompt_comes_with_the_log_probabilities_of_its_tokens(server: Running) -> None:
    body = {"prompt": PROMPT, "max_length": 0, "prompt_logps": True}
    told = server.stream("/infer/stream", body)
    assert [kind for kind, _ in told] == ["prompt", "start", "end"]
    prompt = told[0][1]
    assert "".join(prompt["text"]) == PROMPT
    assert prompt["logp"][0] is None
    assert max(prompt["logp"][1:]) < 0
    assert prompt["roles"] == ["user"] * len(prompt["ids"])
    first = server.stream("/infer/stream", {"prompt": PROMPT, "max_length": 1, "strategy": "greedy"})[1][1]
    assert prompt["next_ids"][0] == first["id"]
    assert prompt["next_logp"][0] == pytest.approx(first["logprob"], abs=1e-4)
    assert server.post("/infer/stream", {**body, "prompt_logps": False}).status_code == 422


def test_details_tell_how_it_was_decoded(server: Running) -> None:
    body = {"prompt": PROMPT, "max_length": 8, "strategy": "top_k", "params": {"top_k": 3}, "details": True}
    said = server.post("/infer", body).json()
    assert said["params"]["top_k"] == {"value": 3, "source": "request"}
    assert said["strategy"] == "top_k"
    again = server.post("/infer", {**body, "seed": said["seed"]}).json()
    assert again["output"] == said["output"]


def test_samples_are_one_batch(server: Running) -> None:
    before = len(server.engine.requests)
    body = {"prompt": PROMPT, "max_length": 8, "strategy": "top_p", "seed": 3, "n": 4}
    outputs = server.post("/infer", body).json()["outputs"]
    assert len(server.engine.requests) == before + 1
    assert server.engine.requests[-1].samples == 4
    assert len(set(outputs)) > 1
    alone = server.post("/infer", {**body, "n": 1}).json()["output"]
    assert outputs[0] == alone
    told = server.stream("/infer/stream", body)
    rows = ["".join(t["text"] for kind, t in told if kind == "token" and t["row"] == r) for r in range(4)]
    assert rows == told[-1][1]["outputs"] == outputs


def test_a_sample_goes_on_under_its_own_seed(server: Running) -> None:
    body = {"prompt": PROMPT, "max_length": 8, "strategy": "top_p", "seed": 3}
    told = server.stream("/infer/stream", {**body, "n": 3})
    seeds = told[-1][1]["seeds"]
    assert seeds == [3, 4, 5]
    ids = [data["id"] for kind, data in told if kind == "token" and data["row"] == 2]
    rest = {**body, "seed": seeds[2], "prefix": ids[:5], "max_length": 3}
    assert [data["id"] for kind, data in server.stream("/infer/stream", rest) if kind == "token"] == ids[5:]
    for alone in ({}, {"strategy": "beam", "n": 2}):
        assert "seeds" not in server.post("/infer", {**body, "details": True, **alone}).json()


def test_beams_give_their_best_answers_in_order(server: Running) -> None:
    body = {"prompt": PROMPT, "max_length": 8, "strategy": "beam", "n": 3, "details": True}
    said = server.post("/infer", body).json()
    assert len(set(said["outputs"])) == 3
    assert said["scores"] == sorted(said["scores"], reverse=True)
    assert said["params"]["num_beams"]["value"] == 3
    told = [data for kind, data in server.stream("/infer/stream", body) if kind == "token"]
    assert None in {token["finished"] for token in told}, "null where no beam has ended"
    one = server.post("/infer", {**body, "n": 1, "params": {"num_beams": 3}}).json()
    assert one["output"] == said["outputs"][0]
    refused = server.post("/infer", {**body, "n": 4, "params": {"num_beams": 2}})
    assert refused.status_code == 422
    one_answer = server.post("/infer", {**body, "strategy": "contrastive_search"})
    assert one_answer.status_code == 422
    assert one_answer.json()["error"]["message"] == (
        "n is 3, but contrastive search gives one answer: leave n out."
    )


def test_a_stop_string_ends_the_answer_and_is_not_part_of_it(server: Running) -> None:
    whole = server.post("/infer", {"prompt": PROMPT, "max_length": 24}).json()["output"]
    stop = whole[6:9]
    said = server.post("/infer", {"prompt": PROMPT, "max_length": 24, "stop": stop, "details": True}).json()
    assert said["output"] == whole[: whole.index(stop)]
    assert said["finish_reasons"] == ["stop"]


def test_token_ids_and_turns_are_prompts_too(server: Running) -> None:
    ids = tokenizer().encode(PROMPT)
    text = server.post("/infer", {"prompt": PROMPT, "max_length": 8}).json()
    assert server.post("/infer", {"prompt": ids, "max_length": 8}).json() == text
    turns = [{"role": "user", "content": PROMPT}]
    assert server.post("/infer", {"prompt": turns, "max_length": 8}).json() == text, "it has no template"
    assert server.post("/infer", {"prompt": [10**6], "max_length": 8}).status_code == 422


def test_a_prefix_is_part_of_the_answer(server: Running) -> None:
    told = server.stream("/infer/stream", {"prompt": PROMPT, "max_length": 8})
    ids = [data["id"] for kind, data in told if kind == "token"]
    rest = server.stream("/infer/stream", {"prompt": PROMPT, "max_length": 4, "prefix": ids[:4]})
    assert [data["id"] for kind, data in rest if kind == "token"] == ids[4:]
    assert [data["index"] for kind, data in rest if kind == "token"] == [4, 5, 6, 7]


def test_columns_lose_nothing(server: Running) -> None:
    body = {"prompt": PROMPT, "max_length": 6, "strategy": "contrastive"}
    told = dict(server.stream("/infer/stream", {**body, "max_length": 1, "format": "columns"}))
    assert {"start", "tokens", "first", "end"} <= set(told) <= {"progress", "start", "tokens", "first", "end"}
    tokens = told["tokens"]
    assert len(tokens["top_ids"][0]) == 20
    assert len(tokens["extras"][0]) == len(told["start"]["columns"]) > 0
    ids, texts = tokens["pieces"]
    wanted = {i for name in ("top_ids", "final_ids") for i in tokens[name][0] if i >= 0}
    assert wanted <= set(ids)
    assert len(ids) == len(texts)


def test_a_parameter_is_turned_while_tokens_come(server: Running, slow: str) -> None:
    body = {"prompt": PROMPT, "max_length": 25, "strategy": slow}
    seen: list[tuple[str, object]] = []
    named = threading.Event()

    def listen() -> None:
        with server.client() as client, client.stream("POST", "/infer/stream", json=body) as response:
            for each in events(response.iter_lines()):
                seen.append(each)
                named.set()

    thread = threading.Thread(target=listen)
    thread.start()
    assert named.wait(60)
    path = f"/infer/stream/{seen[0][1]['id']}/params"  # type: ignore[index]
    wrong = server.post(path, {"name": "repetition_penalty", "value": -1})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (422, "repetition_penalty")
    assert server.post(path, {"name": "repetition_penalty", "value": 1.5}).status_code == 200
    thread.join(60)
    change = next(data for kind, data in seen if kind == "change")
    assert change["name"] == "repetition_penalty"  # type: ignore[index]
    assert change["value"] == 1.5  # type: ignore[index]
    assert server.post(path, {"name": "repetition_penalty", "value": 1.2}).status_code == 404


@pytest.mark.parametrize(
    ("body", "status", "param", "words"),
    [
        ({}, 422, "prompt", "required"),
        ({"prompt": ""}, 400, "prompt", "empty"),
        ({"prompt": []}, 400, "prompt", "empty"),
        ({"prompt": "a", "max_length": 0}, 422, "max_length", "at least 1"),
        ({"prompt": "a", "max_length": 10**9}, 422, "max_length", "at most 4096"),
        ({"prompt": "a", "n": 10**9}, 422, "n", "from 1 to 16"),
        ({"prompt": "a", "strategy": "beam", "params": {"num_beams": 10**9}}, 422, "num_beams", "to 16"),
        ({"prompt": "a", "strategy": "bean"}, 422, "strategy", "contrastive"),
        ({"prompt": "a", "strategy": "top_k", "params": {"top_p": 1}}, 422, "top_p", "it has top_k"),
        ({"prompt": "a", "strategy": "top_p", "params": {"top_p": -0.1}}, 422, "top_p", "from 0 to 1"),
        ({"prompt": "a", "strategy": "top_k", "params": {"top_k": True}}, 422, "top_k", "whole number"),
        ({"prompt": "a", "n": True}, 422, "n", "true or false"),
        ({"prompt": [True]}, 422, "prompt", "integer"),
        ({"prompt": [1.0]}, 422, "prompt", "integer"),
        ({"prompt": "a", "strategy": "top_k", "params": {"top_k": 1.5}}, 422, "top_k", "whole number"),
        ({"prompt": "a", "strategy": "top_p", "params": {"temperature": -1}}, 422, "temperature", "from 0"),
        ({"prompt": "a", "strategy": "top_p", "params": {"temperature": 1e9}}, 422, "temperature", "to 5"),
        ({"prompt": "a", "maxlength": 5}, 422, "maxlength", "no field"),
        ({"prompt": "a", "seed": -2}, 422, "seed", "greater"),
        ({"prompt": "a " * 5000, "max_length": 5}, 400, "prompt", "context holds 2048"),
    ],
)
def test_what_is_wrong_is_said_by_field(
    server: Running, body: dict[str, object], status: int, param: str, words: str
) -> None:
    answer = server.post("/infer", body)
    error = answer.json()["error"]
    assert answer.status_code == status, error
    assert error["param"].split(".")[0] == param, error
    assert words in error["message"]
    assert "Traceback" not in answer.text


@pytest.mark.parametrize("raw", [b"[]", b"42", b"null", b"{", b"", b"\xff", b'{"prompt": "a", "seed": NaN}'])
def test_bodies_that_are_no_request_are_refused(server: Running, raw: bytes) -> None:
    with server.client() as client:
        answer = client.post("/infer", content=raw, headers={"Content-Type": "application/json"})
    assert 400 <= answer.status_code < 500
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize("prompt", ["a\x00b", "caf\\ud800", "😀" * 3, "\u202ereversed"])
def test_strange_text_is_survived(server: Running, prompt: str) -> None:
    raw = b'{"max_length": 3, "prompt": "%s"}' % prompt.replace("\x00", "\\u0000").encode()
    with server.client() as client:
        answer = client.post("/infer", content=raw, headers={"Content-Type": "application/json"})
    assert answer.status_code in (200, 400, 422), answer.text
    assert server.post("/infer", {"prompt": "a", "max_length": 2}).status_code == 200


def test_absurd_requests_cost_no_memory(server: Running) -> None:
    import psutil

    server.post("/infer", {"prompt": "a", "max_length": 1})
    before = psutil.Process().memory_info().rss
    for _ in range(2):
        for more in (
            {"max_length": 10**9},
            {"n": 10**9},
            {"params": {"num_beams": 10**9}, "strategy": "beam"},
        ):
            assert server.post("/infer", {"prompt": "a", **more}).status_code == 422
        assert server.post("/v1/completions", {"prompt": "a", "logprobs": 10**9}).status_code == 422
        assert server.post("/infer", {"prompt": "a" * 2**20, "max_length": 0}).status_code == 422
        assert server.post("/infer", {"prompt": "a" * 3 * 2**20}).status_code == 413
    assert psutil.Process().memory_info().rss - before < 50e6


def test_the_document_describes_every_parameter(server: Running) -> None:
    from edge_tui import decoders
    from edge_tui.decoders.base import TextParam

    with server.client() as client:
        document = client.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    for decoder in decoders.strategies():
        name = f"{decoder.name.title().replace('_', '')}Params"
        properties = schemas[name]["properties"]
        assert list(properties) == [param.name for param in decoder.params]
        for param in decoder.params:
            told = properties[param.name]
            assert told["description"] == param.help
            if isinstance(param, TextParam):
                assert told["default"] == (list(param.default) if param.many else param.default)
            elif param.choices:
                assert told["enum"] == list(param.choices)
            else:
                assert (told["maximum"], told["default"]) == (param.high, param.default)
    names = [decoder.name for decoder in decoders.strategies()]
    for schema in ("Infer", "InferStream", "Completion", "Chat"):
        assert schemas[schema]["properties"]["strategy"]["anyOf"][0]["enum"] == names
    assert set(schemas["ChainParams"]["properties"]) >= {"min_p", "temperature", "repetition_penalty"}


@pytest.mark.parametrize("path", ["/infer", "/v1/completions"])
def test_a_chain_is_a_strategy_here_too(server: Running, path: str) -> None:
    length = {"max_length": 3} if path == "/infer" else {"max_tokens": 3}
    body = {"prompt": "a", "strategy": "beam:min_p+top_k", "params": {"num_beams": 2, "top_k": 5}, **length}
    assert server.post(path, body).status_code == 200
    for text, words in (
        ("min_p+top_p+", "an empty place"),
        ("min_p+" * 40, "at most 32"),
        ("a" * 3000, "2000"),
    ):
        answer = server.post(path, {**body, "strategy": text})
        assert (answer.status_code, answer.json()["error"]["param"]) == (422, "strategy")
        assert words in answer.json()["error"]["message"]
    with server.client() as client:
        about = client.get("/about").json()
    assert {"min_p", "penalties", "temperature"} <= set(about["stages"])


@pytest.mark.parametrize("path", ["/infer", "/v1/chat/completions"])
def test_template_variables_are_checked_before_anything_waits(server: Running, path: str) -> None:
    said = {"prompt": "a"} if path == "/infer" else {"messages": [{"role": "user", "content": "a"}]}
    for variables in ({"messages": []}, {"a b": 1}, {"x": "y" * 20_000}, {f"x{i}": 1 for i in range(40)}):
        answer = server.post(path, {**said, "chat_template_kwargs": variables})
        assert answer.status_code == 422
        assert answer.json()["error"]["param"] == "chat_template_kwargs"


def test_requests_reach_the_engine_whole(server: Running) -> None:
    body = {"prompt": "a", "max_length": 2, "mode": "focused", "system": "be brief", "chat": True, "seed": 5}
    body |= {"strategy": "top_p", "stop": ["x", "y"], "chat_template_kwargs": {"enable_thinking": False}}
    body["proposing_ends"] = 0
    server.stream("/infer/stream", body)
    server.post("/infer", body)
    streamed, request = server.engine.requests[-2:]
    assert streamed == replace(request, watched=True), "nobody waits for tokens one by one"
    assert request == Request(
        prompt="a",
        strategy="top_p",
        mode="focused",
        seed=5,
        max_length=2,
        stop=("x", "y"),
        chat=True,
        system="be brief",
        template={"enable_thinking": False},
        proposing_ends=0,
        values=request.values,
        sources=request.sources,
        watched=False,
    )


@pytest.mark.parametrize("field", ["prompt", "prefix"])
@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ([4096], "0 to 4095"),
        ([2**31 - 1], "0 to 4095"),
        ([5, 2**40], "2147483647"),
        ([-1], "greater than or equal to 0"),
        ([True], "integer"),
        ([1.0], "integer"),
        ([1.5], "integer"),
        (["1"], "integer"),
        ([[1]], ""),
        ([1] * 5000, "the context holds 2048"),
    ],
)
def test_ids_that_are_none_are_refused(server: Running, field: str, ids: list[object], words: str) -> None:
    body = {"prompt": PROMPT, "max_length": 4, "strategy": "contrastive", field: ids}
    answer = server.post("/infer" if field == "prompt" else "/infer/stream", body)
    error = answer.json()["error"]
    assert answer.status_code in (400, 422), error
    assert error["param"].split(".")[0] == field
    assert words in error["message"]


@pytest.mark.parametrize(
    "prompt", [[4095], [4096], [True], [-1], [1.0], [[3], [4096]], [[3], [True]], ["a", 3]]
)
def test_so_are_those_of_openais_prompts(server: Running, prompt: list[object]) -> None:
    for more in ({}, {"echo": True, "logprobs": 1, "max_tokens": 0}, {"stream": True}):
        answer = server.post("/v1/completions", {"prompt": prompt, "max_tokens": 1, **more})
        if prompt == [[3], [4096]] and "stream" in more:  # the first of them has been told by then
            assert "token id 4096" in answer.text
        else:
            assert answer.status_code == (200 if prompt == [4095] else 422), answer.text
