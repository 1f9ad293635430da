"""Every kernel can be built for a GPU, also where there is none and the other tests interpret them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import edge_tui.engine.ops as ops

LAUNCH = re.compile(r"^ +(_\w+|\w+_kernel|\w+_on_tensor_cores)\[.+?\]\(", re.MULTILINE)


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "how", [["check"], pytest.param([], marks=pytest.mark.proof)], ids=["check", "whole"]
)
def test_every_kernel_is_built_for_hopper(how: list[str], tmp_path: Path) -> None:
    pytest.importorskip("triton")
    sources = "".join(path.read_text() for path in Path(ops.__path__[0]).rglob("*.py"))
    launched = set(LAUNCH.findall(sources)) | {"_project"}
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.engine.ops.building", *how],
        env={**environment, "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert set(done.stdout.split()) == launched
