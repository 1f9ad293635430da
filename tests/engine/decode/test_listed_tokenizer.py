"""A tokenizer of which facts are known is read when something else is asked of it, once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from edge_tui.engine.checkpoints.checkpoint import open_checkpoint
from edge_tui.engine.decode.listed_tokenizer import ListedTokenizer, facts_of
from edge_tui.engine.text.strategy_tokenizer import StrategyTokenizer
from edge_tui.engine.text.tokenizer import Tokenizer
from tests.engine.random_checkpoints import make_checkpoint, save_tokenizer

if TYPE_CHECKING:
    from pathlib import Path


def test_it_is_read_when_something_else_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_tokenizer(make_checkpoint(tmp_path / "m"))
    source = open_checkpoint(str(tmp_path / "m"))
    own = Tokenizer.open(source)
    known = ListedTokenizer(source, facts_of(source))
    read: list[Any] = []
    monkeypatch.setattr(Tokenizer, "open", lambda source: read.append(source) or own)
    assert (known.size, known.bos_id, known.end_ids) == (own.size, own.bos_id, own.end_ids)
    assert StrategyTokenizer(known).size == own.size
    assert known.token_strings([5, 6]) == ["", ""]
    assert read == []
    assert known.encode("a b") == own.encode("a b")
    assert known.control == own.control
    assert read == [source]
    with pytest.raises(AttributeError, match="nothing"):
        _ = known.nothing
