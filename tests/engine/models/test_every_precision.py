"""Every architecture that runs decodes in every precision on a CPU, or is refused by a sentence of ours."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import transformers

from edge_tui.engine.events import Failed
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import ModelSpec, Request
from tests.engine.models import architecture_table
from tests.engine.models.architectures import NotTiny, make_tiny
from tests.engine.random_checkpoints import TOKENS, save_tokenizer
from tests.engine.watch import watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

STRATEGIES = ("greedy", "contrastive_search", "dola")
"""They read logits, the past's states, and those of early layers."""


def failures(engine: LocalEngine) -> Iterator[Failed]:
    for strategy in STRATEGIES:
        yield from watch(engine, Request("the fox", strategy=strategy, max_length=4)).all(Failed)


def is_known(failure: Failed) -> bool:
    """Tells whether a failure is one that we wrote a sentence for, and not a library's."""
    return not any(words in failure.message for words in ("That failed: ", " cannot be loaded as "))


@pytest.mark.parametrize(
    ("kind", "precision"), [("mamba2", "bfloat16"), ("recurrent_gemma", "int8"), ("recurrent_gemma", "4bit")]
)
def test_inputs_and_states_as_some_architectures_have_them(
    kind: str, precision: Any, tmp_path: Path, open_engine: Callable[..., LocalEngine]
) -> None:
    path = make_tiny(tmp_path / "m", kind, vocab_size=TOKENS)
    save_tokenizer(path)
    engine = open_engine()
    engine.assign("model", ModelSpec(str(path), precision, "cpu"))
    assert all(is_known(each) for each in failures(engine))
    assert watch(engine, Request("the fox", strategy="greedy", max_length=4)).ids


@pytest.mark.proof
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("precision", ["bfloat16", "int8", "4bit"])
def test_every_architecture_decodes_or_is_refused(
    precision: Any, tmp_path: Path, open_engine: Callable[..., LocalEngine]
) -> None:
    table = json.loads(architecture_table.FILE.read_text(encoding="utf-8"))
    if table["transformers"] != transformers.__version__:
        pytest.skip(f"what runs is known of transformers {table['transformers']}")
    unknown, decoded = [], 0
    for kind in [row["kind"] for row in table["rows"] if row["tier"]]:
        try:
            path = make_tiny(tmp_path / kind, kind, vocab_size=TOKENS)
        except NotTiny:  # with this vocabulary
            continue
        save_tokenizer(path)
        engine = open_engine()
        engine.assign("model", ModelSpec(str(path), precision, "cpu"))
        unknown += [(kind, each.message) for each in failures(engine) if not is_known(each)]
        decoded += not watch(engine, Request("the fox", strategy="greedy", max_length=1)).all(Failed)
        engine.close(10.0)
    assert not unknown
    assert decoded >= 60
