"""Makes random matrices of codes in groups, in every form that a file's kind has."""

from __future__ import annotations

import torch

from edge_tui.engine.checkpoints.gguf.kinds import FORMS
from edge_tui.engine.ops.code_groups import CodeGroups
from edge_tui.engine.ops.group_form import NF4, OUTER, GroupForm

KINDS = {
    **FORMS,
    "AWQ g32": GroupForm(4, 32, "zero"),
    "AWQ g64": GroupForm(4, 64, "zero"),
    "AWQ g128": GroupForm(4, 128, "zero"),
    "GPTQ 8 bit g128": GroupForm(8, 128, "zero"),
    "Q4_K above Q6_K": GroupForm(8, 16, "own", outer=True),
    "NF4": NF4,
}
"""Forms by the names of kinds."""


def random_groups(form: GroupForm, rows: int, columns: int, seed: int = 0, device: str = "cpu") -> CodeGroups:
    """Draws weights with a mean near 0 and a deviation near that of a trained matrix."""
    gen = torch.Generator(device).manual_seed(seed)
    most = 1 << form.bits
    size = columns**-0.5 / most * 3

    def uniform(count: int) -> torch.Tensor:
        return torch.rand(rows, count, 1, generator=gen, device=device) + 0.5

    def whole(low: int, high: int) -> torch.Tensor:
        shape = rows, columns // form.group, 1
        return torch.randint(low, high, shape, generator=gen, device=device, dtype=torch.int32)

    codes = torch.randint(0, most, (rows, columns), generator=gen, device=device, dtype=torch.uint8)
    if form.outer:
        spans, low = -(-columns // OUTER), -31 if form.least == "none" else 1
        parts = [whole(low, 64).to(torch.int8), whole(1, 64).to(torch.int8)]
        outer = [uniform(spans) * size / 32, uniform(spans) * size / 32 * most / 2]
        return CodeGroups(
            form,
            codes,
            torch.cat(parts[: form.factors], -1),
            torch.cat(outer[: form.factors], -1).half(),
        )
    if form.levels:
        return CodeGroups(form, codes, uniform(columns // form.group) * (size * most / 2))
    scale = (uniform(columns // form.group) * size).half()
    least = whole(0, most).half() if form.least == "zero" else (scale * (most // 2)).half()
    return CodeGroups(form, codes, torch.cat((scale, least)[: form.factors], -1))
