"""Runs the command line: `edge-tui` opens the workbench, `edge-tui run` streams to standard output.

An error is one line on standard error and an exit status: 2 for a wrong command line, 1 for a failure, 130
after ctrl-c, 141 when the reader of the output has left. Loads neither torch nor Textual before it must.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, nullcontext
from importlib import import_module
from typing import TYPE_CHECKING

from edge_tui.cli import library_output, standard_streams
from edge_tui.cli.arguments import Namespace
from edge_tui.cli.messages import PROGRAM, fail
from edge_tui.cli.parser import make_parser
from edge_tui.errors import EdgeError, UsageError
from edge_tui.util.safe_stream import guard_terminal

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

_RUNS_MODELS = (None, "run", "serve")
"""Commands that decode; None is the workbench."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the `edge-tui` command; returns the exit status."""
    standard_streams.prepare()
    library_output.silence()
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # GPUs are numbered as in nvidia-smi and NVML
    guard_terminal()
    return standard_streams.run_and_flush(lambda: _run(argv))


def _run(argv: Sequence[str] | None) -> int:
    """Parses the arguments and runs their command; errors become a line and a status."""
    try:
        return _dispatch(make_parser(argv).parse_args(argv, Namespace()))
    except UsageError as error:
        return fail(str(error), 2)
    except EdgeError as error:
        return fail(str(error))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError as error:
        if standard_streams.are_read():
            return _log_crash(error)
        raise
    except Exception as error:
        return _log_crash(error)


def _dispatch(args: argparse.Namespace) -> int:
    """Calls `run(flags)` of the command's module."""
    flags = vars(args)
    command, before = flags.pop("command", None), flags.pop("before", ())
    if command is not None and "connect" in flags:
        raise UsageError(f"--connect opens the workbench over a server; {command} works on this machine.")
    if before and command not in ("run", "score", "serve", "config"):
        from edge_tui.config.names import flag_of

        raise UsageError(
            f"{flag_of(before[0])} has no meaning for {command}: leave it out"
            f" (see {PROGRAM} {command} --help)."
        )
    decodes = command in _RUNS_MODELS and not flags.get("connect") and flags.get("device") != "cpu"
    with _compiling() if decodes else nullcontext():
        status: int = import_module(f"edge_tui.cli.{command or 'workbench'}").run(flags)
    return status


@contextmanager
def _compiling() -> Iterator[None]:
    """Starts the compiling process before anything else, and ends it if nobody took it."""
    from edge_tui.engine.decode import kernel_process

    kernel_process.start_early()
    try:
        yield
    finally:
        kernel_process.end_early()


def _log_crash(error: Exception) -> int:
    from edge_tui.util import logs

    file = logs.write_crash(error)
    where = f"details are in {file}" if file else "no log could be written"
    return fail(f"something went wrong ({logs.summary(error)}); {where}.")
