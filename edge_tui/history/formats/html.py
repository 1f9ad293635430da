"""Writes a run as one HTML file without scripts: tokens in their colours, light or dark."""

from __future__ import annotations

from html import escape
from math import exp, isnan, log
from typing import TYPE_CHECKING

from edge_tui.history.formats.facts import SPEAKERS, facts, turns
from edge_tui.history.formats.palette import Palette, palette
from edge_tui.history.reproduce import reproduction
from edge_tui.transcript.colour_buckets import LEGENDS, buckets
from edge_tui.transcript.wrapping import TokenText
from edge_tui.util.sanitise import sanitise

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from edge_tui.history.runs import StoredRun
    from edge_tui.transcript.transcript import TokenView, Transcript

_SHOWN = 6
"""Alternatives under the pointer."""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; {light} }}
@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}
body {{ background: var(--back); color: var(--text); font: 15px/1.55 ui-monospace, Menlo, Consolas, monospace;
  max-width: 60rem; margin: 3rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.1rem; color: var(--accent); }}
h2 {{ font-size: .9rem; color: var(--muted); font-weight: normal; margin: 2rem 0 .4rem; }}
pre {{ white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; font: inherit; }}
table {{ border-spacing: 0; font-size: .85rem; margin-top: 2.5rem; }}
th {{ color: var(--muted); font-weight: normal; text-align: left; vertical-align: top;
  padding: 0 1.5rem 0 0; }}
pre span:hover, pre span:focus {{ background: color-mix(in srgb, currentColor 22%, transparent); }}
.p0, .p1 {{ text-decoration: underline; text-underline-offset: .2em; }}
{steps}
</style>
</head>
<body>
<h1>{title}</h1>
{turns}
<h2>answer &nbsp; {legend}</h2>
<pre>{tokens}</pre>
<h2>reproduce</h2>
<pre>{reproduce}</pre>
<table>
{facts}
</table>
</body>
</html>
"""


def render(stored: StoredRun, transcript: Transcript, token_strings: Mapping[int, str]) -> str:
    """Writes the page.

    Args:
        stored: The run.
        transcript: Its tokens.
        token_strings: Texts of ids; alternatives without one show their id.
    """
    steps = LEGENDS["probability"][1]
    sections = [f"<h2>{SPEAKERS[turn.role]}</h2>\n<pre>{_text(turn.content)}</pre>" for turn in turns(stored)]
    rows = [f"<tr><th>{_text(name)}</th><td>{_text(value)}</td></tr>" for name, value in facts(stored)]
    return _PAGE.format(
        title=_text(f"{stored.model or 'edge-tui'} · {stored.entry.strategy}"),
        light=_variables(palette("light")),
        dark=_variables(palette("dark")),
        steps="\n".join(f".p{i} {{ color: var(--p{i}); }}" for i in range(len(steps))),
        turns="\n".join(sections),
        legend=" ".join(f'<span class="p{i}">{_text(step)}</span>' for i, step in enumerate(steps)),
        tokens="".join(_tokens(transcript, token_strings)),
        reproduce=_text(reproduction(stored).line),
        facts="\n".join(rows),
    )


def _variables(colours: Palette) -> str:
    named = {"back": colours.background, "text": colours.foreground, "muted": colours.muted}
    named |= {"accent": colours.accent} | {f"p{i}": colour for i, colour in enumerate(colours.ladder)}
    return " ".join(f"--{name}: {value};" for name, value in named.items())


def _tokens(transcript: Transcript, token_strings: Mapping[int, str]) -> Iterator[str]:
    text = TokenText()
    text.extend(transcript.texts())
    steps = buckets(transcript, "probability", False, 0)
    for index, (shown, step) in enumerate(zip(text.display, steps, strict=True)):
        if shown:
            about = _text(_about(transcript.token(index), token_strings))
            yield f'<span class="p{step}" title="{about}">{_text(shown)}</span>'


def _about(token: TokenView, token_strings: Mapping[int, str]) -> str:
    rank = token.rank + 1 if token.rank >= 0 else "n/a"
    lines = [f"#{token.index} · {_percent(token.raw_logp)} · rank {rank}"]
    if not isnan(token.entropy):
        lines[0] += f" · {token.entropy / log(2):.2f} bits"
    lines += [
        f"{_percent(each.logp)}  {token_strings.get(each.id, f'id {each.id}')!r}"
        for each in token.top[:_SHOWN]
    ]
    return "\n".join(lines)


def _percent(logp: float) -> str:
    return "n/a" if isnan(logp) else f"{100 * exp(logp):.1f}%"


def _text(text: str) -> str:
    return escape(sanitise(text, tab="\t"))
