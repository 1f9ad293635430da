"""`edge-tui run`: what it promises beyond streaming text."""

from __future__ import annotations

import io
import json
import os
import re
import resource
import signal
import subprocess
import sys

import pytest

from edge_tui import decoders
from edge_tui.cli.main import main
from edge_tui.cli.run_output import JsonWriter
from tests.engine.random_checkpoints import make_checkpoint

COMMAND = [sys.executable, "-m", "edge_tui"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_checkpoint(tmp_path_factory.mktemp("models") / "tiny", arch="qwen2", seed=3))


def run(capfdbinary, *args: str) -> tuple[int, str, str]:
    """Runs the command in this process."""
    status = main(["run", *args])
    out, error = capfdbinary.readouterr()
    return status, out.decode(), error.decode()


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


SHORT = ("Hello", "--no-chat", "-q", "--max-new-tokens", "6", "--seed", "4")


def test_a_run_begins_with_torchs_libraries(capfdbinary, monkeypatch) -> None:
    begun: list[str] = []
    monkeypatch.setattr("edge_tui.cli.run.begin_libraries", begun.append)
    assert run(capfdbinary, "Hello", "--logprobs", "1", "--device", "cuda:0")[0] == 2
    assert begun == ["cuda:0"]


def test_samples_are_one_batch_of_which_each_has_a_seed_of_its_own(model, capfdbinary) -> None:
    flags = (*SHORT, "--model", model, "--strategy", "top_k", "--set", "temperature=2")
    status, out, _ = run(capfdbinary, *flags, "--n", "3", "--json")
    *tokens, summary = lines(out)
    assert status == 0
    assert {token["row"] for token in tokens} == {0, 1, 2}
    assert len(summary["texts"]) == len(summary["finish_reasons"]) == 3
    assert len(set(summary["texts"])) > 1
    assert summary["text"] == summary["texts"][0]
    for row, text in enumerate(summary["texts"]):
        written = "".join(token["text"] for token in tokens if token["row"] == row)
        assert text.rstrip("\ufffd") == written.rstrip("\ufffd")
    assert summary["seeds"] == [4, 5, 6]
    alone = [run(capfdbinary, *flags, "--seed", str(seed))[1] for seed in summary["seeds"]]
    assert alone == summary["texts"]
    loud = [flag for flag in flags if flag != "-q"]
    _, plain, told = run(capfdbinary, *loud, "--n", "3")
    assert told.endswith(" · seed 4 to 6\n")
    joined = [f"{text}{'' if text.endswith(chr(10)) else chr(10)}" for text in summary["texts"]]
    assert plain.rstrip("\n") == "---\n".join(joined).rstrip("\n")


def test_a_search_gives_its_best_answers(model, capfdbinary) -> None:
    flags = (*SHORT, "--model", model, "--strategy", "beam")
    _, out, _ = run(capfdbinary, *flags, "--n", "3", "--json")
    summary = lines(out)[-1]
    assert len(summary["texts"]) == 3
    assert len(summary["finish_reasons"]) == 3
    assert "seeds" not in summary
    assert summary["scores"] == sorted(summary["scores"], reverse=True)
    _, best, _ = run(capfdbinary, *flags)
    assert best == summary["texts"][0]
    status, _, error = run(capfdbinary, *flags, "--n", "5")
    assert status == 2
    assert "beam keeps 4" in error
    status, _, error = run(capfdbinary, *SHORT, "--strategy", "contrastive_search", "--n", "2")
    assert (status, error) == (
        2,
        "edge-tui: --n is 2, but contrastive_search gives one answer: leave it out.\n",
    )


def test_a_chain_stands_around_the_strategy_of_a_flag_or_of_the_settings(
    model, capfdbinary, monkeypatch
) -> None:
    flags = (*SHORT, "--model", model, "--json", "--chain", "min_p+top_k", "--set", "top_k=3")
    summary = lines(run(capfdbinary, *flags, "--strategy", "beam")[1])[-1]
    assert summary["strategy"] == "beam:min_p+top_k"
    assert summary["parameters"]["top_k"]["value"] == 3
    monkeypatch.setenv("EDGE_TUI_STRATEGY", "typical+temperature")
    assert lines(run(capfdbinary, *flags)[1])[-1]["strategy"] == "typical+temperature+min_p+top_k"
    status, _, error = run(capfdbinary, *SHORT, "--chain", "min_p+")
    assert status == 2
    assert error.startswith("edge-tui: --strategy: The chain ")


