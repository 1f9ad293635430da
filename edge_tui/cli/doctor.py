"""`edge-tui doctor`: checks this machine and this terminal, and says how to mend what fails.

Torch, Triton and bitsandbytes are tried in a process of their own, so that a hang or crash is a finding.
"""

from __future__ import annotations

import json
import locale
import os
import platform
import re
import shutil
import subprocess
import sys
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Literal

from edge_tui.config.settings import load, user_config
from edge_tui.engine.checkpoints.locate import cache_root, offline
from edge_tui.machine.devices import torch_cuda_version
from edge_tui.machine.nvml import Gpu, visible_devices
from edge_tui.util.formatting import size
from edge_tui.util.json_text import json_line
from edge_tui.util.safe_stream import write_control
from edge_tui.util.sanitise import one_line
from edge_tui.util.user_file import existing_folder, exists

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

Status = Literal["ok", "warning", "error"]
TIMEOUT = 60.0
"""Seconds that importing torch and trying the GPU may take."""
_MARKS = {"ok": "✓", "warning": "!", "error": "✗"}
_COLOURS = {"ok": "32", "warning": "33", "error": "31"}

_GROWING = "{% set n = namespace(s=[]) %}{% for i in x %}{% set n.s = n.s + [x|list] %}{% endfor %}"
"""A chat template that takes more and more memory."""
_TRIAL = """
import json, sys
found = {}
import torch
found["torch"] = torch.__version__
found["built"] = torch.version.cuda
found["gpus"] = torch.cuda.device_count()
if torch.cuda.is_available():
    x = torch.ones(64, 64, device="cuda")
    found["sum"] = float((x @ x).sum())
    found["capability"] = list(torch.cuda.get_device_capability())
for name in ("triton", "bitsandbytes"):
    try:
        found[name] = __import__(name).__version__
    except Exception as error:
        found[name + "_error"] = f"{type(error).__name__}: {error}"[:200]
print("FOUND" + json.dumps(found))
"""


@dataclass(frozen=True, slots=True)
class Check:
    """Holds one finding.

    Attributes:
        name: The thing checked.
        status: Its state.
        found: The facts.
        advice: The remedy, one sentence; "" where none is needed.
    """

    name: str
    status: Status
    found: str
    advice: str = ""


def _check(name: str, found: str, advice: str = "", bad: Status = "warning") -> Check:
    """Makes a finding that is fine unless there is advice."""
    return Check(name, bad if advice else "ok", found, advice)


def run(flags: Mapping[str, Any]) -> int:
    """Prints every check as it is done; returns 1 if one is an error, else 0."""
    worst = 0
    for check in checks():
        if flags.get("json"):
            print(json_line(asdict(check)))
        else:
            coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
            write_control(sys.stdout, check_text(check, colour=coloured) + "\n")
        worst = max(worst, int(check.status == "error"))
    return worst


def check_text(check: Check, colour: bool = False) -> str:
    """Writes a finding in one line, and its advice in another."""
    mark = _MARKS[check.status]
    if colour:
        mark = f"\x1b[{_COLOURS[check.status]}m{mark}\x1b[0m"
    line = f"{mark} {check.name:<13} {one_line(check.found)}"
    return f"{line}\n  {'':<13} → {one_line(check.advice)}" if check.advice else line


def checks() -> Iterator[Check]:
    """Runs every check, the quick ones first."""
    yield _python(sys.version_info[:3])
    yield _config(user_config())
    yield from terminal(os.environ, sys.stdout.isatty(), shutil.get_terminal_size())
    yield _locale(locale.getpreferredencoding(False))
    yield templates()
    yield model_cache(cache_root())
    yield from _driver(os.environ)
    yield from libraries(try_torch())


def _python(version: tuple[int, ...]) -> Check:
    text = f"{'.'.join(map(str, version))} ({platform.machine()}, {platform.system()})"
    return _check("Python", text, "" if version >= (3, 11) else "Install Python 3.11 or newer.", "error")


