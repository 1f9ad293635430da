"""Writes a run as one HTML file without scripts: tokens in their colours, each with its record on click.

A token is the label of a radio button, and the lines about it are shown while that is checked: so a click
chooses a token, the arrow keys walk from one to the next, and nothing has to run.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from edge_tui.history.formats.facts import SPEAKERS, facts, turns
from edge_tui.history.formats.palette import Palette, palette
from edge_tui.history.formats.token_panels import TokenPanels
from edge_tui.history.reproduce import reproduction
from edge_tui.transcript.colour_buckets import LEGENDS, buckets
from edge_tui.transcript.wrapping import TokenText
from edge_tui.util.sanitise import sanitise

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from edge_tui.engine.explanation import Explanation
    from edge_tui.history.runs import StoredRun
    from edge_tui.transcript.ladder import Role
    from edge_tui.transcript.transcript import Transcript

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; {light} }}
@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}
body {{ background: var(--back); color: var(--text); font: 15px/1.55 ui-monospace, Menlo, Consolas, monospace;
  max-width: 60rem; margin: 3rem auto; padding: 0 1rem 50vh; }}
h1 {{ font-size: 1.1rem; color: var(--accent); }}
h2 {{ font-size: .9rem; color: var(--muted); font-weight: normal; margin: 2rem 0 .4rem; }}
pre {{ white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; font: inherit; }}
table {{ border-spacing: 0; font-size: .85rem; margin-top: 2.5rem; }}
th {{ color: var(--muted); font-weight: normal; text-align: left; vertical-align: top;
  padding: 0 1.5rem 0 0; }}
input {{ position: absolute; opacity: 0; pointer-events: none; }}
label {{ cursor: pointer; }}
label:hover {{ background: color-mix(in srgb, currentColor 22%, transparent); }}
input:checked + label {{ background: var(--text); color: var(--back); }}
input:focus-visible + label {{ outline: 1px solid var(--accent); }}
.w {{ display: none; position: fixed; z-index: 1; left: 0; right: 0; bottom: 0; max-height: 48vh;
  overflow: auto; white-space: pre; font-size: .8rem; padding: .8rem 1rem; background: var(--back);
  color: var(--text); border-top: 1px solid var(--muted); }}
input:checked + label + .w {{ display: block; }}
@media (min-width: {beside}rem) {{
  body {{ margin-left: 2rem; margin-right: 42rem; padding-bottom: 3rem; }}
  .w {{ left: auto; top: 0; width: 38rem; max-height: none; border-top: 0;
    border-left: 1px solid var(--muted); }}
}}
@media print {{ .w {{ display: none !important; }} }}
.x {{ float: right; }}
.n::before {{ content: "↵"; opacity: .4; }}
.h, .c, .m, .r {{ color: var(--muted); }}
i {{ font-style: normal; }}
.s, .t, .u {{ font-weight: bold; }}
.s, .u {{ color: var(--accent); }}
.p0, .p1 {{ text-decoration: underline; text-underline-offset: .2em; }}
{steps}
</style>
</head>
<body>
<h1>{title}</h1>
{turns}
<h2>answer &nbsp; {legend}</h2>
<pre><input type=radio name=t id=none checked>{tokens}</pre>
<h2>reproduce</h2>
<pre>{reproduce}</pre>
<table>
{facts}
</table>
</body>
</html>
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'"
_CLOSE = "<label for=none class=x>×</label>"
"""Checks a button that shows nothing."""
_BESIDE = 90
"""Least width, in the page's units, at which the lines about a token stand beside the text."""
_CLASSES: dict[Role, str] = {
    "sentence": "s", "head": "h", "taken": "t", "cut": "c", "sum": "u", "rule": "r", "muted": "m",
}  # fmt: skip
"""Class of each role that has a look of its own."""


def render(
    stored: StoredRun,
    transcript: Transcript,
    token_strings: Mapping[int, str],
    explanations: Mapping[int, Explanation] | None = None,
) -> str:
    """Writes the page.

    Args:
        stored: The run.
        transcript: Its tokens.
        token_strings: Texts of ids; alternatives without one show their id.
        explanations: By position; a token without one has what its record says.
    """
    steps = LEGENDS["probability"][1]
    panels = TokenPanels(transcript, token_strings)
    sections = [f"<h2>{SPEAKERS[turn.role]}</h2>\n<pre>{_text(turn.content)}</pre>" for turn in turns(stored)]
    rows = [f"<tr><th>{_text(name)}</th><td>{_text(value)}</td></tr>" for name, value in facts(stored)]
    return _PAGE.format(
        policy=_POLICY,
        beside=_BESIDE,
        title=_text(f"{stored.model or 'edge-tui'} · {stored.entry.strategy}"),
        light=_variables(palette("light")),
        dark=_variables(palette("dark")),
        steps="\n".join(f".p{i} {{ color: var(--p{i}); }}" for i in range(len(steps))),
        turns="\n".join(sections),
        legend=" ".join(f'<span class="p{i}">{_text(step)}</span>' for i, step in enumerate(steps)),
        tokens="".join(_tokens(transcript, panels, explanations or {})),
        reproduce=_text(reproduction(stored).line),
        facts="\n".join(rows),
    )


def _variables(colours: Palette) -> str:
    named = {"back": colours.background, "text": colours.foreground, "muted": colours.muted}
    named |= {"accent": colours.accent} | {f"p{i}": colour for i, colour in enumerate(colours.ladder)}
    return " ".join(f"--{name}: {value};" for name, value in named.items())


def _tokens(
    transcript: Transcript, panels: TokenPanels, explanations: Mapping[int, Explanation]
) -> Iterator[str]:
    """Yields each token with its button and the lines about it."""
    text = TokenText()
    text.extend(transcript.texts())
    steps = buckets(transcript, "probability", False, 0)
    for index, (shown, step) in enumerate(zip(text.display, steps, strict=True)):
        if not shown:
            continue
        mark = " n" if "\n" in shown and not shown.strip() else ""
        lines = (_line(line) for line in panels.lines(index, explanations.get(index)))
        yield f'<input type=radio name=t id=t{index}><label for=t{index} class="p{step}{mark}">{_text(shown)}'
        yield f"</label><span class=w>{_CLOSE}{chr(10).join(lines)}</span>"


def _line(parts: Iterable[tuple[str, Role]]) -> str:
    """Writes a line; trailing spaces are left out."""
    listed = [(text, _CLASSES.get(role, "")) for text, role in parts]
    while listed and not listed[-1][0].strip():
        listed.pop()
    if listed:
        listed[-1] = (listed[-1][0].rstrip(), listed[-1][1])
    return "".join(f"<i class={style}>{_text(text)}</i>" if style else _text(text) for text, style in listed)


def _text(text: str) -> str:
    return escape(sanitise(text, tab="\t"))
