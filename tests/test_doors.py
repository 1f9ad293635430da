"""Text from outside on its way to a terminal: no command prints a control character that came from it."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_tui import decoders
from edge_tui.cli import main
from edge_tui.config.settings import user_config
from edge_tui.util.safe_stream import SafeStream, write_control
from tests.hostile import ONE_LINE, TEXT, controls, write_files

NAME = TEXT.replace("/", "")
HELP = [
    (*command.split(), "--help")
    for command in (
        "", "run", "serve", "bench", "bench speed", "bench table", "bench quality", "bench compare",
        "bench figures", "doctor", "config", "config show", "config init", "config import", "models",
        "models list", "models look", "models pull", "history", "history list", "history search",
        "history show", "history diff", "history export", "history import", "history delete",
    )
]  # fmt: skip
FLAGS = (
    "--precision", "--device", "--context", "--strategy", "--set", "--mode", "--seed", "--max-new-tokens",
    "--frob",
)  # fmt: skip
REFUSALS = [
    (TEXT,),
    *(("run", "x", flag, TEXT) for flag in FLAGS),
    ("serve", "--set", TEXT),
    ("run", "x", "--set", f"temperature={TEXT}"),
    ("run", "x", "--set", f"{TEXT}=1"),
    ("run", "x", "--n", TEXT),
    ("run", "x", "--json", "--logprobs", TEXT),
    ("run", "-f", TEXT),
    ("run", "x", "--decoders", NAME, "--strategy", NAME),
    ("run", "x", "y", TEXT),
    ("serve", "--host", TEXT),
    ("serve", "--port", TEXT),
    ("serve", "--api-key-file", TEXT),
    ("serve", "--max-rows", TEXT),
    ("bench", TEXT),
    ("bench", "speed", "--json", f"/nowhere/{NAME}/x"),
    ("bench", "speed", "--model", TEXT),
    ("bench", "speed", "--strategies", TEXT),
    ("bench", "compare", TEXT, TEXT),
    ("config",),
    ("config", TEXT),
    ("config", "import", TEXT),
    ("config", TEXT),
    ("models", "list"),
    ("models", "look", TEXT),
    ("models", "pull", TEXT),
    ("models", TEXT),
    ("history", TEXT),
    ("history", "search", TEXT),
    ("history", "show", TEXT),
    ("history", "diff", TEXT, TEXT),
    ("history", "export", "last", "--format", TEXT),
    ("history", "import", TEXT),
    ("history", "delete", TEXT),
    ("doctor", TEXT),
    ("--connect", TEXT),
    ("run", "--connect", TEXT),
    ("--api-key-file", TEXT),
]


@pytest.fixture
def files(home: Path) -> Iterator[None]:
    write_files(user_config().parent)
    yield
    decoders.load()


@pytest.mark.usefixtures("files")
def test_no_command_prints_a_control_character(capsys: pytest.CaptureFixture[str]) -> None:
    silent = []
    for command in (*HELP, *REFUSALS):
        try:
            main.main(command)
        except SystemExit as end:
            if end.code:
                raise AssertionError(command) from end
        output = "".join(capsys.readouterr())
        assert not controls(output), (command, output)
        if not output:
            silent.append(command)
    assert silent == []


@pytest.mark.usefixtures("files")
def test_help_shows_a_strategy_whatever_its_title_holds(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main.main(["run", "--help"])
    assert "  evil: ␛]52;c;" in capsys.readouterr().out


@pytest.mark.usefixtures("files")
def test_a_run_with_hostile_settings_reports_them_safely(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_TUI_SEED", ONE_LINE.replace("\0", ""))
    assert main.main(["run", TEXT, "--strategy", "evil", "--max-new-tokens", "3", "--theme", TEXT]) == 0
    told = capsys.readouterr().err
    assert "EDGE_TUI_SEED" in told
    assert not controls(told)


def test_a_terminal_gets_nothing_that_a_library_prints_to_it() -> None:
    raw = io.BytesIO()
    stream = SafeStream(raw, "utf-8", "replace", line_buffering=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            patch.setattr(warnings, "showwarning", lambda message, *_: print(message, file=sys.stderr))
            warnings.warn(TEXT, stacklevel=1)
        stream.writelines([ONE_LINE, "a\tb\n"])
    assert raw.getvalue().endswith(b"a\tb\n")
    assert not controls(raw.getvalue().decode().replace("\t", ""))
    write_control(stream, "\r\x1b[K")
    assert raw.getvalue().endswith(b"\r\x1b[K")
