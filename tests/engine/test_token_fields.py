"""Tests of the table of token fields."""

from dataclasses import fields

from edge_tui import decoders
from edge_tui.engine.events import TokenBatch
from edge_tui.engine.token_fields import RESERVED, TOKEN_FIELDS


def test_a_batch_has_the_columns_of_the_table_and_no_others() -> None:
    assert {field.name for field in fields(TokenBatch)} == {
        "run", "text", *(field.name for field in TOKEN_FIELDS)
    }  # fmt: skip


def test_no_column_of_ours_has_the_name_of_a_field() -> None:
    named = {column.name for each in decoders.strategies() for column in each.all_columns}
    assert not named & RESERVED
