"""The wheel, installed where nothing else of this checkout is, and started there."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from contextlib import suppress
from pathlib import Path

import pexpect
import pyte
import pytest

from edge_tui import __version__
from edge_tui.engine.models.architectures import families

CHECKOUT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(folder), str(CHECKOUT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds the wheel; its dependencies are lent from this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    paths = sysconfig.get_paths("venv", vars={"base": str(folder), "platbase": str(folder)})
    site = Path(paths["purelib"])
    # A path line lends packages only: .pth files in there, such as the one to this checkout, are not read.
    (site / "lent.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    command = [sys.executable, "-m", "pip", "--python", str(folder), "install", "--quiet", "--no-deps"]
    command += ["--no-index", "--ignore-installed", str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    return Path(paths["scripts"]) / "python"


def test_holds_the_program_and_its_data_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"edge_tui", f"edge_tui-{__version__}.dist-info"}
    expected = {
        "edge_tui/_data/config.toml",
        "edge_tui/py.typed",
        "edge_tui/tui/app.tcss",
        *(f"edge_tui/_data/themes/{path.name}" for path in (CHECKOUT / "themes").glob("*.toml")),
        *(f"edge_tui/_data/presets/{path.name}" for path in (CHECKOUT / "presets").glob("*.toml")),
        *(f"edge_tui/{path.relative_to(CHECKOUT)}" for path in (CHECKOUT / "decoders").rglob("*.py")),
        *(f"edge_tui/engine/models/families/{name}.toml" for name in families()),
        *(f"edge_tui/demo/{role}/model.safetensors" for role in ("expert", "amateur")),
        *(f"edge_tui/demo/{role}/tokenizer.json" for role in ("expert", "amateur")),
    }
    assert expected <= set(names), expected - set(names)
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def test_finds_everything_where_it_is_installed(python: Path, tmp_path: Path) -> None:
    code = """
import edge_tui
from edge_tui import decoders
from edge_tui.config import resources
from edge_tui.hub.listing import local_models
from edge_tui.config.settings import Settings, load
from pathlib import Path
home = Path(edge_tui.__file__).parents[1]
found = [Path(decoders.__file__), resources.config_file(), resources.themes()]
assert all(path.exists() and path.is_relative_to(home) for path in found), found
assert load()[0] == Settings() and not load()[1]
assert len(list(resources.themes().glob("*.toml"))) == 5
assert {m.name for m in local_models() if m.ready} >= {"demo/expert", "demo/amateur"}
print(home)
print(len(decoders.strategies()))
"""
    done = subprocess.run(
        [str(python), "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment(), timeout=60
    )
    assert done.returncode == 0, done.stderr
    home, count = done.stdout.split()
    assert not Path(home).is_relative_to(CHECKOUT)
    assert int(count) >= 8


def test_it_has_a_command(python: Path, tmp_path: Path) -> None:
    command = [python.with_name("edge-tui"), "--version"]
    version = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert version.stdout.strip() == f"edge-tui {__version__}"


@pytest.mark.proof
def test_command_runs_the_demo_pair(python: Path, tmp_path: Path) -> None:
    run = [
        python.with_name("edge-tui"),
        "run",
        "def fibonacci(n):",
        "--strategy",
        "contrastive",
        "--max-new-tokens",
        "8",
    ]
    done = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path, env=environment(), timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.proof
def test_workbench_starts_and_quits(python: Path, tmp_path: Path) -> None:
    env = {**environment(), "TERM": "xterm-256color", "LANG": "C.UTF-8"}
    child = pexpect.spawn(str(python.with_name("edge-tui")), cwd=tmp_path, env=env, dimensions=(30, 100))
    screen = pyte.Screen(100, 30)
    stream = pyte.ByteStream(screen)
    for _ in range(600):
        with suppress(pexpect.TIMEOUT):
            stream.feed(child.read_nonblocking(65536, timeout=0.1))
        if "top-p" in "\n".join(screen.display) and "ready" in "\n".join(screen.display):
            break
    shown = "\n".join(screen.display)
    assert "top-p" in shown, shown
    assert "demo/expert" in shown, shown
    child.sendcontrol("q")
    child.expect(pexpect.EOF, timeout=20)
    child.close()
    assert child.exitstatus == 0


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
