"""What an answer holds is the same on every face: without the token that ends it, and after any prompt."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edge_tui.cli import main
from edge_tui.config.settings import Models
from tests.engine.endings import END, ending, endless, place
from tests.serve.serving import DEMO, Running, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

PROMPT = "the quick brown fox"


@dataclass
class Case:
    """A model whose greedy answer to `PROMPT` in its chat template an ordinary piece ends."""

    folder: Path
    ids: list[int]
    answer: str
    tokens: int


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("models")
    prompt, ids, texts = endless(folder / "endless", PROMPT, chat=True)
    at = place(ids, texts)
    ending(folder / "ends", ids[at], "piece", chat=True)
    return Case(folder / "ends", list(prompt), "".join(texts[:at]), at + 1)


@pytest.fixture(scope="module")
def server(case: Case) -> Iterator[Running]:
    with serving(replace(DEMO, models=Models(name=str(case.folder)))) as running:
        yield running


def test_a_server_leaves_the_end_token_out(case: Case, server: Running) -> None:
    chat = {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 24, "logprobs": True}
    raw = {"prompt": case.ids, "max_tokens": 24, "logprobs": 2}
    choice = server.post("/v1/chat/completions", chat).json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == (case.answer, "stop")
    assert len(choice["logprobs"]["content"]) == case.tokens - 1
    told = server.post("/v1/completions", raw).json()
    assert told["choices"][0]["text"] == case.answer
    assert len(told["choices"][0]["logprobs"]["tokens"]) == case.tokens - 1
    assert told["usage"]["completion_tokens"] == case.tokens
    for path, body in (("/v1/chat/completions", chat), ("/v1/completions", raw)):
        choices = [one for _, data in server.stream(path, {**body, "stream": True}) for one in _choices(data)]
        texts = [one.get("text") or one.get("delta", {}).get("content") or "" for one in choices]
        assert "".join(texts) == case.answer
        told = [logprobs for one in choices if (logprobs := one.get("logprobs"))]
        assert sum(len(each.get("tokens") or each.get("content") or ()) for each in told) == case.tokens - 1
    for prompt in (PROMPT, case.ids):
        assert server.post("/infer", {"prompt": prompt}).json()["output"] == case.answer
        end = server.stream("/infer/stream", {"prompt": prompt})[-1][1]
        assert (end["output"], end["finish_reasons"]) == (case.answer, ["eos"])
    beams = {"prompt": PROMPT, "strategy": "beam", "params": {"num_beams": 1}, "max_length": 24}
    assert server.post("/infer", beams).json()["output"] == case.answer


def _choices(data: Any) -> list[dict[str, Any]]:
    return data.get("choices", []) if isinstance(data, dict) else []


def test_run_history_and_exports_leave_the_end_token_out(
    case: Case, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    shared = ["run", PROMPT, "--model", str(case.folder), "--max-new-tokens", "24", "--device", "cpu"]
    assert main.main([*shared, "--strategy", "greedy"]) == 0
    assert capsys.readouterr().out == case.answer
    assert main.main([*shared, "--strategy", "beam", "--set", "num_beams=1"]) == 0
    assert capsys.readouterr().out == case.answer
    assert main.main(["history", "show", "last"]) == 0
    assert capsys.readouterr().out.endswith(f"── answer\n{case.answer}\n")
    assert main.main([*shared, "--strategy", "greedy", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (lines[-1]["text"], "".join(line["text"] for line in lines[:-1])) == (case.answer,) * 2
    assert main.main(["history", "show", "last"]) == 0
    assert capsys.readouterr().out.endswith(f"── answer\n{case.answer}\n")
    file = tmp_path / "run.json"
    assert main.main(["history", "export", "last", "-o", str(file)]) == 0
    assert json.loads(file.read_text(encoding="utf-8"))["text"] == case.answer
    for kind in ("md", "html", "svg"):
        assert main.main(["history", "export", "last", "--format", kind]) == 0


@pytest.mark.parametrize("prompt", ["   ", "\n"])
def test_white_space_is_a_prompt_everywhere(
    case: Case, server: Running, capsys: pytest.CaptureFixture[str], prompt: str
) -> None:
    for path, body in (
        ("/infer", {"prompt": prompt, "max_length": 2}),
        ("/v1/completions", {"prompt": prompt, "max_tokens": 2}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": prompt}], "max_tokens": 2}),
    ):
        assert server.post(path, body).status_code == 200
    shared = ["--model", str(case.folder), "--max-new-tokens", "2", "--device", "cpu"]
    assert main.main(["run", prompt, "--raw", *shared]) == 0


def test_nothing_is_the_token_that_begins_a_text_and_no_message(
    case: Case, server: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    told = server.post("/v1/completions", {"prompt": "", "max_tokens": 2}).json()
    assert told["usage"]["prompt_tokens"] == 1
    refused = server.post("/v1/chat/completions", {"messages": [{"role": "user", "content": ""}]})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "empty_prompt")
    shared = ["--model", str(case.folder), "--max-new-tokens", "2", "--device", "cpu"]
    assert main.main(["run", "", "--raw", *shared]) == 0
    assert main.main(["run", "", *shared]) == 1
    assert "The message is empty" in capsys.readouterr().err


def test_control_tokens_are_allowed_by_one_name(
    case: Case, server: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    content = f"a{END}b"
    chat = {"messages": [{"role": "user", "content": content}], "max_tokens": 1}
    for path, body in (
        ("/infer", {"prompt": content, "max_length": 1, "details": True}),
        ("/v1/completions", {"prompt": content, "max_tokens": 1}),
        ("/v1/chat/completions", chat),
    ):
        counts, notices = [], []
        for allowed in (False, True):
            told = server.post(path, {**body, "control_tokens": allowed}).json()
            counts.append(told["usage"]["prompt_tokens"] if "usage" in told else told["prompt_tokens"])
            notices.append(" ".join(told.get("notices") or told["edge_tui"]["runs"][0]["notices"]))
        assert counts[0] > counts[1]
        assert f"text, control tokens in it too: {END}" in notices[0]
        assert f"control tokens, which the model obeys: {END}" in notices[1]
    shared = ["run", content, "--model", str(case.folder), "--max-new-tokens", "1", "--device", "cpu"]
    assert main.main([*shared, "--control-tokens", "--json"]) == 0
    said = capsys.readouterr()
    assert f"obeys: {END}" in said.err
    assert json.loads(said.out.splitlines()[-1])["control_tokens"] == [END]
    assert main.main(["history", "show", "last"]) == 0
    assert f"control tokens     {END}" in capsys.readouterr().out