def test_logprobs_tell_the_likeliest_tokens(model, capfdbinary) -> None:
    flags = (*SHORT, "--model", model, "--strategy", "greedy", "--json")
    *tokens, summary = lines(run(capfdbinary, *flags, "--logprobs", "3")[1])
    for token in tokens:
        assert len(token["top"]) == 3
        assert token["top"][0]["id"] == token["id"]
        assert token["top"][0]["logp"] == pytest.approx(token["logp"], abs=1e-5)
        assert [t["logp"] for t in token["top"]] == sorted((t["logp"] for t in token["top"]), reverse=True)
        assert [t["id"] for t in token["final_top"]] == [token["id"]]
    assert "top" not in lines(run(capfdbinary, *flags)[1])[0]
    assert summary["finish_reason"] in ("length", "eos")


def test_the_summary_holds_what_is_needed_to_repeat_the_run(model, capfdbinary) -> None:
    flags = (*SHORT, "--model", model, "--device", "cpu")
    flags += ("--set", "top_p=0.5", "--stop", "zzz", "--json")
    summary = lines(run(capfdbinary, *flags)[1])[-1]
    assert summary["settings"]["model"] == model
    assert summary["settings"]["stop"] == ["zzz"]
    assert summary["settings"]["chat"] is False
    assert summary["models"]["model"] == {
        "name": model,
        "precision": "float32",
        "device": "cpu",
        "tier": "flat",
    }
    assert summary["parameters"]["top_p"] == {"value": 0.5, "source": "--set"}
    assert (summary["seed"], summary["strategy"], summary["prompt_tokens"] > 0) == (4, "top_p", True)
    for name in ("tokens_per_second", "time_to_first_token", "new_tokens", "finish_reason"):
        assert name in summary


def test_a_seed_below_zero_draws_and_a_nucleus_of_nothing_is_greedy(model, capfdbinary) -> None:
    flags = ("Hello", "--no-chat", "--max-new-tokens", "6", "--model", model, "--strategy")
    summaries = [lines(run(capfdbinary, *flags, "top_p", "--seed", "-1", "--json")[1])[-1] for _ in range(2)]
    assert summaries[0]["seed"] != summaries[1]["seed"]
    greedy = run(capfdbinary, *flags, "greedy", "-q")
    for cold in ("top_p=0", "temperature=0"):
        assert run(capfdbinary, *flags, "top_p", "--set", cold, "--seed", "9", "-q") == greedy


def test_raw_and_no_stream_change_nothing_but_what_they_say(model, capfdbinary) -> None:
    plain = run(capfdbinary, *SHORT, "--model", model)
    raw = tuple(flag.replace("--no-chat", "--raw") for flag in SHORT)
    assert run(capfdbinary, *raw, "--model", model) == plain
    assert run(capfdbinary, *SHORT, "--model", model, "--no-stream") == plain


def test_a_system_prompt_without_a_place_is_said_once(model, capfdbinary) -> None:
    flags = tuple(flag for flag in SHORT if flag not in ("-q", "--quiet"))
    _, _, error = run(capfdbinary, *flags, "--model", model, "--system", "Be brief.", "--strategy", "greedy")
    assert error.count("it is left out") == 1
    assert error.count("No chat template") == 1


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--n", "0"), "from 1 to"),
        (("--n", "many"), "from 1 to"),
        (("--logprobs", "3"), "--json"),
        (("--logprobs", "21", "--json"), "at most 20"),
    ],
)
def test_what_cannot_be_is_one_line(flags, says, capfdbinary) -> None:
    status, out, error = run(capfdbinary, "x", *flags)
    assert (status, out) == (2, "")
    assert says in error
    assert error.count("\n") == 1


