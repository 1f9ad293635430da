"""Settings: four layers, the source of every value, and one notice for whatever is wrong."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import tomli
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from edge_tui import decoders
from edge_tui.cli.config import template
from edge_tui.config import resources
from edge_tui.config.names import shared_parameters
from edge_tui.config.reader import flatten, read
from edge_tui.config.schema import SCHEMA
from edge_tui.config.settings import Settings, load, user_config


def write(text: str | bytes) -> Path:
    path = user_config()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def leaves(value: Any, prefix: str = "") -> set[str]:
    found: set[str] = set()
    for each in fields(value):
        inner = getattr(value, each.name)
        found |= leaves(inner, f"{prefix}{each.name}.") if is_dataclass(inner) else {f"{prefix}{each.name}"}
    return found


# The packaged file


def test_packaged_file_holds_exactly_the_defaults() -> None:
    settings, notices = load(env={})
    assert settings == Settings()
    assert settings.claims == {}
    assert notices == []


def test_packaged_file_names_every_setting_and_no_other() -> None:
    data = tomli.loads(resources.config_file().read_text())
    tables = {"parameters", "keys", "template"}
    named = {key for key, _ in flatten({k: v for k, v in data.items() if k not in tables})}
    assert named == set(SCHEMA) == leaves(Settings()) - tables - {"claims", "file", "flags"}
    assert tables <= set(data)


def test_the_first_file_names_every_strategy_with_its_own_defaults() -> None:
    lines = template().splitlines()
    tables = tomli.loads("\n".join(re.sub(r"^# (\w+ = )", r"\1", line) for line in lines))["parameters"]
    shared = {name for name, value in tables.items() if not isinstance(value, dict)}
    assert (
        shared
        == set(shared_parameters())
        == set(tomli.loads(resources.config_file().read_text())["parameters"])
    )
    for decoder in decoders.strategies():
        if decoder.name == "auto":
            continue  # its values are the checkpoint's own
        own = {param.name: param for param in decoder.params if param.name not in shared}
        written = tables.get(decoder.name, {})
        assert set(written) == set(own), decoder.name
        assert {name: own[name].parse(value) for name, value in written.items()} == {
            name: param.default for name, param in own.items()
        }


def test_every_key_of_the_packaged_file_has_a_comment() -> None:
    lines = resources.config_file().read_text().splitlines()
    for number, line in enumerate(lines):
        if "=" in line and not line.startswith("#"):
            assert lines[number - 1].startswith("#"), line


# Layers


def test_layers_win_in_order_and_keep_their_source() -> None:
    write('strategy = "greedy"\nmode = "focused"\nmax_length = 10\n\n[models]\nname = "a"\n')
    env = {"EDGE_TUI_MODE": "exploratory", "EDGE_TUI_MAX_LENGTH": "20", "EDGE_TUI_MODELS__AMATEUR": "b"}
    settings, notices = load({"max_length": 30}, env)
    assert notices == []
    assert (settings.strategy, settings.source("strategy")) == ("greedy", "config.toml:1")
    assert (settings.mode, settings.source("mode")) == ("exploratory", "EDGE_TUI_MODE")
    assert (settings.max_length, settings.source("max_length")) == (30, "--max-length")
    assert (settings.models.name, settings.source("models.name")) == ("a", "config.toml:6")
    assert (settings.models.amateur, settings.specs()["expert"].name) == ("b", "a")
    assert (settings.device, settings.source("device")) == ("auto", "default")


@pytest.mark.parametrize(
    ("name", "value", "key", "expected"),
    [
        ("SEED", "7", "seed", 7),
        ("SEED", "auto", "seed", None),
        ("SEED", "-1", "seed", None),
        ("SEED", str(2**63 - 1), "seed", 2**63 - 1),
        ("TEMPLATE__ENABLE_THINKING", "false", "template", {"enable_thinking": False}),
        ("TEMPLATE__EFFORT", '"high"', "template", {"effort": "high"}),
        ("CHAT", "no", "chat", False),
        ("STREAM", "0", "stream", False),
        ("STOP", '["a", "b"]', "stop", ("a", "b")),
        ("STOP", "END", "stop", ("END",)),
        ("QUANTIZATION", "int4", "precision", "4bit"),
        ("QUANTIZATION", "none", "precision", "auto"),
        ("STRATEGY", "top-p", "strategy", "top_p"),
    ],
)
def test_environment_is_text_for_every_type(name: str, value: str, key: str, expected: object) -> None:
    settings, notices = load(env={f"EDGE_TUI_{name}": value})
    assert notices == []
    assert getattr(settings, key) == expected


def test_template_variables_are_laid_on_top_of_each_other_one_by_one() -> None:
    write('[template]\nenable_thinking = true\neffort = "low"\ndoc = {a = [1, 2.5]}\n')
    settings, notices = load({"template.enable_thinking": False}, {"EDGE_TUI_TEMPLATE__EFFORT": '"high"'})
    assert notices == []
    assert settings.template == {"enable_thinking": False, "effort": "high", "doc": {"a": [1, 2.5]}}
    sources = [settings.source(f"template.{name}") for name in settings.template]
    assert sources == ["--template", "EDGE_TUI_TEMPLATE__EFFORT", "config.toml:4"]


def test_config_variable_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("max_length = 9\n")
    settings, notices = load(env={"EDGE_TUI_CONFIG": str(tmp_path / "mine.toml")})
    assert (settings.max_length, notices) == (9, [])
    assert settings.source("max_length") == "mine.toml:1"


def test_own_table_wins_over_common_in_a_file_and_the_session_over_both() -> None:
    write("[parameters]\ntemperature = 0.5\n[parameters.top_p]\ntemperature = 0.6\ntop_p = 0.8\n")
    settings, _ = load(env={})
    assert settings.values("top_p") == {"top_p": 0.8, "temperature": 0.6}
    (claim,) = settings.parameter_claims("top_k").values()
    assert (claim.key, claim.source) == ("parameters.temperature", "config.toml:2")
    settings, _ = load({"parameters.temperature": "0.9"}, {})
    assert settings.values("top_p") == {"top_p": 0.8, "temperature": 0.9}
    assert settings.parameter_claims("top_p")["temperature"].source == "--set"


def test_common_values_of_a_file_leave_auto_to_the_checkpoint() -> None:
    write("[parameters]\ntemperature = 0.5\n")
    assert load(env={})[0].values("auto") == {}
    if any(decoder.name == "auto" for decoder in decoders.strategies()):
        assert load({"parameters.temperature": "0.9"}, {})[0].values("auto") == {"temperature": 0.9}


# What is wrong


@pytest.mark.parametrize(
    ("text", "line", "key", "says"),
    [
        ("strategy = \n", 1, "", "column"),
        ('\n\nstrategi = "greedy"\n', 3, "strategi", '"strategy"'),
        ('[models]\n\nnam = "x"\n', 3, "models.nam", '"models.name"'),
        ("temperature = 0.5\n", 1, "temperature", '"parameters.temperature"'),
        ("max_length = 0\n", 1, "max_length", "from 1 to"),
        ("max_length = 2.5\n", 1, "max_length", "whole number"),
        ('stream = "yes"\n', 1, "stream", "true or false"),
        ("stop = [1]\n", 1, "stop", "list of texts"),
        ('mode = "wild"\n', 1, "mode", "exploratory"),
        ('device = "gpu"\n', 1, "device", "cuda:N"),
        ('seed = "x"\n', 1, "seed", '"auto" or -1'),
        ("seed = -2\n", 1, "seed", "not -2"),
        (f"seed = {2**64}\n", 1, "seed", f"to {2**63 - 1}"),
        ("[template]\nmessages = 3\n", 2, "template.messages", "by edge-tui itself"),
        ("[template]\nx = 1979-05-27\n", 2, "template.x", "a list or a table"),
        ("[template]\nx = nan\n", 2, "template.x", "finite"),
        ('[template]\n"a b" = 1\n', 2, "template.a b", "letters, digits and _"),
        (f"[template]\nx = {'[' * 20}{']' * 20}\n", 2, "template.x", "flatter"),
        (f"[template]\nx = '{'y' * 17_000}'\n", 2, "template.x", "16,384"),
        ("template = 3\n", 1, "template", "[template]"),
        ('strategy = "dice"\n', 1, "strategy", "there are"),
        ('models = "x"\n', 1, "models", "[models]"),
        ("[parameters]\ntemperature = 9\n", 2, "parameters", "from 0 to 5"),
        ("[parameters.top_p]\ntop_q = 1\n", 2, "parameters.top_p.top_q", '"top_p"'),
        ("[parameters.topp]\ntop_p = 1\n", 2, "parameters.topp.top_p", '"top_p"'),
        ("ui = {them = 3}\n", 1, "ui.them", '"ui.theme"'),
    ],
)
def test_bad_content_is_one_notice_with_its_place(text: str, line: int, key: str, says: str) -> None:
    path = write(text)
    settings, notices = load(env={})
    assert settings == Settings()
    assert len(notices) == 1
    assert (notices[0].line, notices[0].key, notices[0].origin) == (line, key, str(path))
    assert says in str(notices[0])
    assert path.read_text() == text


def test_one_bad_key_does_not_cost_the_others() -> None:
    write('mode = "wild"\nmax_length = 12\n')
    settings, notices = load(env={})
    assert (settings.max_length, settings.mode, len(notices)) == (12, "custom", 1)


def test_byte_order_mark_is_harmless() -> None:
    write(b"\xef\xbb\xbfmax_length = 12\n")
    settings, notices = load(env={})
    assert (settings.max_length, notices) == (12, [])


@pytest.mark.parametrize(
    ("content", "line", "says"),
    [(b"mode = 'custom'\nsystem = '\xe9'\n", 2, "UTF-8"), ("mode = 'x'".encode("utf-16"), 0, "UTF-16")],
)
def test_other_encodings_are_named(content: bytes, line: int, says: str) -> None:
    path = write(content)
    settings, notices = load(env={})
    assert settings == Settings()
    assert (notices[0].line, says in notices[0].message) == (line, True)
    assert path.read_bytes() == content


def test_a_folder_in_its_place() -> None:
    user_config().mkdir(parents=True)
    settings, notices = load(env={})
    assert (settings, len(notices)) == (Settings(), 1)
    assert "folder" in notices[0].message


def test_an_unreadable_file() -> None:
    path = user_config()
    path.parent.mkdir(parents=True)
    path.symlink_to(path)  # unreadable for everyone, root included
    settings, notices = load(env={})
    assert (settings, len(notices)) == (Settings(), 1)
    assert "cannot be read" in notices[0].message


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    _, notices = load(env={}, user_file=tmp_path / "none.toml")
    assert "no such file" in str(notices[0])
    assert load(env={})[1] == []


def test_variables_of_ours_that_are_no_settings_are_no_notices() -> None:
    assert load(env={"EDGE_TUI_API_KEY": "k1"})[1] == []


def test_unknown_variables_and_bad_flags_are_notices() -> None:
    _, notices = load({"mode": "wild"}, {"EDGE_TUI_STRATEGI": "greedy"})
    assert [notice.origin for notice in notices] == ["EDGE_TUI_STRATEGI", "--mode"]


@examples(max_examples=25)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_content_stops_the_app(content: bytes) -> None:
    path = write(content)
    settings, notices = load(env={})
    assert isinstance(settings, Settings)
    assert all("\n" not in str(notice) for notice in notices)
    assert path.read_bytes() == content


def test_lines_are_those_of_the_keys_and_not_of_look_alikes(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(
        'system = """\nmode = 1\n[models]\n"""\nstop = [\n  "a = 1",\n]\n"mode" = "custom"\nui.theme = "x"\n'
    )
    document, notices = read(path)
    assert notices == []
    assert document.lines == {"system": 1, "stop": 5, "mode": 8, "ui.theme": 9}
    assert document.line("ui.theme") == 9


def test_specs_name_a_model_for_each_role() -> None:
    settings, _ = load({"models.name": "a", "precision": "int8", "device": "cuda:1", "context": 64}, {})
    specs = settings.specs()
    assert {role: spec.name for role, spec in specs.items()} == {
        "model": "a",
        "expert": "a",
        "amateur": "demo/amateur",
        "draft": "demo/amateur",
    }
    assert {(s.precision, s.device, s.context) for s in specs.values()} == {("int8", "cuda:1", 64)}


@pytest.mark.parametrize(
    ("given", "expert", "amateur", "draft"),
    [
        ({}, "cuda:0", "cuda:0", "cuda:0"),
        ({"models.amateur_device": "cpu"}, "cuda:0", "cpu", "cpu"),
        ({"models.expert_device": "cuda:1", "models.draft_device": "cpu"}, "cuda:1", "cuda:0", "cpu"),
    ],
)
def test_a_role_has_a_device_of_its_own_or_that_of_the_one_it_follows(
    given: dict[str, str], expert: str, amateur: str, draft: str
) -> None:
    settings, notices = load({"device": "cuda:0", **given}, {})
    assert notices == []
    devices = {role: spec.device for role, spec in settings.specs().items()}
    assert devices == {"model": "cuda:0", "expert": expert, "amateur": amateur, "draft": draft}


def test_strategies_of_the_users_folder_take_parameters() -> None:
    folder = user_config().parent / "decoders"
    folder.mkdir(parents=True)
    (folder / "mine.py").write_text(
        "from edge_tui.decoders.base import Filter, Param\n"
        "class Mine(Filter):\n"
        "    name, title, summary = 'mine', 'mine', 'mine'\n"
        "    params = (Param('knob', 1, 0, 2, 'turns'),)\n"
        "    def apply(self, z, p, s, rng):\n"
        "        return z\n"
    )
    write('strategy = "mine"\n[parameters.mine]\nknob = 1.5\n')
    try:
        settings, notices = load(env={})
        assert notices == []
        assert (settings.strategy, settings.values("mine")) == ("mine", {"knob": 1.5})
    finally:
        decoders.load()
