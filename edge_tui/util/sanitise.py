"""Makes text from outside safe to print on a terminal.

Model output, prompts, model names, file names and error messages may hold escape sequences that would
move the cursor, set the clipboard, or turn the reading direction around. `sanitise` returns the same text
with such characters made visible or left out. Neither Textual nor Rich does this.
"""

from __future__ import annotations

import re

PICTOGRAPH = "\u00a9\u00ae\u203c\u2049\u2100-\u2bff\u3030\u303d\u3297\u3299\ufe0f\U0001f000-\U0001faff"
"""Characters, as a regex set, that a zero width joiner may join: emoji, their modifiers, symbols."""

_TONES = "\U0001f3fb-\U0001f3ff"
_BASE = PICTOGRAPH.replace("\U0001f000-\U0001faff", "\U0001f000-\U0001f3fa\U0001f400-\U0001faff")
"""Pictographs that can carry a skin tone and be joined; a tone by itself is neither."""

_DROPPED = (
    "\u00ad\u034f\u061c"  # soft hyphen, grapheme joiner, Arabic letter mark
    "\u115f\u1160\u3164\uffa0"  # Hangul fillers
    "\u17b4\u17b5\u180b-\u180f"  # Khmer inherent vowels, Mongolian selectors
    "\u200b\u200c\u200e\u200f\u202a-\u202e\u2060-\u206f"  # zero width, bidi embeddings, overrides, isolates
    "\ufe00-\ufe0e\ufeff\ufff0-\ufffb"  # selectors other than the emoji one, byte order mark, annotations
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"  # shorthand, music, tags
)
_SHOWN = "\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff"

_INDENTATION = re.compile(" {5,}")
_CODED = re.compile(f"[{_SHOWN}{_TONES}]")
_UNSAFE = re.compile(
    f"\r\n|[{_SHOWN}]|[{_DROPPED}]|(?<![{_BASE}])(?<![{_BASE}][{_TONES}])\u200d|\u200d(?![{_BASE}])"
    f"|(?<![{_BASE}])[{_TONES}]"
)


def sanitise(text: str, *, keep_newlines: bool = True, tab: str = "    ") -> str:
    r"""Makes text safe and honest to show: what it contains is seen, nothing in it is obeyed.

    C0 controls and DEL become their pictures (␛, ␀, ␡). C1 controls, line and paragraph separators, lone
    surrogates, noncharacters and skin tones of nothing become their code in ‹ ›. Bidirectional controls,
    joiners that join no emoji and other invisible characters are dropped, because they make the screen
    differ from the text or a terminal's idea of a width differ from ours. Markup is not touched: never give
    the result to a markup parser.

    Args:
        text: Anything.
        keep_newlines: Keep "\n" (and make "\r\n" one); otherwise both are shown as pictures, for one-line
            places such as titles.
        tab: Text in place of a tab; "\t" keeps it for a caller that lays out tabs itself.

    Returns:
        Text without control characters other than "\n" and `tab` where asked for.
    """
    if text.isascii() and text.isprintable():
        return text

    def replace(match: re.Match[str]) -> str:
        piece = match.group()
        if piece == "\n":
            return "\n" if keep_newlines else "␤"
        if piece == "\t":
            return tab
        if piece == "\r\n":
            return "\n" if keep_newlines else "␍␤"
        return _glyph(piece)

    return _UNSAFE.sub(replace, text)


def one_line(text: str, tab: str = "    ") -> str:
    """Makes text safe to show in one line, such as a title: line breaks become pictures."""
    return sanitise(text, keep_newlines=False, tab=tab)


def visible(text: str) -> str:
    """Quotes a token's text with marks for whatever is invisible in it."""
    shown = one_line(text, tab="→").replace("␤", "↵")
    return f"“{_INDENTATION.sub(lambda found: f'({len(found[0])} spaces)', shown)}”"


def _glyph(char: str) -> str:
    code = ord(char)
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "␡"
    return f"‹{code:02X}›" if _CODED.match(char) else ""