def test_help_tells_every_parameter_of_every_strategy(capsys) -> None:
    with pytest.raises(SystemExit) as left:
        main(["run", "--help"])
    assert left.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for decoder in decoders.strategies():
        assert f"{decoder.name}: {decoder.summary}" in text
        for param in decoder.params:
            assert param.name in text
            assert param.help in text
            assert param.limits() in text


@pytest.mark.parametrize("place", ["flag", "config"])
def test_help_tells_of_strategies_of_ones_own(place, tmp_path, capsys) -> None:
    own = "from edge_tui.decoders.greedy import Greedy as _G\n"
    own += "class Own(_G):\n    name, summary = 'own', 'Mine.'\n"
    (tmp_path / "own.py").write_text(own)
    config = tmp_path / "config.toml"
    config.write_text(f"decoder_folders = ['{tmp_path}']\n")
    flags = {"flag": ("--decoders", str(tmp_path)), "config": ("--config", str(config))}[place]
    with pytest.raises(SystemExit):
        main(["run", *flags, "--help"])
    decoders.load()
    assert "own: Mine." in capsys.readouterr().out


@pytest.mark.proof
@pytest.mark.parametrize("strategy", ["greedy", "contrastive"])
def test_the_demo_pairs_first_words_cost_hardly_more_than_importing_torch(strategy) -> None:
    words = [*COMMAND, "run", "def fibonacci(n):", "--strategy", strategy, "--max-new-tokens", "4", "-q"]
    ratio = processor_seconds(words) / processor_seconds([sys.executable, "-c", "import torch"])
    print(f"{strategy}: {ratio:.2f}")
    assert ratio < 2


def processor_seconds(order: list[str]) -> float:
    """Time of the processor that a command takes, the least of three."""
    taken = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(order, stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(taken)


def test_ctrl_c_hands_over_what_there_is(model, capfdbinary, monkeypatch) -> None:
    written = JsonWriter.tokens

    def tokens(self, batch) -> None:
        written(self, batch)
        if batch.step[0] == 0:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(JsonWriter, "tokens", tokens)
    flags = ("Hello", "--no-chat", "--model", model, "--max-new-tokens", "1900", "--json", "--seed", "1")
    status, out, error = run(capfdbinary, *flags, "--strategy", "top_k")
    *tokens_written, summary = lines(out)
    assert status == 130
    assert (summary["finish_reason"], summary["new_tokens"]) == ("cancelled", len(tokens_written))
    assert "Traceback" not in error


def test_a_terminal_sees_a_bar_while_the_model_loads(monkeypatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    seen = Terminal()
    monkeypatch.setattr(sys, "stderr", seen)
    assert main(["run", "x = ", "--model", "demo/expert", "--max-new-tokens", "3"]) == 0
    text = seen.getvalue()
    assert re.search("loading demo/expert ▕█* *[▏▎▍▌▋▊▉]? *▏ +[0-9]+%", text)
    bar, _, rest = re.split("\r( {30,})\r", text, maxsplit=1)
    assert "loading" in bar
    assert "loading" not in rest
    assert "3 tokens" in rest


def test_a_template_that_breaks_a_limit_is_one_sentence(tmp_path, capfdbinary) -> None:
    folder = make_checkpoint(tmp_path / "chatty", chat_template=True)
    (folder / "chat_template.jinja").write_text("{{ 'a' * 9999999999 }}")
    flags = ("Hello", "-q", "--model", str(folder), "--max-new-tokens", "2", "--strategy", "greedy")
    status, out, error = run(capfdbinary, *flags)
    assert (status, out) == (1, "")
    assert error.count("\n") == 1
    assert "chatty cannot render this conversation (it takes more than 256 MB of memory); " in error
    assert run(capfdbinary, *flags, "--no-chat")[0] == 0


def test_a_run_that_is_not_kept_says_so(model, capfdbinary, home) -> None:
    (home / "data").write_text("a file where the folder should be")
    order = ("--model", model, "--max-new-tokens", "2", "x")
    status, _, said = run(capfdbinary, *order)
    assert status == 0
    assert "is not kept" in said.splitlines()[-1]
    assert run(capfdbinary, "--quiet", *order)[2] == ""
    assert "is not kept" not in run(capfdbinary, "--no-history", *order)[2]
