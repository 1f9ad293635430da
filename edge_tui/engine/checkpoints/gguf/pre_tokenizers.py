"""Lists how byte-level BPE splits a text, by the name in `tokenizer.ggml.pre`.

Where llama.cpp notes a model's own expression and only comes near it, as near Tekken's and GPT-4o's because
its library knows no marks and no cases but ASCII's, the model's own stands here.

Not listed, and so refused, are names that llama.cpp splits by code which differs from the model's expression
even in ASCII (kimi-k2, youtu, tiny_aya, cohere2moe, afmoe), those without bytes (gemma4, sarvam-moe,
whitespace), those of encoders (jina, roberta, granite-embed), and superbpe, whose expression takes the square
of a run of digits in time.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers.pre_tokenizers import PreTokenizer as Splitter


def _any(*expressions: str) -> str:
    """Joins expressions of which the first that fits is taken."""
    return "|".join(expressions)


_RUNS = r"\s+(?!\S)|\s+"
_LINES = r"\s*[\r\n]+"
_SPACES = rf"{_LINES}|{_RUNS}"
_GPT2 = _any(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+", _RUNS)
_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_BEFORE = r"[^\r\n\p{L}\p{N}]?"
_WORD = rf"{_BEFORE}\p{{L}}+"
_SIGNS = r" ?[^\s\p{L}\p{N}]+"
_SIGN_LINES = rf"{_SIGNS}[\r\n]*"
_BY_THREE = r"\p{N}{1,3}"
_LLAMA3 = _any(_ENDINGS, _WORD, _BY_THREE, _SIGN_LINES, _SPACES)
_MINICPM5 = _any(_ENDINGS, _WORD, r"\p{N}+", _SIGN_LINES, _SPACES)
_HALVES = r"\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)"
_JAIS2 = _any(_ENDINGS, _WORD, _BY_THREE, _SIGN_LINES, _LINES, _HALVES, r"\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}")
_UFAKZEKA = _any(_WORD, r"\p{N}", _SIGN_LINES, _SPACES)
_QWEN2 = _any(_ENDINGS, _UFAKZEKA)
_MARKED = r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
_QWEN35 = _any(_ENDINGS, _MARKED, _SPACES)
_SEED = _any(_ENDINGS, _WORD, r"\p{N}| ?[^\s\p{L}\p{N}\r\n]+", _SPACES)
_BAILING = _any(r"'(?i:[sdmt]|ll|ve|re)", _WORD, r"\p{N}", _SIGN_LINES, r"\s*[\r\n]", _RUNS)
_PHRASE = rf"{_BEFORE}(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+"
_EXAONE_MOE = _any(_ENDINGS, _PHRASE, r"\p{N}", rf"{_SIGNS}[\r\n/]?", r"\s*[\r\n]", _RUNS)
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_LOW, _HIGH = rf"{_BEFORE}{_UPPER}*{_LOWER}+", rf"{_BEFORE}{_UPPER}+{_LOWER}*"
_TEKKEN = _any(_LOW, _HIGH, r"\p{N}", rf"{_SIGNS}[\r\n/]*", _SPACES)
_GPT4O = _any(f"{_LOW}{_ENDINGS}?", f"{_HIGH}{_ENDINGS}?", _BY_THREE, rf"{_SIGNS}[\r\n/]*", _SPACES)
_CASED = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373"
    "\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481"
    "\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf"
    "\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d"
    "\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4"
    "\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107"
    "\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f"
    "\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d"
    "\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17"
    "\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb"
    "\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
)
"""Letters with a case, as the first of DeepSeek's models list them."""
_MARKS = "!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002"
_EAST = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
_KANA = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
_CODE = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"| ?[\p{P}\p{S}]+"
)
_DEEPSEEK3 = _any(rf"{_CODE}[\r\n]*", _SPACES)
_SPARK = _any(_CODE, r"[\r\n]", _RUNS)
_CHAMELEON = ("<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", r"([\t\n]|    |  )")
_BLOOM = " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """Describes how a text is split before byte-level BPE.

    Attributes:
        patterns: Applied one after another: matches and what lies between them are pieces.
        compose: True if the text is brought to Unicode's composed form first.
        whole_words: True if a piece that is a token is not put together by merges.
        begin: True if a raw text begins with the BOS token unless the file says otherwise.
    """

    patterns: tuple[str, ...]
    compose: bool = False
    whole_words: bool = False
    begin: bool = False

    def splitter(self) -> Splitter:
        """Makes what splits a text and writes its bytes as letters."""
        from tokenizers import Regex, pre_tokenizers

        splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in self.patterns]
        return pre_tokenizers.Sequence(
            [*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )


_NAMES = {
    "default": PreTokenizer((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]")),
    "falcon": PreTokenizer((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]")),
    "gpt-2 phi-2 gigachat a.x-4.0 mellum exaone4 jais trillion granite-docling": PreTokenizer((_GPT2,)),
    "mpt olmo": PreTokenizer((_GPT2,), compose=True),
    "smollm starcoder refact codeshell exaone minerva-7b mellum2": PreTokenizer((r"\p{N}", _GPT2)),
    "command-r": PreTokenizer((r"\p{N}", _GPT2), compose=True),
    "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2": PreTokenizer(
        (_LLAMA3,), whole_words=True, begin=True
    ),
    "smaug-bpe dbrx chatglm-bpe": PreTokenizer((_LLAMA3,)),
    "glm4 glm5": PreTokenizer((_LLAMA3,), whole_words=True),
    "minicpm5": PreTokenizer((_BY_THREE, _MINICPM5), whole_words=True),
    "jais-2": PreTokenizer((_JAIS2,)),
    "qwen2 deepseek-r1-qwen": PreTokenizer((_QWEN2,), compose=True),
    "stablelm2 kormo megrez hunyuan solar-open grok-2": PreTokenizer((_QWEN2,)),
    "qwen35": PreTokenizer((_QWEN35,), compose=True),
    "ufakzeka": PreTokenizer((_UFAKZEKA,)),
    "laguna": PreTokenizer((r"[^\n]+|[\n]+", _QWEN2)),
    "seed-coder": PreTokenizer((_SEED,)),
    "bailingmoe bailingmoe2 llada-moe": PreTokenizer((_BAILING,)),
    "exaone-moe": PreTokenizer((_EXAONE_MOE,)),
    "tekken": PreTokenizer((_TEKKEN,), whole_words=True, begin=True),
    "gpt-4o llama4 kanana2 talkie minimax-m2": PreTokenizer((_GPT4O,)),
    "deepseek-llm": PreTokenizer(
        (r"[\r\n]", rf"\s?[{_CASED}]+", rf"\s?[{_MARKS}]+", r"\s+$", _EAST, r"\p{N}+")
    ),
    "deepseek-coder": PreTokenizer((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _EAST, r"\p{N}")),
    "deepseek-v3 hunyuan-dense joyai-llm hy_v4": PreTokenizer((_BY_THREE, _KANA, _DEEPSEEK3)),
    "spark2_5": PreTokenizer((_BY_THREE, _KANA, _SPARK, r"\p{N}")),
    "poro-chat bloom gpt3-finnish": PreTokenizer((_BLOOM,)),
    "viking": PreTokenizer((_BLOOM, r"\p{N}")),
    "chameleon": PreTokenizer((*_CHAMELEON, r"\p{N}", r"[\p{P}!-/:-@\[-`{-~]", _GPT2), begin=True),
}
PRE_TOKENIZERS = {name: how for names, how in _NAMES.items() for name in names.split()}
"""Pre-tokenizers that are read, by `tokenizer.ggml.pre`."""
