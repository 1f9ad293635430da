"""Measures steps over packed files: `python -m tests.engine.ops.speed_packed --kinds Q4_0,Q4_K_M --rows 1,4`.

The engine decodes a model of true size whose matrices are random codes of each kind, and the same model in
bfloat16 beside it: greedy as one row, beams as several. One line each: steps a second, milliseconds of a
step, the share of it that reading its bytes takes, and the step over that of one row. "AWQ" stands for 4 bits
with groups of 128.

With `--kernels` what each kernel takes of a step follows: kernels overlap, so it is the time from the end of
the one before to its own.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from edge_tui.bench.edge_runner import EdgeRunner, prompt_ids
from edge_tui.bench.random_models import CONFIGS, RandomWeights, write_random
from edge_tui.bench.roofline import kv_bytes_per_step, read_bandwidth, weight_bytes_per_step
from edge_tui.engine.checkpoints.checkpoint import Checkpoint
from edge_tui.engine.models.architectures import flat_config
from edge_tui.engine.ops.code_groups import CodeGroups, stack
from edge_tui.engine.ops.group_form import GroupForm
from edge_tui.engine.port import ModelSpec, Request
from tests.engine.ops.random_groups import KINDS, random_groups

PROMPT, TOKENS = 64, 256
HEADS = {"Q4_0": "Q6_K", "Q4_K_M": "Q6_K", "Q8_0": "Q8_0"}
"""Kinds of the head in files of a kind, as llama.cpp writes them; in the other files it has 16 bits."""
MIXED = ("v_proj", "down_proj")
"""Matrices that Q4_K_M stores as Q6_K, in half of the layers."""


def form_of(kind: str, name: str) -> GroupForm:
    """The form of a matrix in a file of such a kind."""
    if name.startswith("lm_head"):
        return KINDS[HEADS[kind]]
    if kind != "Q4_K_M":
        return KINDS["AWQ g128" if kind == "AWQ" else kind]
    layer, part = int(name.split(".")[2]), name.split(".")[-2]
    return KINDS["Q6_K" if part in MIXED and layer % 2 else "Q4_K"]


def store_as(kind: str) -> None:
    """Lets every checkpoint say that its layers are stored in this kind, and fills them with random codes."""

    def form(self: Checkpoint, name: str) -> GroupForm | None:
        layout = flat_config(self.config).layout
        coded = layout.matrix_of(name) or (name == layout.ends[1] and kind in HEADS)
        return form_of(kind, name) if coded and kind != "bfloat16" else None

    def codes(self: RandomWeights, names: list[str], rows: list[int], columns: int) -> CodeGroups | None:
        if names[0].startswith("lm_head") and kind not in HEADS:
            return None
        forms = [form_of(kind, name) for name in names]
        return stack(
            [random_groups(f, n, columns, device=self.device) for f, n in zip(forms, rows, strict=True)]
        )

    Checkpoint.form_of = form  # type: ignore[method-assign]
    RandomWeights.stack_codes = codes  # type: ignore[method-assign]
    RandomWeights.unread = lambda _: []  # type: ignore[method-assign]


def print_kernels(runner: EdgeRunner, request: Request) -> None:
    """Prints the kernels that take most of a step: microseconds and launches of one."""
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        runner.generate(request)
    on_device = [event for event in seen.events() or () if event.device_type == DeviceType.CUDA]
    ends = sorted((event.time_range.end, event.name) for event in on_device)
    taken: dict[str, list[float]] = defaultdict(list)
    for (before, _), (end, name) in pairwise(ends):
        taken[name].append(end - before)
    steps = runner.state.steps
    for name, each in sorted(taken.items(), key=lambda item: -sum(item[1]))[:16]:
        print(f"  {sum(each) / steps:8.1f} µs {len(each) / steps:6.1f} {name:.60}", flush=True)


def measure(folder: Path, kind: str, all_rows: list[int], device: str, kernels: bool) -> None:
    """Prints a line for each number of rows."""
    store_as(kind)
    runner = EdgeRunner({"model": ModelSpec(str(folder), "auto", device)}, frozenset((str(folder),)))
    try:
        facts = runner.load()
        bandwidth, first = read_bandwidth(device), 0.0
        for rows in all_rows:
            seconds = []
            for number in range(4):
                ids = tuple(prompt_ids(facts.tokenizer, PROMPT, number))
                how: dict[str, Any] = (
                    {"strategy": "greedy"}
                    if rows == 1
                    else {"strategy": "beam", "values": {"num_beams": rows}}
                )
                end = runner.generate(Request("", ids=ids, max_length=TOKENS, **how))
                seconds.append(end.seconds / (runner.state.steps - 1))
            step = min(seconds[1:])
            first = first or step
            read = weight_bytes_per_step(facts.info, facts.config)
            floor = (read + kv_bytes_per_step(facts.info, PROMPT, TOKENS, rows)) / bandwidth
            speed = f"{1 / step:8.0f} steps/s {1e3 * step:7.3f} ms {floor / step:4.0%} of the floor"
            print(f"{kind:8} {rows} rows {speed} {step / first:5.2f}×", flush=True)
            if kernels:
                print_kernels(runner, Request("", ids=ids, max_length=TOKENS, **how))
    finally:
        runner.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    kinds = ["bfloat16", "Q4_K_M", "AWQ", *KINDS]
    parser.add_argument("--model", choices=CONFIGS, default="qwen2-7b")
    parser.add_argument("--kinds", type=lambda text: text.split(","), default=[*kinds[:3], "Q4_0", "Q8_0"])
    parser.add_argument("--rows", type=lambda text: [int(n) for n in text.split(",")], default=[1, 4])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--kernels", action="store_true")
    asked = parser.parse_args()
    if unknown := set(asked.kinds) - set(kinds):
        parser.error(f"no kind {', '.join(unknown)}; there are {', '.join(kinds)}")
    folder = write_random(Path(tempfile.mkdtemp()) / asked.model, asked.model)
    for kind in asked.kinds:
        measure(folder, kind, asked.rows, asked.device, asked.kernels)


if __name__ == "__main__":
    main()
