from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from edge_tui.transcript.wrapping import TAB, TokenText, Wrap

PLAIN = ["\n", "\n\n", "\t", " ", "  ", " the", " sky", "abcdefghijklmnop", ",", "a\nb", "x \n y", ""]
WIDE = [
    "語",
    "日本 語",
    "👩",
    "\u200d",
    "💻",
    "👩\u200d💻",
    "🇩🇪",
    "🇩",
    "🇪",
    "❤",
    "\ufe0f",
    "1\ufe0f\u20e3",
    "〰",
]
MARKS = ["\u0301", "e\u0301", "🏽", "👍🏽", "שלום", "\u202e", "क्ष", "한", "\u1161", "\ud83d", "\x1b[31m"]
AWKWARD = st.sampled_from((*PLAIN, *WIDE, *MARKS))
TOKENS = st.lists(AWKWARD | st.text(st.characters(exclude_categories=()), max_size=5), max_size=40)
WIDTHS = st.integers(1, 24)


def expanded(text: str) -> str:
    return text.replace("\t", " " * TAB)


def lines(wrap: Wrap, text: TokenText) -> list[list[tuple[int, str, bool]]]:
    return [[tuple(p) for p in wrap.pieces(text.display, line)] for line in range(len(wrap))]


def at_once(tokens: list[str], width: int) -> tuple[Wrap, TokenText]:
    text, wrap = TokenText(), Wrap(width)
    text.extend(tokens)
    wrap.feed(text.display)
    return wrap, text


@settings(max_examples=120)
@given(TOKENS, WIDTHS, st.data())
def test_incremental_is_the_same_as_at_once(tokens: list[str], width: int, data: st.DataObject) -> None:
    """Also after tokens were taken back, as beams do."""
    text, wrap = TokenText(), Wrap(width)
    done = 0
    while done < len(tokens):
        if done and data.draw(st.booleans(), "take back"):
            keep = data.draw(st.integers(0, done), "keep")
            wrap.truncate(text.truncate(keep))
            done = keep
        n = data.draw(st.integers(1, len(tokens) - done), "take")
        wrap.truncate(text.extend(tokens[done : done + n]))
        wrap.feed(text.display)
        done += n
    whole, whole_text = at_once(tokens, width)
    assert text.display == whole_text.display
    assert lines(wrap, text) == lines(whole, whole_text)


def test_a_mark_goes_with_its_token() -> None:
    """An accent joins the letter before it, and leaves it when beams take its token back."""
    wrap, text = at_once(["so", "e", "\u0301", "x"], 10)
    assert text.display == ["so", "e\u0301", "", "x"]
    wrap.truncate(text.truncate(2))
    wrap.feed(text.display)
    assert text.display == ["so", "e"]
    assert lines(wrap, text) == lines(*at_once(["so", "e"], 10))


@settings(max_examples=120)
@given(TOKENS, WIDTHS)
def test_nothing_is_lost_and_nothing_sticks_out(tokens: list[str], width: int) -> None:
    wrap, text = at_once(tokens, width)
    drawn = "".join(
        piece.text + "\n" * piece.newline
        for line in range(len(wrap))
        for piece in wrap.pieces(text.display, line)
    )
    assert drawn == "".join(text.display)
    for line in range(len(wrap)):
        pieces = wrap.pieces(text.display, line)
        parts = [expanded(piece.text) for piece in pieces]
        assert not any(piece.newline for piece in pieces[:-1])
        # What is measured in parts is what the terminal is given as a whole.
        assert sum(map(cell_len, parts)) == cell_len("".join(parts))
        widest = max((cell_len(c) for c in "".join(parts)), default=1)
        if width >= max(TAB, 2):
            assert cell_len("".join(parts)) <= width + 1
            assert cell_len("".join(parts).rstrip(" ")) <= max(width, widest)


@settings(max_examples=80)
@given(TOKENS, WIDTHS)
def test_every_cell_leads_back_to_its_token(tokens: list[str], width: int) -> None:
    wrap, text = at_once(tokens, width)
    for line in range(len(wrap)):
        x = 0
        for piece in wrap.pieces(text.display, line):
            for _ in range(piece.cells):
                assert wrap.hit(text.display, line, x) == piece.token
                x += 1
            if piece.newline:
                assert wrap.hit(text.display, line, x) == piece.token
    for token, shown in enumerate(text.display):
        if shown:
            assert token in [p.token for p in wrap.pieces(text.display, wrap.line_of(token))] or (
                token in [p.token for p in wrap.pieces(text.display, wrap.line_of(token) + 1)]
            )


def test_words_wrap_and_code_keeps_its_indent() -> None:
    wrap, text = at_once(["The", " sky", " appears", " blue", "\n", "\t", "return", " x"], 10)
    drawn = ["".join(p.text for p in wrap.pieces(text.display, i)) for i in range(len(wrap))]
    assert drawn == ["The sky ", "appears ", "blue", "\treturn ", "x"]


def test_a_word_that_just_fits_stays_and_comes_back_when_what_it_grew_by_has_gone() -> None:
    display = ["ab ", "cd", "ef"]
    wrap = Wrap(5)
    wrap.feed(display[:2])
    assert len(wrap) == 1
    wrap.feed(display)
    assert len(wrap) == 2
    wrap.truncate(2)
    wrap.feed(display[:2])
    assert len(wrap) == 1


def test_a_budget_is_kept_and_the_rest_follows() -> None:
    wrap, text = Wrap(40), TokenText()
    text.extend([" token"] * 20_000)
    calls = 1
    while not wrap.feed(text.display, budget=0.0):
        calls += 1
    assert calls > 10
    assert wrap.wrapped_count == 20_000
    assert lines(wrap, text)[-1] == lines(at_once([" token"] * 20_000, 40)[0], text)[-1]
