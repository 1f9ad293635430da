from __future__ import annotations

import xml.etree.ElementTree

from tools.contact_sheet import COLUMNS, SHEET, SHOWN, sheet


def test_the_sheet_shows_the_pictures_as_they_are() -> None:
    assert SHEET.read_text(encoding="utf-8") == sheet(), "write it anew: make screenshots"


def test_it_is_one_picture_of_many() -> None:
    root = xml.etree.ElementTree.fromstring(sheet())
    inner = [child for child in root if child.tag.endswith("svg")]
    assert len(inner) == len(SHOWN)
    assert len({(child.get("x"), child.get("y")) for child in inner}) == len(SHOWN)
    assert len({child.get("x") for child in inner}) == COLUMNS
