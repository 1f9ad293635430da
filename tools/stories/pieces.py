"""Joins a file that travelled in pieces, and checks that it is the one that was sent.

`split -b 32M -d model.gguf DIR/model.gguf.` makes the pieces, and `sha256sum < model.gguf >
DIR/model.gguf.sha256` the checksum.
"""

from __future__ import annotations

import hashlib
from pathlib import Path


def model_file(path: Path) -> Path:
    """Returns the GGUF file that a path names, joined from the pieces in a folder if it is not whole yet.

    A folder in Hugging Face layout is returned as it is.

    Raises:
        ValueError: there is neither a file nor its pieces, or they are not what the checksum says.
    """
    if path.is_file() or (path / "config.json").exists():
        return path
    whole = next(iter(sorted(path.glob("*.gguf"))), None)
    if whole is not None:
        return whole
    sums = sorted(path.glob("*.gguf.sha256"))
    if not sums:
        raise ValueError(f"{path} holds neither a GGUF file nor pieces of one with their .sha256.")
    whole = sums[0].with_suffix("")
    pieces = sorted(path.glob(f"{whole.name}.[0-9]*"))
    expected = sums[0].read_text(encoding="ascii").split()[0]
    digest = hashlib.sha256()
    partial = whole.with_suffix(".joining")
    with partial.open("wb") as out:
        for piece in pieces:
            data = piece.read_bytes()
            digest.update(data)
            out.write(data)
    if digest.hexdigest() != expected:
        partial.unlink()
        raise ValueError(f"The {len(pieces)} pieces of {whole.name} are not the file of {sums[0].name}.")
    partial.replace(whole)
    return whole
