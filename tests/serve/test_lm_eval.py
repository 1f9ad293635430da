"""lm-evaluation-harness against the server: `make proof` installs it.

What it asks for is also asked by hand in `test_openai.py`, which runs with every change.
"""

from __future__ import annotations

from typing import Any

import pytest

from edge_tui.engine.checkpoints.locate import DEMO
from tests.serve.serving import Running, serving

pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed")

pytestmark = pytest.mark.proof

PAIRS = [
    ("def main(", "argv):\n    return 0"),
    ("import ", "os"),
    ("The sky is", " blue because of"),
    ("for i in range(", "10):\n        print(i)"),
    ("", "class A:"),
    ("    # a comment, ", "then another"),
]


@pytest.mark.parametrize("which", ["expert", "amateur"])
@pytest.mark.parametrize("batch", [1, 4])
def test_log_likelihoods_are_those_of_transformers(which: str, batch: int) -> None:
    from dataclasses import replace

    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    from edge_tui.config.settings import Models
    from tests.serve.serving import DEMO as SETTINGS

    def requests() -> list[Any]:
        return [Instance("loglikelihood", {}, pair, index) for index, pair in enumerate(PAIRS)]

    settings = replace(SETTINGS, models=Models(name=f"demo/{which}"))
    with serving(settings) as server:
        remote = _remote(LocalCompletionsAPI, server, f"demo/{which}", DEMO / which, batch)
        ours = remote.loglikelihood(requests(), disable_tqdm=True)
        local = HFLM(pretrained=str(DEMO / which), device="cpu", dtype="float32", batch_size=1)
        theirs = local.loglikelihood(requests(), disable_tqdm=True)
        for pair, (logp, greedy), (expected, also) in zip(PAIRS, ours, theirs, strict=True):
            assert abs(logp - expected) < 1e-3, pair
            assert greedy == also, pair


def test_generation_is_that_of_transformers() -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    wanted = {"until": ["\n\n"], "max_gen_toks": 24, "temperature": 0}

    def requests() -> list[Any]:
        return [Instance("generate_until", {}, (context, dict(wanted)), 0) for context, _ in PAIRS[:4]]

    with serving() as server:
        remote = _remote(LocalCompletionsAPI, server, "demo/expert", DEMO / "expert", 1)
        local = HFLM(pretrained=str(DEMO / "expert"), device="cpu", dtype="float32", batch_size=1)
        ours = remote.generate_until(requests(), disable_tqdm=True)
        assert ours == local.generate_until(requests(), disable_tqdm=True)


def _remote(kind: Any, server: Running, name: str, tokenizer: Any, batch: int) -> Any:
    return kind(
        model=name,
        base_url=f"{server.url}/v1/completions",
        tokenizer_backend="huggingface",
        tokenizer=str(tokenizer),
        batch_size=batch,
        num_concurrent=1,
        max_retries=1,
    )
