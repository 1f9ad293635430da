"""The Dockerfile and its readers, without building anything."""

from __future__ import annotations

import http.server
import threading
from pathlib import Path

import pytest
import tomli

from edge_tui.cli import health
from tools import check_container as checker

ROOT = Path(__file__).parent.parent
STEPS = checker.parse((ROOT / "Dockerfile").read_text())


def steps(name: str) -> list[str]:
    return [step.words for step in STEPS if step.name == name]


def test_it_ends_as_a_user_with_a_health_check_and_the_entry_point() -> None:
    names = [step.name for step in STEPS]
    assert steps("USER") == ["edge"]
    assert names.index("USER") > max(i for i, name in enumerate(names) if name in ("RUN", "COPY"))
    assert steps("ENTRYPOINT") == ['["edge-tui"]']
    assert "edge_tui.cli.health" in steps("HEALTHCHECK")[0]
    assert steps("ARG")[0] == "BASE=debian:bookworm-slim"


def test_what_it_copies_is_there_and_passes_dockerignore() -> None:
    patterns = (ROOT / ".dockerignore").read_text().split()
    copied = [source for words in steps("COPY") for source in words.split()[:-1]]
    for source in copied:
        assert (ROOT / source).exists()
        inside = source if (ROOT / source).is_file() else f"{source}/x.py"
        assert not checker.ignored(inside, patterns)
    for path in (".git/config", ".venv/bin/python", "tests/cli/test_main.py", "edge_tui/__pycache__/cli.pyc"):
        assert checker.ignored(path, patterns)
    wheel = tomli.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert {*wheel["packages"], *wheel["force-include"]} <= set(copied)


def test_continuations_comments_and_variables_are_read() -> None:
    text = "# a comment\nARG A=1\nRUN one \\\n    # in between\n    && two\nENV X=${A} Y=$A\n"
    assert [(s.name, s.words, s.line) for s in checker.parse(text)] == [
        ("ARG", "A=1", 2),
        ("RUN", "one && two", 3),
        ("ENV", "X=${A} Y=$A", 6),
    ]
    assert checker.expand("a ${A} $B${C}", {"A": "1", "B": "2"}) == "a 1 2"


def test_only_a_debian_base_and_a_new_folder_are_taken(tmp_path: Path) -> None:
    for text, reason in (("FROM alpine", "debian"), ("FROM debian:bookworm", "new folder")):
        with pytest.raises(checker.StepFailed, match=reason):
            list(checker.build(text, checker.Image(tmp_path), {}, ""))


def test_an_unknown_instruction_is_no_success(tmp_path: Path) -> None:
    with pytest.raises(checker.StepFailed, match="ONBUILD"):
        list(checker.build("ONBUILD RUN x", checker.Image(tmp_path / "new"), {}, ""))


@pytest.mark.parametrize(
    ("command", "port"),
    [
        (["edge-tui"], None),
        (["edge-tui", "run", "x"], None),
        (["edge-tui", "serve"], 8000),
        (["python", "edge-tui", "serve", "--port", "81"], 81),
        (["/sbin/docker-init", "--", "edge-tui", "serve", "--port=82"], 82),
        (["edge-tui", "serve", "--port"], 8000),
    ],
)
def test_health_reads_the_port_from_the_command(command: list[str], port: int | None) -> None:
    assert health.port_of(command) == port


@pytest.mark.parametrize(("status", "well"), [(200, True), (503, False)])
def test_health_is_the_answer_of_the_server(
    status: int, well: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/health"
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        first = tmp_path / "cmdline"
        first.write_bytes(f"edge-tui\0serve\0--port\0{server.server_port}\0".encode())
        monkeypatch.setattr(health, "_FIRST", first)
        assert (health.main() == 0) == well
        server.shutdown()
        port = server.server_port
    assert not health.answers(port)
