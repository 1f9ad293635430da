"""`edge-tui verify`: compares strategies with independent references."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_tui import decoders
from edge_tui.cli.flag_settings import load_settings, pop_flags
from edge_tui.cli.messages import print_line
from edge_tui.errors import UsageError
from edge_tui.util.atomic_write import PUBLIC, replace_file
from edge_tui.util.json_text import finite

if TYPE_CHECKING:
    from edge_tui.decoders.base import Decoder
    from edge_tui.verify.finding import Finding


def run(flags: dict[str, Any]) -> int:
    """Prints how each strategy compares with each of its references.

    Returns:
        0, or 1 if a strategy differs from a reference or is shipped without one, or a file cannot be read.

    Raises:
        UsageError: there is no such strategy, or no folder for the file.
    """
    own = pop_flags(flags, ("names", "cases", "json_file", "quiet"))
    _, notices = load_settings(flags)
    file = Path(own["json_file"]) if own["json_file"] else None
    if file is not None and not file.parent.is_dir():
        raise UsageError(f"there is no folder {file.parent} for the results; make it, or name another.")
    chosen = _strategies(own["names"])
    problems = [] if own["names"] else decoders.current().problems  # a named one is refused with its reason
    for notice in (*notices, *problems):
        print_line(str(notice), sys.stderr)
    found: list[Finding] = []
    from edge_tui.verify.finding import HEADER, manifest, table_line
    from edge_tui.verify.verify import verify

    width = max(len(decoder.name) for decoder in chosen)
    if not own["quiet"]:
        print_line(table_line(HEADER, width))
    for finding in verify(chosen, own["cases"]):
        found.append(finding)
        if finding.failed or not own["quiet"]:
            print_line(table_line(finding.cells(), width))
            for sentence in finding.sentences():
                print_line(f"  {sentence}")
    if file is not None:
        results = {
            "versions": manifest(),
            "cases": own["cases"],
            "findings": [each.as_dict() for each in found],
        }
        replace_file(file, json.dumps(finite(results), indent=1, ensure_ascii=False) + "\n", PUBLIC)
    failed = sorted({each.strategy for each in found if each.failed})
    if failed:
        print_line(f"{len(failed)} of {len(chosen)} differ: {', '.join(failed)}.", sys.stderr)
    return int(bool(failed or problems))


def _strategies(names: list[str]) -> list[Decoder]:
    """Finds the named strategies, or all."""
    from edge_tui.verify.verify import find

    try:
        return find(names)
    except decoders.UnknownStrategy as error:
        raise UsageError(str(error)) from error
