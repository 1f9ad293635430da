"""Nothing that a library says reaches a terminal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.models.architectures import make_tiny
from tests.engine.random_checkpoints import make_checkpoint, save_tokenizer, store_bitsandbytes

CHATTER = """
import sys
from edge_tui.cli.main import main
rc = main(sys.argv[1:])
import logging, warnings
import huggingface_hub, torch, transformers
from huggingface_hub.utils import logging as hub
from transformers.utils import logging as own
for logger in (own.get_logger("transformers.x"), hub.get_logger("huggingface_hub.x")):
    logger.warning("chatter")
for name in ("bitsandbytes.x", "torch.x", "somebody"):
    logging.getLogger(name).warning("chatter")
warnings.warn("chatter")
warnings.warn("chatter", FutureWarning)
torch.searchsorted(torch.arange(4.0).view(2, 2).t(), torch.zeros(2, 1))  # warns from C++
sys.exit(rc)
"""


def quiet(*argv: str, chatter: str = CHATTER) -> str:
    """Runs a command, lets every library talk after it, and returns standard output."""
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", chatter, *argv], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout


@pytest.mark.parametrize("kind", [pytest.param("nf4", marks=pytest.mark.proof), "flex_olmo"])
def test_a_quiet_run_leaves_standard_error_empty(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "model"
    if kind == "flex_olmo":
        make_tiny(path, kind, vocab_size=320)
        save_tokenizer(path)
    else:
        # A key that transformers warns of, and rope settings in a place that it warns of.
        make_checkpoint(path, "llama", hidden=128, intermediate=256, extra={"rope_scaling": None, "odd": 1})
    if kind == "nf4":
        store_bitsandbytes(path, "nf4")
    argv = ("--model", str(path), "--device", "cpu", "--strategy", "greedy", "--max-length", "4")
    # bitsandbytes speaks while it is imported, which takes a second.
    chatter = CHATTER if kind == "flex_olmo" else CHATTER.replace("import hugg", "import bitsandbytes, hugg")
    assert quiet("run", "-q", *argv, "the fox", chatter=chatter)
