"""Measures a CPU's step compiled and one operation at a time: `python -m tests.engine.ops.speed_cpu`.

Each alone, and beside a thread that runs Python as one that paints does. The model is small, since what
compiling saves does not grow with it.
"""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path

import torch

from edge_tui.engine.models.flat import FlatModel
from tests.engine.models.references import flat, random_ids
from tests.engine.random_checkpoints import make_checkpoint

STEPS = 200


def milliseconds(model: FlatModel) -> float:
    """Of one step of the quickest of three runs."""
    token, seconds = random_ids(1, 1), []
    for _ in range(3):
        context = model.open(1, STEPS + 1)
        model.forward(context, token)
        began = time.perf_counter()
        for _ in range(STEPS):
            model.forward(context, token)
        seconds.append(time.perf_counter() - began)
    return min(seconds) / STEPS * 1e3


def paint(done: threading.Event) -> None:
    """Runs Python until it is told to end, with a pause now and then."""
    while not done.wait(0.002):
        sum(i * i for i in range(40_000))


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        model = flat(make_checkpoint(Path(folder), hidden=256, intermediate=1024, layers=12))
        fused = model.fused
        for beside in (False, True):
            done = threading.Event()
            painter = threading.Thread(target=paint, args=(done,))
            if beside:
                painter.start()
            for name, step in (("compiled", fused), ("one by one", None)):
                model.fused = step
                print(f"{name:11}{' beside Python' * beside:14} {milliseconds(model):6.2f} ms", flush=True)
            done.set()


if __name__ == "__main__":
    main()