def _config(path: Path) -> Check:
    _, notices = load()
    if notices:
        return _check("settings", str(notices[0]), "Mend that line; `edge-tui config` shows all values.")
    return _check("settings", f"{path}{'' if exists(path) else ' (not there; the defaults hold)'}")


# The terminal.


def terminal(env: Mapping[str, str], tty: bool, window: os.terminal_size) -> Iterator[Check]:
    """Checks colours, size and clipboard from the environment."""
    from edge_tui.tui.clipboard import support
    from edge_tui.tui.terminal import wants_ascii

    term = env.get("TERM", "")
    if not tty:
        yield _check("terminal", "standard output is none", "Run it in the terminal in question.")
        return
    if term in ("", "dumb", "unknown"):
        advice = "Set TERM, for example to xterm-256color."
        yield _check("terminal", f"TERM is {term or 'not set'}", advice, "error")
        return
    yield _check("terminal", f"{term}{' in tmux' if env.get('TMUX') else ''}")
    yield _colours(env, term)
    cells = f"{window.columns}×{window.lines}"
    if window.columns < 60 or window.lines < 16:
        yield _check("size", cells, "Enlarge it to 60×16 at least, 80×24 or more.", "error")
    else:
        fits = window.columns >= 80 and window.lines >= 24
        yield _check("size", cells, "" if fits else "From 80×24 on, everything fits.")
    if wants_ascii(env):
        yield _check("lines", f"{term} may lack them", "Bars and borders are drawn in ASCII (ui.ascii).")
    clipboard = support(env)
    states = {"yes": "OSC 52 is taken", "no": "OSC 52 does not get through", "perhaps": "OSC 52 may be taken"}
    advice = clipboard.advice if clipboard.works != "yes" else ""
    yield Check("clipboard", "ok" if clipboard.works == "yes" else "warning", states[clipboard.works], advice)


def _colours(env: Mapping[str, str], term: str) -> Check:
    if "NO_COLOR" in env:
        return _check("colours", "none, as NO_COLOR asks; likelihood is shown by other means")
    if env.get("COLORTERM", "").lower() in ("truecolor", "24bit") or "direct" in term:
        return _check("colours", "16 million")
    if "256" in term or term.startswith(("xterm-", "alacritty", "foot")):
        advice = "" if env.get("TMUX") else "With COLORTERM=truecolor shades are finer."
        return Check("colours", "ok", "256", advice)
    return _check("colours", "16 or fewer", "Set TERM=xterm-256color, or choose the theme ansi-16.")


def _locale(encoding: str) -> Check:
    if "utf" in encoding.lower():
        return _check("locale", encoding)
    return _check("locale", f"{encoding}, but UTF-8 is written all the same", "Set LANG, e.g. to C.UTF-8.")


# Disk.


def templates() -> Check:
    """Tries the process that renders chat templates, and its memory limit."""
    from edge_tui.engine.text.template_process import MEMORY, SECONDS, RenderError, TemplateProcess

    limits = f"{SECONDS:g} s and {MEMORY / 1e6:.0f} MB"
    process = TemplateProcess()
    try:
        process.render(_GROWING, {"x": "a" * 9999})
    except RenderError as error:
        if error.code in ("memory", "time"):
            return _check("chat templates", f"rendered in a process of their own, within {limits}")
        reason = error.detail or error.code
    else:
        reason = "the system does not hold its limits"
    finally:
        process.close()
    return _check("chat templates", f"their process does not work: {reason}", "Complete raw text (`--raw`).")


def model_cache(root: Path, room: float = 20e9) -> Check:
    """Checks the cache's folder; with less disk than `room`, a download of a middling model fails."""
    folder = existing_folder(root)
    if not os.access(folder, os.W_OK):
        return _check("model cache", f"{root} cannot be written to", "Set HF_HUB_CACHE to a folder that can.")
    free = shutil.disk_usage(folder).free
    text = f"{root}, {size(free)} free{', downloads forbidden (HF_HUB_OFFLINE)' if offline() else ''}"
    advice = "Make room, or set HF_HUB_CACHE to another disk."
    return _check("model cache", text, advice if free < room else "")


