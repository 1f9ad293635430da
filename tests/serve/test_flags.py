"""Each flag of `edge-tui serve` has its effect on every route, or docs/server.md says where not."""

from __future__ import annotations

import json
import re
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from edge_tui.cli.arguments import Namespace
from edge_tui.cli.flag_settings import load_settings
from edge_tui.cli.parser import make_parser
from edge_tui.engine.checkpoints.locate import DEMO
from tests.serve.conftest import SLOW
from tests.serve.process import Process, ready
from tests.serve.serving import Running, client, events, serving
from tests.waiting import until

PROMPT = "def main("
TEMPLATE = (
    "{% for turn in messages %}[{{ turn.role }}] {{ turn.content }}\n{% endfor %}{{ mood }}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
INFER, COMPLETIONS, CHAT = "/infer", "/v1/completions", "/v1/chat/completions"
ROUTES = (INFER, COMPLETIONS, CHAT)


@dataclass
class Told:
    """How an answer came to be, on whatever route."""

    model: str
    strategy: str
    seed: int
    params: dict[str, Any]
    prompt_tokens: int
    new_tokens: int
    text: str


@dataclass
class Served:
    """A server, asked on every route."""

    server: Process | Running
    key: str
    folder: Path

    def client(self, **headers: str) -> httpx.Client:
        shown = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return client(self.server.url, {**shown, **headers})

    def post(self, route: str, body: Any) -> httpx.Response:
        with self.client() as client:
            return client.post(route, json=body)

    def body(self, route: str, text: str = PROMPT, **more: Any) -> dict[str, Any]:
        if "max_length" in more and route != INFER:
            more["max_tokens"] = more.pop("max_length")
        if route == CHAT:
            return {"messages": [{"role": "user", "content": text}], **more}
        return {"prompt": text, **more}

    def ask(self, route: str, text: str = PROMPT, stream: bool = False, **more: Any) -> Told:
        body = self.body(route, text, **more)
        if route == INFER:
            if not stream:
                return self._infer(self._json(route, {**body, "details": True}))
            return self._infer(self._events("/infer/stream", body)[-1][1])
        if not stream:
            return self._openai(self._json(route, body))
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        chunks = [data for _, data in self._events(route, body)][:-1]
        parts = [choice for chunk in chunks for choice in chunk["choices"]]
        text = "".join(part.get("text") or part.get("delta", {}).get("content") or "" for part in parts)
        return self._openai({**chunks[-1], "choices": [{"text": text}]})

    def everywhere(self, **more: Any) -> Iterator[tuple[str, Told]]:
        """The same request on every route, streamed and not."""
        for route in ROUTES:
            for stream in (False, True):
                yield route, self.ask(route, stream=stream, **more)

    def _json(self, route: str, body: Any) -> Any:
        answer = self.post(route, body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def _events(self, route: str, body: Any) -> list[tuple[str, Any]]:
        with self.client() as client, client.stream("POST", route, json=body) as response:
            return list(events(response.iter_lines()))

    @staticmethod
    def _infer(said: Any) -> Told:
        params = {name: it["value"] for name, it in said["params"].items()}
        counts = said["prompt_tokens"], said["new_tokens"]
        return Told(said["model"], said["strategy"], said["seed"], params, *counts, said["output"])

    @staticmethod
    def _openai(said: Any) -> Told:
        run, usage, choice = said["edge_tui"]["runs"][0], said["usage"], said["choices"][0]
        text = choice["text"] if "text" in choice else choice["message"]["content"]
        counts = usage["prompt_tokens"], usage["completion_tokens"]
        return Told(said["model"], run["strategy"], run["seed"], run["params"], *counts, text)


def _model(folder: Path) -> str:
    """The demo expert with a chat template."""
    shutil.copytree(DEMO / "expert", folder / "templated")
    config = folder / "templated" / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"chat_template": TEMPLATE}))
    return str(folder / "templated")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with every flag at a value that is not its default."""
    folder = tmp_path_factory.mktemp("flags")
    (folder / "strategies").mkdir()
    (folder / "strategies" / "slow.py").write_text(SLOW.replace("0.03", "0.2"))
    (folder / "own.toml").write_text("[parameters]\nfrequency_penalty = 0.25\n")
    (folder / "key").write_text("secret-key\n")
    flags = (
        *("--host", "127.0.0.2", "--allow-host", "decoder.example", "--api-key-file", str(folder / "key")),
        *("--max-queue", "0", "--max-tokens", "100", "--max-rows", "3", "--max-prompts", "2"),
        *("--max-seconds", "4", "--drain-seconds", "0.2", "--allow-model-management"),
        *("--model", _model(folder), "--expert", "demo/expert", "--amateur", "demo/expert"),
        *(
            "--draft",
            "demo/amateur",
            "--draft-device",
            "cuda:79",
            "--precision",
            "bfloat16",
            "--device",
            "cpu",
            "--context",
            "512",
        ),
        *("--strategy", "top_k", "--set", "top_k=3", "--mode", "exploratory", "--seed", "7"),
        *("--max-new-tokens", "5", "--stop", "zzz", "--chat", "--system", "Be brief."),
        *("--template", 'mood="merry"', "--control-tokens", "--config", str(folder / "own.toml")),
        *("--decoders", str(folder / "strategies")),
    )
    with ready(*flags, environment={"EDGE_TUI_API_KEY": "another"}) as process:
        assert not any("API_KEY" in line for line in process.lines), "it is no unknown setting"
        yield Served(process, "secret-key", folder)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that leaves the model's template out."""
    folder = tmp_path_factory.mktemp("raw")
    words = ["serve", "--model", _model(folder), "--device", "cpu", "--no-chat", "--system", "Be brief."]
    words += ["--stop", "e", "--strategy", "greedy", "--chain", "top_k"]
    words += ["--expert-device", "cuda:77", "--amateur-device", "cuda:78"]
    flags = vars(make_parser(words).parse_args(words, Namespace()))
    settings, notices = load_settings({key: flags[key] for key in flags.keys() - {"command", "before"}})
    assert notices == []
    with serving(settings) as running:
        yield Served(running, "", folder)


