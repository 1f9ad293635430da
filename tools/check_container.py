"""Executes the Dockerfile's steps one by one in a clean root, where no container engine runs.

    python tools/check_container.py ROOT [--bind DIR …] [--build-arg NAME=VALUE …]

`debootstrap` makes a minimal Debian of the suite that `FROM debian:SUITE…`
names in ROOT, which must not exist; each `RUN` is a shell inside it (`unshare`, `chroot`; its environment is
`ENV` and `ARG` and no more); each `COPY` copies from this checkout what `.dockerignore` lets through. Then,
as the Dockerfile's user, with its entry point as the first process of a namespace of its own: `--version`,
`run` with a prompt, the workbench in a pseudo-terminal, and `serve` until the health check passes and TERM
ends it.

It does not check layers, caching, the image's size, a base other than Debian (the CUDA one), and GPUs.
It needs root, debootstrap, and whatever network the steps need; `--bind` shows a folder of this machine
inside (a local package index, a certificate), and variables named PIP_* are passed on.
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

CONTEXT = Path(__file__).parent.parent
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_SUITE = re.compile(r"debian:(\w+?)(?:-slim)?")


class StepFailed(Exception):
    """Signals a step that ended with an error; one sentence."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """Holds one line of a Dockerfile, continuations joined."""

    name: str
    words: str
    line: int


def parse(text: str) -> list[Instruction]:
    """Reads a Dockerfile's instructions; comments and blank lines are left out."""
    found: list[Instruction] = []
    parts: list[str] = []
    first = 0
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        first = first if parts else number
        parts.append(line.removesuffix("\\").strip())
        if not line.endswith("\\"):
            name, _, words = " ".join(parts).partition(" ")
            found.append(Instruction(name.upper(), words.strip(), first))
            parts = []
    return found


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replaces `$NAME` and `${NAME}`; an unknown name is empty."""
    return _VARIABLE.sub(lambda found: variables.get(found[1] or found[2], ""), text)


def ignored(path: str, patterns: Sequence[str]) -> bool:
    """Tells whether .dockerignore leaves a path of the context out; the last pattern that fits decides."""
    result = False
    for pattern in patterns:
        glob = pattern.removeprefix("!").strip("/")
        parents = [path, *(str(parent) for parent in Path(path).parents if str(parent) != ".")]
        tail = glob.removeprefix("**/")
        if any(glob == "**" or fnmatch(part, glob) or fnmatch(Path(part).name, tail) for part in parents):
            result = not pattern.startswith("!")
    return result


@dataclass
class Image:
    """Holds a root and what the instructions so far have set.

    Attributes:
        root: The folder.
        binds: Folders of this machine that are seen inside, read-only.
        arguments: Build arguments.
        environment: From ENV.
        user, folder: From USER and WORKDIR.
        entry, health: From ENTRYPOINT and HEALTHCHECK.
    """

    root: Path
    binds: tuple[Path, ...] = ()
    arguments: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(
        default_factory=lambda: {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    )
    user: str = "root"
    folder: str = "/"
    entry: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)

    def command(self, words: Sequence[str], user: str = "root") -> list[str]:
        """Makes a command that runs another one inside, as the first process of its own namespace."""
        root = shlex.quote(str(self.root))
        mounts = [f"mount -t proc proc {root}/proc", f"mount --rbind /dev {root}/dev"]
        for bind in self.binds:
            mounts += [f"mkdir -p {root}{bind}", f"mount --bind -o ro {bind} {root}{bind}"]
        switch = f"chroot --userspec={user}:{user} {root}" if user != "root" else f"chroot {root}"
        inside = f"cd {shlex.quote(self.folder)} && exec {shlex.join(words)}"
        script = " && ".join([*mounts, f"exec {switch} /bin/sh -c {shlex.quote(inside)}"])
        return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "/bin/sh", "-c", script]

    def variables(self, *, building: bool) -> dict[str, str]:
        """Makes the environment inside."""
        home = "/root" if self.user == "root" else f"/home/{self.user}"
        pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        return {"HOME": home, **self.environment, **({**pip, **self.arguments} if building else {})}


def build(text: str, image: Image, arguments: Mapping[str, str], mirror: str) -> Iterator[str]:
    """Executes the instructions and yields a line about each.

    Raises:
        StepFailed: one did not work, or is not known here.
    """
    before: dict[str, str] = {}
    based = False
    patterns = (CONTEXT / ".dockerignore").read_text(encoding="utf-8").split()
    for step in parse(text):
        began = time.monotonic()
        known = {**image.arguments, **image.environment} if based else before
        if step.name == "ARG":
            name, _, default = step.words.partition("=")
            value = arguments.get(name, before.get(name, expand(default, known)))
            (image.arguments if based else before)[name] = value
        elif step.name == "FROM":
            _bootstrap(expand(step.words, known), image.root, mirror)
            based = True
        elif step.name == "ENV":
            for pair in shlex.split(step.words):
                name, _, value = pair.partition("=")
                image.environment[name] = expand(value, known)
        elif step.name == "RUN":
            _run(image, ["/bin/sh", "-c", step.words], image.user, f"line {step.line}")
        elif step.name == "COPY":
            _copy(shlex.split(expand(step.words, known)), image.root, patterns)
        elif step.name == "USER":
            image.user = step.words
        elif step.name == "WORKDIR":
            image.folder = expand(step.words, known)
            (image.root / image.folder.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif step.name == "ENTRYPOINT":
            image.entry = json.loads(step.words)
        elif step.name == "HEALTHCHECK":
            image.health = json.loads(step.words.partition("CMD")[2])
        elif step.name != "EXPOSE":
            raise StepFailed(f"line {step.line}: {step.name} is not known here.")
        yield f"line {step.line:<3} {step.name:<11} {time.monotonic() - began:7.1f} s  {step.words[:70]}"


def _bootstrap(base: str, root: Path, mirror: str) -> None:
    found = _SUITE.fullmatch(base)
    if found is None:
        raise StepFailed(f"Only a debian base can be made here, not {base}.")
    if root.exists():
        raise StepFailed(f"{root} exists; a clean root needs a new folder.")
    order = ["debootstrap", "--variant=minbase", found[1], str(root), *([mirror] if mirror else [])]
    done = subprocess.run(order, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StepFailed(f"debootstrap failed: {(done.stderr or done.stdout).strip()[-300:]}")
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")


def _run(image: Image, words: Sequence[str], user: str, what: str) -> str:
    done = subprocess.run(
        image.command(words, user),
        env=image.variables(building=user == "root"),
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        output = f"{done.stdout[-800:]}\n{done.stderr[-800:]}".strip()
        raise StepFailed(f"{what} ended with {done.returncode}:\n{output}")
    return done.stdout


def _copy(words: Sequence[str], root: Path, patterns: Sequence[str]) -> None:
    *sources, target = words
    into = root / target.lstrip("/")
    for source in sources:
        here = CONTEXT / source
        files = [here] if here.is_file() else [path for path in sorted(here.rglob("*")) if path.is_file()]
        for path in files:
            name = path.relative_to(CONTEXT).as_posix()
            if ignored(name, patterns):
                continue
            if here.is_dir():
                goal = into / path.relative_to(here)
            else:
                goal = into / path.name if target.endswith("/") else into
            goal.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, goal)


def use(image: Image) -> Iterator[str]:
    """Runs the image's commands as its user and yields a line about each.

    Raises:
        StepFailed: something did not work.
    """
    version = _run(image, [*image.entry, "--version"], image.user, "--version").strip()
    yield f"--version: {version}"
    who = _run(image, ["id", "-un"], image.user, "id").strip()
    if who == "root" or who != image.user:
        raise StepFailed(f"The process runs as {who}.")
    yield f"it runs as {who}"
    order = [*image.entry, "run", "def fibonacci(n):", "--max-new-tokens", "12", "--seed", "1", "-q"]
    text = _run(image, order, image.user, "run")
    if not text.strip():
        raise StepFailed("run wrote nothing.")
    yield f"run: {text!r}"
    yield f"the workbench: first frame after {_workbench(image):.1f} s, left with ctrl+q"
    yield f"serve: healthy after {_serve(image):.1f} s, ended by TERM"


def _workbench(image: Image) -> float:
    """Measures the seconds to the first frame."""
    began = time.monotonic()
    child, master = pty.fork()
    if child == 0:
        order = image.command(image.entry, image.user)
        os.execvpe(order[0], order, {**image.variables(building=False), "COLUMNS": "120", "LINES": "40"})
    seen, first = b"", 0.0
    try:
        while time.monotonic() - began < 60:
            if not select.select([master], [], [], 0.1)[0]:
                continue
            try:
                seen += os.read(master, 65536)
            except OSError:
                break
            if not first and b"strategy" in seen:
                first = time.monotonic() - began
                os.write(master, b"\x11")
    finally:
        _, status = os.waitpid(child, 0)
        os.close(master)
    if not first or os.waitstatus_to_exitcode(status):
        raise StepFailed(f"The workbench ended with {os.waitstatus_to_exitcode(status)}: {seen[-300:]!r}")
    return first


def _serve(image: Image) -> float:
    """Measures the seconds until the health check passes."""
    began = time.monotonic()
    server = subprocess.Popen(
        image.command([*image.entry, "serve"], image.user),
        env=image.variables(building=False),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        # The namespace's first process is the one child of unshare.
        children = Path(f"/proc/{server.pid}/task/{server.pid}/children")
        while not (inner := children.read_text().split()):
            time.sleep(0.05)
        root = ["chroot", f"--userspec={image.user}:{image.user}", str(image.root)]
        check = ["nsenter", "-t", inner[0], "-p", "-m", *root, *image.health]
        while subprocess.run(
            check, env=image.variables(building=False), capture_output=True, check=False
        ).returncode:
            if server.poll() is not None or time.monotonic() - began > 90:
                raise StepFailed("The server did not become healthy.")
            time.sleep(0.5)
        seconds = time.monotonic() - began
        os.kill(int(inner[0]), signal.SIGTERM)
        server.wait(30)
        return seconds
    finally:
        if server.poll() is None:
            server.kill()


def main(argv: Sequence[str] | None = None) -> int:
    """Builds and uses the image; 0 if everything worked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path, help="a new folder for the root; it stays")
    parser.add_argument("--bind", type=Path, action="append", default=[], help="a folder to show inside")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--mirror", default="", help="of Debian; debootstrap's own choice without it")
    arguments = parser.parse_args(argv)
    if os.geteuid() or shutil.which("debootstrap") is None:
        print("This needs root and debootstrap (apt-get install debootstrap).", file=sys.stderr)
        return 2
    build_arguments = dict(pair.partition("=")[::2] for pair in arguments.build_arg)
    image = Image(arguments.root.absolute(), tuple(arguments.bind))
    try:
        for line in build(
            (CONTEXT / "Dockerfile").read_text(encoding="utf-8"), image, build_arguments, arguments.mirror
        ):
            print(line, flush=True)
        for line in use(image):
            print(line, flush=True)
    except StepFailed as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    print("Everything worked.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