# The GPU.


def _driver(env: Mapping[str, str]) -> Iterator[Check]:
    """Checks the GPU, its memory and the driver over NVML."""
    try:
        with closing(Gpu("cuda:0")) as gpu:
            sample, driver, cuda, processes = gpu.sample(), gpu.driver(), gpu.cuda(), gpu.processes()
    except OSError as error:
        if visible_devices(env) == []:
            yield _check("GPU", "hidden by CUDA_VISIBLE_DEVICES", "Unset it to decode on the GPU.")
        else:
            yield _check("GPU", f"none: {error}", _NO_GPU if torch_cuda_version() else "")
        return
    yield _check("NVML", f"driver {driver or 'n/a'}, CUDA up to {cuda or 'n/a'}")
    memory, crowded = "memory n/a", False
    if sample.free is not None and sample.total is not None:
        memory = f"{size(sample.free)} of {size(sample.total)} free"
        crowded = sample.free < 0.2 * sample.total
    others = ", ".join(f"{each.name or 'process'} {each.pid}" for each in processes[:4])
    advice = f"Other processes hold the rest: {others}." if crowded and processes else ""
    yield Check("GPU", "warning" if crowded else "ok", f"{sample.name or 'cuda:0'}, {memory}", advice)
    yield torch_build(torch_cuda_version(), cuda)


_NO_GPU = "The CPU decodes; for the GPU, install NVIDIA's driver and see that nvidia-smi works."


def torch_build(built: str, driver: str) -> Check:
    """Compares the CUDA that torch was built for with the driver's."""
    if not built:
        found, advice = "for the CPU alone, but there is a GPU", "Install a CUDA build: see pytorch.org."
        return _check("torch build", found, advice)
    if driver and int(built.partition(".")[0]) > int(driver.partition(".")[0]):
        found = f"for CUDA {built}, but the driver knows {driver} at most"
        advice = "Update the driver, or install a torch for an older CUDA."
        return _check("torch build", found, advice, "error")
    return _check("torch build", f"for CUDA {built}, the driver knows {driver or 'n/a'}")


# Libraries.


def try_torch(program: str = _TRIAL, timeout: float = TIMEOUT) -> dict[str, Any] | str:
    """Multiplies on the GPU in a process of its own; returns its facts, or the reason that there are none."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        return f"it did not come back within {timeout:.0f} s"
    match = re.search(r"^FOUND(\{.*\})$", done.stdout, re.MULTILINE)
    if match is not None:
        return dict(json.loads(match[1]))
    lines = done.stderr.strip().splitlines()
    return lines[-1][:200] if lines else f"it ended with status {done.returncode}"


def libraries(facts: dict[str, Any] | str) -> Iterator[Check]:
    """Checks the libraries by the facts of `try_torch`."""
    if isinstance(facts, str):
        yield _check(
            "torch", f"cannot be used: {facts}", "Install it anew: make clean, then make run.", "error"
        )
        return
    gpus = facts["gpus"]
    if gpus and facts.get("sum") != 64.0**3:
        found = f"{facts['torch']} computes wrongly on the GPU"
        yield _check("torch", found, "Reset or replace that GPU.", "error")
    else:
        where = f"{gpus} GPU{'s' * (gpus != 1)}" if gpus else "the CPU"
        yield _check("torch", f"{facts['torch']}, computes on {where}")
    try:
        yield _check("transformers", version("transformers"))
    except PackageNotFoundError:
        advice = "Install it: pip install transformers."
        yield _check("transformers", "not installed", advice, "error")
    without = "not here" if gpus else "not here: no GPU needs it"
    slow = gpus and "triton" not in facts
    advice = "Steps are slower without it: install triton." if slow else ""
    yield _check("Triton", facts.get("triton", without), advice)
    found = facts.get("bitsandbytes") or facts.get("bitsandbytes_error", "not installed")
    needs = "int8 and 4bit need it: pip install bitsandbytes."
    yield _check("bitsandbytes", found, "" if "bitsandbytes" in facts else needs)
