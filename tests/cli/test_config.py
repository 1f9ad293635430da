"""`edge-tui config`."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import tomli

from edge_tui.cli.config import show, template, translate
from edge_tui.cli.main import main
from edge_tui.config.schema import SCHEMA
from edge_tui.config.settings import load, user_config

OLD = """
models:
  - name: listed/elsewhere
model_name: Qwen/Qwen2.5-0.5B
expert_model: Qwen/Qwen2.5-7B
quantization: int4
decoding:
  method: beam_search
  num_beams: 8
  temperature: 0.7
contrastive:
  alpha: 0.2
  head_parameter: 3
mode: exploratory
max_length: 100
stream: yes
stop: ["###"]
ui: {theme: light, colour: 3}
top_p: 1.4
device: cuda
seed: auto
"""


Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs `edge-tui config` in this process."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        status = main(["config", *words])
        return subprocess.CompletedProcess(words, status, *capsys.readouterr())

    return run


def test_a_chain_has_a_table_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(
        'strategy = "beam:min_p"\n[parameters]\nmin_p = 0.3\ntop_k_2 = 7\n'
        '[parameters."beam:min_p"]\nmin_p = 0.2\n[parameters."top_k+top_k#2"]\ntop_k = 9\n'
    )
    settings, notices = load({}, {}, file)
    assert [(notice.key, notice.message[:25]) for notice in notices] == [
        ("parameters.top_k_2", "unknown parameter; did yo")
    ]
    shown = tomli.loads("\n".join(show(settings)))
    assert shown["strategy"] == "beam:min_p"
    assert shown["parameters"]["beam:min_p"]["min_p"] == 0.2
    assert shown["parameters"]["top_k+top_k#2"] == {"top_k": 9, "top_k_2": 50}
    numbered = load({"strategy": "top_k+top_k#2", "parameters.top_k_2": 3}, {})[0]
    assert numbered.values("top_k+top_k#2") == {"top_k_2": 3}
    own = file.with_name("own.toml")
    own.write_text('[parameters."min_p+foo"]\nmin_p = 0.2\n')
    assert "There is no stage 'foo'" in str(load({}, {}, own)[1][0])


def test_what_is_shown_is_toml_with_every_key_and_its_source() -> None:
    settings, _ = load({"strategy": "beam"}, {"EDGE_TUI_UI__ASCII": "true", "EDGE_TUI_SEED": "7"})
    text = "\n".join(show(settings))
    values = tomli.loads(text)
    for key in SCHEMA:
        table, _, name = key.rpartition(".")
        assert name in (values[table] if table else values), key
    assert (values["strategy"], values["ui"]["ascii"], values["seed"]) == ("beam", True, 7)
    lines = {line.partition(" = ")[0]: line.partition("  # ")[2].strip() for line in text.splitlines()}
    assert lines["strategy"] == "--strategy"
    assert lines["ascii"] == "EDGE_TUI_UI__ASCII"
    assert lines["mode"] == "default"
    assert values["parameters"]["beam"]["num_beams"] == 4
    # Read back, it says the same.
    again, notices = load(env={}, user_file=_written(text))
    assert notices == []
    assert [again.value_of(key) for key in SCHEMA] == [settings.value_of(key) for key in SCHEMA]


def _written(text: str) -> Path:
    path = user_config()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_bad_keys_are_named_and_count_as_a_failure(command: Command) -> None:
    path = _written("[ui]\n  mouse = 3\n[parameters]\ntemperature = 0.5\n")
    done = command()
    assert (done.returncode, done.stderr) == (
        1,
        f"edge-tui: {path}:2:3: ui.mouse: must be true or false, not 3.\n",
    )
    assert "mouse = true" in done.stdout
    _written('mode = "exploratory"\n[parameters]\ntemperature = 0.5\n')
    done = command()
    assert (done.returncode, done.stderr) == (0, "")
    assert "mode exploratory, config.toml:1; config.toml:3's parameters.temperature = 0.5 lost" in done.stdout


def test_init_writes_once_and_changes_nothing(command: Command) -> None:
    done = command("init")
    assert done.returncode == 0, done.stderr
    assert user_config().read_text() == template()
    fresh, notices = load(env={})
    assert notices == []
    assert fresh == load(env={}, user_file=_written(""))[0]
    user_config().write_text('mode = "focused"\n')
    again = command("init")
    assert again.returncode == 1
    assert "stays as it is" in again.stderr
    assert user_config().read_text() == 'mode = "focused"\n'
    assert 'mode = "focused"' in command().stdout
    assert "# config.toml:1" in command("show").stdout


def test_an_old_yaml_file_is_taken_over(command: Command, tmp_path: Path) -> None:
    _written('# mine\nmode = "focused"\n')
    (tmp_path / "old.yaml").write_text(OLD)
    done = command("import", str(tmp_path / "old.yaml"))
    assert done.returncode == 0, done.stderr
    settings, notices = load(env={})
    assert notices == []
    assert (settings.models.name, settings.models.expert) == ("Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-7B")
    assert (settings.precision, settings.strategy, settings.max_length) == ("4bit", "beam", 100)
    assert (settings.ui.theme, settings.stop, settings.device) == ("light", ("###",), "cuda")
    assert (settings.values("beam")["num_beams"], settings.values("top_k")["temperature"]) == (8, 0.7)
    assert settings.parameters["contrastive"] == {"alpha": 0.2, "head_parameter": 3}
    assert settings.mode == "focused"
    said = done.stderr
    assert "It is not alpha." in said
    assert "ui.colour has no counterpart" in said
    assert "top_p is 1.4, but must be" in said
    assert 'mode stays as your file has it, "focused", not "exploratory".' in said
    assert user_config().read_text().startswith("# mine\n")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a: [", "old.yaml:1"),
        ("- 1", "holds no settings"),
        (None, "cannot be read"),
        ("a: !!python/x 1", "not valid"),
    ],
)
def test_what_is_no_old_file_is_a_sentence(
    command: Command, tmp_path: Path, content: str | None, said: str
) -> None:
    path = tmp_path / "old.yaml"
    if content is not None:
        path.write_text(content)
    done = command("import", str(path))
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not user_config().exists()


def test_every_name_of_ours_is_its_own_translation() -> None:
    values, said = translate(
        {"strategy": "greedy", "ui": {"theme": "x"}, "models": {"name": "a", "amateur": "b"}}
    )
    assert said == []
    assert values == {"strategy": "greedy", "ui.theme": "x", "models.name": "a", "models.amateur": "b"}
    assert translate({"temp": 0.5, "beam_width": 3})[0] == {
        "parameters.temperature": 0.5,
        "parameters.beam.num_beams": 3,
    }
