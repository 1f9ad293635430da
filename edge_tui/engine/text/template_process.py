"""Holds the child process that renders chat templates, within limits of time and memory.

The child (`template_child.py`) is started once and kept, so that a template costs a millisecond and not the
start of an interpreter. A child that breaks a limit is killed, and another takes its place. On Linux the
kernel limits the child's address space; everywhere its resident memory is looked at every `_GLANCE` seconds.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

import edge_tui
from edge_tui.engine.text.template_child import CHARACTERS, pack, read_frame
from edge_tui.errors import Cancelled

__all__ = ["CHARACTERS", "MEMORY", "SECONDS", "RenderError", "TemplateProcess"]

SECONDS = 2.0
"""Most seconds that a template may take to be compiled and rendered."""
MEMORY = 256_000_000
"""Most bytes of the child process; Python and Jinja, some 25 MB, are among them."""
_START = 30.0
"""Seconds in which the child must have started; a tenth of one is usual, a busy machine takes longer."""
_GLANCE = 0.02
"""Seconds between two looks at a child that computes."""
_PASSED_ON = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME", "SYSTEMROOT", "TZ")
"""Environment variables that the child needs to start and to tell the time. It gets no others."""
KERNEL_LIMITS_MEMORY = sys.platform == "linux"
"""True where the kernel enforces the limit, too; this process looks at the memory in any case.

macOS knows the limit of a process's address space, but does not enforce it; Windows does not know it.
"""


class RenderError(Exception):
    """Says that a template was not rendered.

    Attributes:
        code: "template" (it raised an error), "time", "memory", "output", "recursion", "crash" (the process
            ended), "size" (template and conversation are too long) or "start" (there is no process).
        detail: More about it, perhaps in several lines.
    """

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class TemplateProcess:
    """Renders templates in one child process; any thread may call it.

    Args:
        seconds: Time limit of one template; None takes `SECONDS`.
        memory: Memory limit of the child, in bytes.
    """

    def __init__(self, seconds: float | None = None, memory: int = MEMORY) -> None:
        self._seconds = seconds
        self._memory = memory
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._ready = False
        atexit.register(self.close)

    def render(
        self, template: str, variables: dict[str, Any], cancelled: Callable[[], bool] = lambda: False
    ) -> str:
        """Compiles a template, unless it is known, and renders it.

        Args:
            template: Jinja source.
            variables: JSON values by the names that the template has for them.
            cancelled: Called every `_GLANCE` seconds; true ends the child.

        Raises:
            RenderError: the template failed or broke a limit.
            Cancelled: `cancelled()` said so.
        """
        return str(self._answer(template, variables, cancelled).get("text"))

    def names(self, template: str, cancelled: Callable[[], bool] = lambda: False) -> frozenset[str]:
        """Returns the variables that a template reads, special tokens and functions among them.

        Raises:
            RenderError, Cancelled: see `render`.
        """
        return frozenset(map(str, self._answer(template, None, cancelled).get("names", ())))

    def prepare(self, template: str) -> None:
        """Starts the child and compiles a template, in the background; errors wait until it is rendered."""

        def compile_template() -> None:
            with contextlib.suppress(RenderError):
                self.names(template)

        with contextlib.suppress(RuntimeError):  # no more threads
            threading.Thread(target=compile_template, name="chat template", daemon=True).start()

    @property
    def _limit(self) -> float:
        return SECONDS if self._seconds is None else self._seconds

    def _answer(
        self, template: str, variables: dict[str, Any] | None, cancelled: Callable[[], bool]
    ) -> dict[str, Any]:
        """Sends a request to a child that is ready, one at a time."""
        try:
            request = pack({"template": template, "variables": variables})
        except ValueError as error:
            raise RenderError("size", str(error)) from error
        while not self._lock.acquire(timeout=_GLANCE):
            if cancelled():
                raise Cancelled
        try:
            self._start()
            if not self._ready:
                self._ask(b"", _START, cancelled, "start")
                self._ready = True
            answer = self._ask(request, self._limit, cancelled, "crash")
        except (RenderError, Cancelled) as error:
            self.close()
            if isinstance(error, RenderError):
                with contextlib.suppress(RenderError):
                    self._start()  # the next template finds it ready
            raise
        finally:
            self._lock.release()
        if "detail" in answer:
            raise RenderError("template", str(answer["detail"]))
        return answer

    def _start(self) -> None:
        """Starts a child if none is alive.

        Raises:
            RenderError: the system refuses, or Python is part of the program and cannot be started by itself.
        """
        if self._child is not None and self._child.poll() is None:
            return
        self.close()
        if not _interpreter() or getattr(sys, "frozen", False):
            raise RenderError("start", "this program has no Python interpreter of its own")
        places = [str(Path(place).absolute()) for place in sys.path if place]
        home = str(Path(edge_tui.__file__).absolute().parents[1])
        limits = [str(self._limit), str(self._memory if KERNEL_LIMITS_MEMORY else 0)]
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        try:
            self._child = subprocess.Popen(
                # -P and -S: nothing is imported from the working directory, and sys.path is known already.
                [_interpreter(), "-P", "-S", "-m", "edge_tui.engine.text.template_child", *limits],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**environment, "LC_ALL": "C", "PYTHONPATH": os.pathsep.join([*places, home])},
                start_new_session=True,  # ctrl-c in the terminal is the parent's
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        except OSError as error:
            raise RenderError("start", str(error)) from error

    def close(self) -> None:
        """Ends the child; another call of `render` starts one anew."""
        child, self._child, self._ready = self._child, None, False
        if child is None:
            return
        child.kill()
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            child.wait(1)
            for pipe in (child.stdin, child.stdout):
                assert pipe is not None
                with contextlib.suppress(OSError):
                    pipe.close()

    def _ask(
        self, request: bytes, seconds: float, cancelled: Callable[[], bool], failure: str
    ) -> dict[str, Any]:
        """Sends a request and waits for its answer.

        Raises:
            RenderError: there is none in time, it names a limit, or (as `failure`) the child is gone.
            Cancelled: `cancelled()` said so.
        """
        assert self._child is not None
        child = self._child
        answers: list[Any] = []

        def exchange() -> None:
            assert child.stdin is not None
            assert child.stdout is not None
            with contextlib.suppress(OSError, ValueError, RecursionError):
                child.stdin.write(request)
                child.stdin.flush()
                answers.append(read_frame(child.stdout))

        deadline = time.monotonic() + seconds
        # In a thread, since neither writing nor reading can be given up; the end of the child ends both.
        thread = threading.Thread(target=exchange, name="chat template", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise RenderError("start", str(error)) from error
        while True:
            thread.join(_GLANCE)
            if not thread.is_alive():
                break
            if cancelled():
                raise Cancelled
            if time.monotonic() > deadline:
                raise RenderError("time" if self._ready else failure, f"no answer within {seconds:g} s")
            if _resident(child.pid) > self._memory:
                raise RenderError("memory")
        answer = answers[0] if answers else None
        if not isinstance(answer, dict):
            raise RenderError(failure, "it ended")
        if answer.get("error", "template") != "template":
            raise RenderError(str(answer["error"]))
        return answer


def _interpreter() -> str:
    """Returns Python's path; on Windows not the virtual environment's, which only starts the real one."""
    return str(getattr(sys, "_base_executable", "")) if sys.platform == "win32" else sys.executable


def _resident(pid: int) -> int:
    """Reads a process's resident bytes; 0 if it is gone."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0
