"""Measures a CPU's step with huge pages and without: `python -m tests.engine.models.speed_huge_pages`.

By the processor's time of one thread, in turn, so that other programs disturb both alike.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from unittest.mock import patch

import torch

from edge_tui.engine.models.loader import load
from edge_tui.engine.port import ModelSpec
from tests.engine.speed_llama_cpp import write_random_gguf

STEPS, PROMPT = 60, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="qwen2-0.5b")
    parser.add_argument("--kind", default="Q4_0", help="of the file: F16, Q8_0, Q4_0 or Q4_K_M")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        file = write_random_gguf(Path(folder) / "model.gguf", asked.model, asked.kind)
        spec = ModelSpec(str(file), "auto", "cpu", PROMPT + STEPS)
        load(spec)  # what comes first waits for imports and for the disk
        began = time.process_time()
        models = {"huge pages": load(spec).model}
        seconds = {"loading, huge pages": time.process_time() - began}
        with patch("edge_tui.engine.models.loading.move_to_huge_pages"):
            began = time.process_time()
            models["small pages"] = load(spec).model
            seconds["loading, small pages"] = time.process_time() - began
        contexts = {name: model.open(1, PROMPT + STEPS) for name, model in models.items()}
        for name, model in models.items():
            model.prefill(contexts[name], torch.arange(PROMPT)[None])
        steps: dict[str, list[float]] = {name: [] for name in models}
        for _ in range(STEPS):
            for name, model in models.items():
                began = time.thread_time()
                model.forward(contexts[name], torch.tensor([[5]]))
                steps[name].append(time.thread_time() - began)
    for name, duration in seconds.items():
        print(f"{name:21} {duration:6.2f} s")
    for name, durations in steps.items():
        print(f"{name:21} {median(durations) * 1e3:6.2f} ms a step, at least {min(durations) * 1e3:.2f}")


if __name__ == "__main__":
    main()
