"""Parameters that are text: how they are read, refused, declared."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from edge_tui import decoders
from edge_tui.decoders.base import ByteTokenizer, Param, ParamError, TextParam, numbers, texts
from edge_tui.decoders.core.texts import MOST_CHARACTERS

if TYPE_CHECKING:
    from pathlib import Path

ONE = TextParam("negative")
MANY = TextParam("words", many=True)


@pytest.mark.parametrize(
    ("param", "value", "read"),
    [
        (ONE, "a word", "a word"),
        (ONE, "", ""),
        (ONE, " with\nspaces ", " with\nspaces "),
        (MANY, "alone", ("alone",)),
        (MANY, "", ()),
        (MANY, ["a", "", "b"], ("a", "b")),
        (MANY, ("a", "a"), ("a", "a")),
        (ONE, "x" * MOST_CHARACTERS, "x" * MOST_CHARACTERS),
    ],
)
def test_texts_are_read_as_they_stand(param: TextParam, value: object, read: object) -> None:
    assert param.parse(value) == read


@pytest.mark.parametrize(
    ("param", "value", "sentence"),
    [
        (ONE, 3, "negative is 3, but must be a text of at most 10,000 characters."),
        (ONE, ["a"], "negative is ['a'], but must be a text of at most 10,000 characters."),
        (ONE, None, "negative is None, but must be a text of at most 10,000 characters."),
        (MANY, True, "words is True, but must be a list of texts of at most 10,000 characters."),
        (MANY, ["a", 1], "words is ['a', 1], but must be a list of texts of at most 10,000 characters."),
        (
            ONE,
            "x" * (MOST_CHARACTERS + 1),
            f"negative is '{'x' * 38}… with 10,001 characters,"
            " but must be a text of at most 10,000 characters.",
        ),
        (
            MANY,
            ["ab\x1b[31m"] * 2000,
            "words is ['ab\\x1b[31m', 'ab\\x1b[31m', 'ab\\x1b[31… with 14,000 characters,"
            " but must be a list of texts of at most 10,000 characters.",
        ),
    ],
)
def test_another_value_is_refused_in_one_sentence(param: TextParam, value: object, sentence: str) -> None:
    with pytest.raises(ParamError) as refused:
        param.parse(value)
    assert str(refused.value) == sentence


def test_what_check_raises_refuses_a_text() -> None:
    pattern = TextParam("answer", check=re.compile)
    assert pattern.parse("a+") == "a+"
    with pytest.raises(ParamError, match=r"^answer is '\(', which cannot be used: missing \).*\.$"):
        pattern.parse("(")

    def own(text: str) -> None:
        raise ParamError("answer has no number.")

    with pytest.raises(ParamError, match=r"^answer has no number\.$"):
        TextParam("answer", check=own).parse("x")

    def leave(text: str) -> None:
        raise SystemExit

    with pytest.raises(ParamError, match=r"^answer is 'x', which cannot be used: SystemExit\.$"):
        TextParam("answer", check=leave).parse("x")


def test_no_text_is_neutral_and_not_checked() -> None:
    strict = TextParam("answer", check=int, many=True)
    assert strict.parse(["1", ""]) == ("1",)
    assert (strict.default, strict.neutral, ONE.neutral) == ((), (), "")
    assert TextParam("words", "a", many=True).default == ("a",)
    assert (MANY.text(("a", "b")), MANY.text(()), ONE.text("")) == ("a | b", "none", "none")
    assert (MANY.text(("\n", "b")), ONE.text("a\nb")) == ("\\n | b", "a\\nb")


def test_both_kinds_stand_side_by_side() -> None:
    number = Param("n", 1, 0, 2, "")
    assert numbers((ONE, number, MANY)) == (number,)
    assert texts((ONE, number, MANY)) == (ONE, MANY)


HEAD = """from edge_tui.decoders.base import Filter, Param, TextParam


class Mine(Filter):
    name, title, summary = "mine", "mine", "Nothing."
    params = ({params},)

    def apply(self, z, p, s, rng):
        return z
"""


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ('TextParam("a", check=3)', "the check of a is 3, but must be a function."),
        ('TextParam("a", "x", check=int)', "a is 'x', which cannot be used: invalid literal for int()"),
        ('TextParam("a", 3)', "a is 3, but must be a text"),
        ('TextParam("a"), Param("a", 1, 0, 2, "")', "Two stages declare the parameter a differently"),
        ('TextParam("temperature")', "Two stages declare the parameter temperature differently"),
        ('TextParam("a b")', "the parameter name 'a b' is no identifier"),
        ('"a"', "Mine.params must be a tuple of Param and TextParam."),
    ],
)
def test_a_mistaken_declaration_is_named(tmp_path: Path, params: str, sentence: str) -> None:
    (tmp_path / "mine.py").write_text(HEAD.format(params=params))
    (problem,) = decoders.Registry.load([tmp_path]).problems
    assert sentence in str(problem)


def test_bytes_stand_in_where_there_is_no_model() -> None:
    tokenizer = ByteTokenizer()
    ids = tokenizer.encode("né")
    assert ids == (0x6E, 0xC3, 0xA9)
    assert tokenizer.decode((*ids, 999)) == "né"
    assert b"".join(tokenizer.token_bytes()[i] for i in ids).decode() == "né"
    assert (len(tokenizer.token_bytes()), dict(tokenizer.named())) == (tokenizer.size, {})