CASES: dict[str, Callable[..., None]] = {}


def case(*flags: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Marks what shows the effect of flags."""

    def mark(check: Callable[..., None]) -> Callable[..., None]:
        CASES.update(dict.fromkeys(flags, check))
        return check

    return mark


@case("--host", "--port")
def _address(served: Served) -> None:
    assert served.server.url.startswith("http://127.0.0.2:")


@case("--allow-host")
def _names(served: Served) -> None:
    for host, status in (("decoder.example", 200), ("other.example", 403)):
        with served.client(Host=host) as client:
            assert client.get("/v1/models").status_code == status


@case("--api-key-file")
def _key(served: Served) -> None:
    for route in ROUTES:
        with served.client(Authorization="Bearer wrong") as client:
            assert client.post(route, json=served.body(route)).status_code == 401


@case("--max-queue", "--max-seconds")
def _queue_and_time(served: Served) -> None:
    body = served.body(INFER, strategy="slow", max_length=100, stop=[], details=True)
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(served.post, INFER, body)
        until(lambda: _health(served)["running"] == 1)
        for route in ROUTES:
            assert served.post(route, served.body(route)).status_code == 429
        said = slow.result().json()
    assert said["finish_reasons"] == ["time"]
    assert 0 < said["new_tokens"] < 100, "its first 32 steps, which are not traced yet, take 6 s"
    assert said["output"]


def _health(served: Served) -> Any:
    with served.client() as client:
        return client.get("/health").json()


@case("--max-tokens", "--max-rows")
def _tokens_and_rows(served: Served) -> None:
    for route in ROUTES:
        for more in ({"max_length": 101}, {"n": 4}, {"strategy": "beam", "params": {"num_beams": 4}}):
            assert served.post(route, served.body(route, **more)).status_code == 422, more
        assert served.post(route, served.body(route, n=3)).status_code == 200


@case("--max-prompts")
def _prompts(served: Served) -> None:
    for count, status in ((2, 200), (3, 422)):
        assert served.post(COMPLETIONS, {"prompt": [PROMPT] * count}).status_code == status


@case("--allow-model-management", "--draft", "--amateur")
def _management(served: Served) -> None:
    with served.client() as client:
        roles = client.get("/models").json()["roles"]
    assert (roles["amateur"], roles["draft"]) == ("demo/expert", "demo/amateur")


@case("--model", "--strategy", "--set", "--mode", "--seed", "--max-new-tokens", "--max-length", "--config")
def _decoding(served: Served) -> None:
    for route, told in served.everywhere():
        assert told.model.endswith("templated"), route
        assert (told.strategy, told.seed, told.new_tokens) == ("top_k", 7, 5), route
        expected = {"top_k": 3, "temperature": 1.5, "frequency_penalty": 0.25}
        assert {name: told.params[name] for name in expected} == expected, route
    for route in (COMPLETIONS, CHAT):
        own = served.ask(route, temperature=0.5, seed=8, max_tokens=3)
        assert (own.strategy, own.params["temperature"], own.seed, own.new_tokens) == ("top_p", 0.5, 8, 3)
        assert served.ask(route, seed=-1).seed != 7
        assert own.params["frequency_penalty"] == 0.25, (
            "what was set holds where a request says nothing of it"
        )


@case("--chain")
def _chain(raw: Served) -> None:
    for route, told in raw.everywhere():
        assert told.strategy == "greedy:top_k", route


@case("--expert")
def _expert(served: Served) -> None:
    for route, told in served.everywhere(strategy="contrastive"):
        assert told.model == "demo/expert", route


@case("--precision", "--device", "--context")
def _memory(served: Served) -> None:
    with served.client() as client:
        main = client.get("/about").json()["loaded"]["model"]
        assert client.get("/v1/models").json()["data"][0]["max_model_len"] == 512
    assert (main["precision"], main["device"], main["context"]) == ("bfloat16", "cpu", 512)


def _named_device(served: Served, strategy: str) -> str:
    """The device that is not here, as the refusal of a strategy names it."""
    found = re.search(
        r"There is no device (\S+?)[ ;]", served.post(INFER, {"prompt": PROMPT, "strategy": strategy}).text
    )
    assert found is not None
    return found[1]


@case("--expert-device", "--amateur-device")
def _device_of_a_role(raw: Served) -> None:
    assert _named_device(raw, "dexperts") == "cuda:77"
    assert _named_device(raw, "speculative") == "cuda:78", "a draft follows the amateur"


@case("--draft-device")
def _device_of_the_draft(served: Served) -> None:
    assert _named_device(served, "speculative") == "cuda:79"


@case("--stop")
def _stop(raw: Served) -> None:
    for route in ROUTES:
        for stream in (False, True):
            whole = raw.ask(route, stream=stream, stop=[], max_length=20).text
            assert "e" in whole
            assert raw.ask(route, stream=stream, max_length=20).text == whole[: whole.index("e")]


def _templated(served: Served, route: str, **more: Any) -> int:
    return served.ask(route, **more).prompt_tokens


@case("--chat")
def _chat(served: Served) -> None:
    plain = served.ask(INFER, chat=False).prompt_tokens
    assert served.ask(INFER).prompt_tokens > plain
    assert served.ask(CHAT).prompt_tokens == served.ask(INFER).prompt_tokens
    assert served.ask(COMPLETIONS).prompt_tokens == plain, "a completion has no turns"


@case("--no-chat", "--raw")
def _no_chat(raw: Served) -> None:
    assert raw.ask(INFER).prompt_tokens == raw.ask(COMPLETIONS).prompt_tokens
    assert raw.ask(INFER, chat=True).prompt_tokens == raw.ask(CHAT).prompt_tokens, "a chat is a chat"


@case("--system")
def _system(served: Served) -> None:
    asked = {"role": "user", "content": PROMPT}
    for route in (INFER, CHAT):
        key = "messages" if route == CHAT else "prompt"
        own = [{"role": "system", "content": "Be brief."}, asked]
        counts = [
            served.post(route, {key: turns, "details": True} if route == INFER else {key: turns}).json()
            for turns in ([asked], own, [{"role": "system", "content": "x"}, asked])
        ]
        default, same, short = (
            each["prompt_tokens"] if route == INFER else each["usage"]["prompt_tokens"] for each in counts
        )
        assert default == same > short
    assert served.ask(INFER, system="").prompt_tokens < served.ask(INFER).prompt_tokens
    assert served.ask(INFER).prompt_tokens == served.ask(CHAT).prompt_tokens


@case("--template")
def _template(served: Served) -> None:
    for route in (INFER, CHAT):
        merry = served.ask(route).prompt_tokens
        assert served.ask(route, chat_template_kwargs={"mood": ""}).prompt_tokens < merry


@case("--control-tokens", "--no-control-tokens")
def _control(served: Served) -> None:
    for route in ROUTES:
        named, plain = (
            served.ask(route, "a<|endoftext|>b", control_tokens=control).prompt_tokens
            for control in (None, False)
        )
        assert named < plain, route


@case("--decoders")
def _decoders(served: Served) -> None:
    for route, told in served.everywhere(strategy="slow", max_length=1):
        assert told.strategy == "slow", route


def test_every_flag_has_a_case(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["serve", "--help"]
    with pytest.raises(SystemExit):
        make_parser(words).parse_args(words)
    rows = re.findall(r"^ +(-.*?)(?:  |$)", capsys.readouterr().out, re.MULTILINE)
    flags = {flag for row in rows for flag in re.findall(r"--[a-z-]+", row)} - {"--help"}
    assert flags == CASES.keys() | {"--drain-seconds"}, "that one has a test of its own"


@pytest.mark.parametrize("check", dict.fromkeys(CASES.values()), ids=lambda check: check.__name__)
def test_a_flag_has_its_effect(check: Callable[..., None], request: pytest.FixtureRequest) -> None:
    name = next(iter(check.__annotations__))
    check(request.getfixturevalue(name))


def test_the_drain_is_as_long_as_its_flag_says(served: Served) -> None:
    """The last test here: the server ends with it."""
    answers: list[Told] = []
    body = {"strategy": "slow", "max_length": 100}
    thread = threading.Thread(target=lambda: answers.append(served.ask(INFER, **body)))
    thread.start()
    until(lambda: _health(served)["running"] == 1)
    assert isinstance(served.server, Process)
    served.server.send(signal.SIGTERM)
    assert served.server.wait(60) == 143
    thread.join(60)
    assert answers[0].new_tokens < 100
