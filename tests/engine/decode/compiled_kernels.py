"""`python -m tests.engine.decode.compiled_kernels FOLDER STRATEGY[:PRECISION]` tells what runs compile.

It prints how many kernels were waited for, and of how many, and then the names of those that the run did not
find compiled. Triton's cache folder should be empty.
"""

from __future__ import annotations

import sys
from typing import Any

from triton import knobs

from edge_tui.engine.events import Failed, Progress
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import ModelSpec, Request
from tests.engine.watch import watch

ROLES = "model", "expert", "amateur", "draft"


def main(folder: str, strategy: str) -> None:
    missed: list[str] = []

    def note(*, src: Any, cache_hit: bool, **_: Any) -> None:
        if not cache_hit:
            missed.append(src.name)

    knobs.compilation.listener = note
    strategy, _, precision = strategy.partition(":")
    spec: Any = ModelSpec(folder, precision or "auto", "cuda:0")
    engine = LocalEngine(dict.fromkeys(ROLES, spec))
    seen = watch(engine, Request("", strategy, ids=(9,) * 40, max_length=30), timeout=300.0)
    compiled = [(event.done, event.total) for event in seen.all(Progress) if event.what == "compile"]
    print(*(compiled[-1] if compiled else (0, 0)), *missed)
    failed = [event.message for event in seen.all(Failed)]
    engine.close(30.0)
    if failed:
        raise SystemExit(failed[0])


if __name__ == "__main__":
    main(*sys.argv[1:])
