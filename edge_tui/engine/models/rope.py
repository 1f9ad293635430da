"""Makes tables of cosines and sines for rotary position embeddings and their extensions.

Frequencies are computed once, for the length a run can reach, so a decode step only looks rows up. The
long rope of Phi-3 has two sets of factors, chosen by sequence length; here the choice is made per run, by
the positions that prompt and new tokens may reach, because keys that were rotated under one set cannot be
compared with queries rotated under the other.

Sources: RoPE arXiv 2104.09864, YaRN 2309.00071, LongRoPE 2402.13753, Llama 3.1 2407.21783.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from edge_tui.engine.models.architectures import RopeConfig


def inverse_frequencies(rope: RopeConfig, length: int) -> tuple[Tensor, float]:
    """Computes radians per position, float32 `[dim / 2]`, and the factor on cosines and sines.

    Args:
        rope: The model's rotary embedding.
        length: Positions that the run can reach; only the long rope looks at it.
    """
    exponents = torch.arange(0, rope.dim, 2, dtype=torch.float32) / rope.dim
    plain = 1.0 / rope.theta**exponents
    s = rope.scaling
    match rope.kind:
        case "linear":
            return plain / s["factor"], 1.0
        case "llama3":
            return _llama3(plain, rope), 1.0
        case "yarn":
            return _yarn(plain, rope)
        case "factors":
            return plain / torch.tensor(s["factors"], dtype=torch.float32), 1.0
        case "proportional":
            return _proportional(rope), 1.0
        case "longrope":
            factors = s["long_factor"] if length > rope.original else s["short_factor"]
            scaled = 1.0 / (torch.tensor(factors, dtype=torch.float32) * rope.theta**exponents)
            return scaled, longrope_attention(rope)
        case _:
            return plain, 1.0


def tables(
    rope: RopeConfig, length: int, device: str | torch.device, dtype: torch.dtype, total: int = 0
) -> tuple[Tensor, Tensor]:
    """Returns cosines and signed sines for positions 0 … length − 1, each `[length, dim]`.

    `total` is what `inverse_frequencies` takes as the run's length.

    The sines of the first half are negated: a head is rotated by
    `x * cos + roll(x, dim / 2) * sin`, which needs no copy of its negated half.
    """
    frequencies, scale = inverse_frequencies(rope, total)
    angles = torch.outer(torch.arange(length, dtype=torch.float32), frequencies)
    cos, sin = angles.cos() * scale, angles.sin() * scale
    return (
        torch.cat((cos, cos), -1).to(device, dtype),
        torch.cat((-sin, sin), -1).to(device, dtype),
    )


def _proportional(rope: RopeConfig) -> Tensor:
    """Computes frequencies over a whole head, those beyond the rotated share zero."""
    turning = int(float(rope.scaling.get("partial_rotary_factor", 1.0)) * rope.dim // 2)
    frequencies = torch.zeros(rope.dim // 2)
    exponents = torch.arange(0, 2 * turning, 2, dtype=torch.float32) / rope.dim
    frequencies[:turning] = 1.0 / rope.theta**exponents
    return frequencies / float(rope.scaling.get("factor", 1.0))


def _llama3(plain: Tensor, rope: RopeConfig) -> Tensor:
    factor, low, high = (float(rope.scaling[k]) for k in ("factor", "low_freq_factor", "high_freq_factor"))
    wavelength = 2 * math.pi / plain
    smooth = (rope.original / wavelength - low) / (high - low)
    blended = (1 - smooth) * plain / factor + smooth * plain
    slow, fast = wavelength > rope.original / low, wavelength < rope.original / high
    return torch.where(slow, plain / factor, torch.where(fast, plain, blended))


def _yarn(plain: Tensor, rope: RopeConfig) -> tuple[Tensor, float]:
    """Mixes plain and interpolated frequencies by wavelength (YaRN, arXiv 2309.00071)."""
    s = rope.scaling
    factor = float(s.get("factor") or rope.context / rope.original)

    def turns_to_dim(turns: float) -> float:
        return rope.dim * math.log(rope.original / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = turns_to_dim(s.get("beta_fast") or 32), turns_to_dim(s.get("beta_slow") or 1)
    if s.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rope.dim - 1)
    ramp = (torch.arange(rope.dim // 2, dtype=torch.float32) - low) / (high - low or 0.001)
    interpolate = ramp.clamp(0, 1)

    def magnitude(m: float = 1.0) -> float:
        return 0.1 * m * math.log(factor) + 1.0 if factor > 1 else 1.0

    attention = s.get("attention_factor")
    if attention is None:
        m, m_all = s.get("mscale"), s.get("mscale_all_dim")
        attention = magnitude(m) / magnitude(m_all) if m and m_all else magnitude()
    return plain / factor * interpolate + plain * (1 - interpolate), float(attention)


def longrope_attention(rope: RopeConfig) -> float:
    """Returns the factor of the long rope on cosines and sines."""
    stated = rope.scaling.get("attention_factor")
    if stated is not None:
        return float(stated)
    factor = float(rope.scaling.get("factor") or rope.context / rope.original)
    return 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(rope.original))


def rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Rotates `[R, K, heads, D]` in place by tables of `rope.tables`; what they do not reach stays."""
    turning = heads[..., : cos.shape[-1]]
    half = turning.roll(cos.shape[-1] // 2, -1)
    turning.mul_(cos).addcmul_(half, sin)
