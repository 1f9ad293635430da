"""A CPU without memory, for real: the process may not grow."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on the address space")

CHILD = """
import resource, time
from pathlib import Path
from edge_tui.engine import events
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import ModelSpec, Request

engine = LocalEngine({"model": ModelSpec("demo/expert")})

def end(request):
    engine.submit(request)
    while True:
        for event in engine.poll():
            if isinstance(event, (events.Finished, events.Failed, events.Died)):
                return event
        time.sleep(0.005)

short = Request("def f():", strategy="greedy", max_length=4)
end(short)
pages = int(Path("/proc/self/statm").read_text().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 64 * 2**20, resource.RLIM_INFINITY))
event = end(Request("def f(): " * 60, strategy="top_p", max_length=900, samples=256))
print(type(event).__name__, event.message)
print(type(end(short)).__name__)
engine.close()
"""


def test_what_does_not_fit_is_a_sentence_and_the_next_request_works() -> None:
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, timeout=120)
    lines = done.stdout.splitlines()
    assert lines == [lines[0], "Finished"], done.stderr
    assert lines[0].startswith("Failed The device ran out of memory: what was written so far is kept.")
