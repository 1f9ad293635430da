"""A strategy of a user's own with texts: it bans every token that holds one of some texts."""

from __future__ import annotations

from pathlib import Path

from edge_tui.config.settings import user_config

BAN = '''"""Bans texts."""

from edge_tui.decoders.base import Filter, Param, ParamError, TextParam


def no_digit(text):
    if any(char.isdigit() for char in text):
        raise ParamError(f"words has {text!r}, but must have no digit.")


class Ban(Filter):
    name = "ban"
    title = "ban"
    summary = "Draws from tokens without some texts."
    params = (
        TextParam("words", help="Texts that no token may hold.", many=True, check=no_digit),
        TextParam("start", help="The text that the first token begins with.", label="first"),
        Param("weight", 1.0, 0.0, 2.0, "Does nothing.", live=False),
    )

    def init(self, env):
        import torch

        spelt, start = env.tokenizer.token_bytes(), env.texts["start"].encode()
        if not any(each.startswith(start) for each in spelt):
            raise ParamError(f"start is {env.texts['start']!r}, but no token begins with it.", "start")
        words = [word.encode() for word in env.texts["words"]]
        barred = [any(word in each for word in words) for each in spelt[: env.vocab]]
        late = [not each.startswith(start) for each in spelt[: env.vocab]]
        step = torch.full((env.rows, 1), env.prefix, device=env.device)
        rows = {"barred": barred, "late": late}
        return {"step": step} | {
            name: torch.tensor([row], device=env.device).repeat(env.rows, 1) for name, row in rows.items()
        }

    def apply(self, z, p, s, rng):
        barred = s["barred"] | (s["late"] & (s["step"] == 0))
        s["step"] += 1
        return z.masked_fill(barred, float("-inf"))
'''


def write_ban() -> Path:
    """Puts the strategy where the settings look for the user's own; returns the configuration folder."""
    folder = user_config().parent
    (folder / "decoders").mkdir(parents=True)
    (folder / "decoders" / "ban.py").write_text(BAN)
    return folder
