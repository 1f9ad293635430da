"""The turn that each token of a prompt is of, along what a chat template writes around the turns."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_tui.engine.events import PromptRead
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import Message, Request
from edge_tui.engine.text.token_roles import cut, marks_of, roles_of
from tests.engine.random_checkpoints import CHAT_TEMPLATE, EOS_ID, IM_END_ID, IM_START_ID, make_checkpoint
from tests.engine.text.test_control_tokens import START, TOKENIZERS
from tests.engine.watch import watch

END = "<|im_end|>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("models") / "chat", seed=3, chat_template=True)


@pytest.fixture
def read(open_engine: Callable[..., LocalEngine], folder: Path) -> Callable[..., PromptRead]:
    engine = open_engine(model=folder)

    def read_one(prompt: str | tuple[Message, ...], **more: object) -> PromptRead:
        request = Request(prompt, strategy="greedy", max_length=0, prompt_logps=True, **more)  # type: ignore[arg-type]
        found: PromptRead = watch(engine, request).all(PromptRead)[0]
        return found

    return read_one


def text_of(read: PromptRead, role: str) -> str:
    return "".join(text for text, own in zip(read.text, read.roles, strict=True) if own == role)


@pytest.mark.parametrize(
    "message",
    [
        "the fox",
        "  two blanks  before",
        "a\n\nb\n",
        "user",
        "assistant\n",
        "naïve 🦊 日本",
        f"no {END} here",
        " ",
    ],
)
def test_the_users_tokens_are_told_from_the_templates(read: Callable[..., PromptRead], message: str) -> None:
    turns = (Message("user", "first"), Message("assistant", "the dog"), Message("user", message))
    found = read(turns, system="be brief")
    assert text_of(found, "user") == "first" + message
    assert text_of(found, "assistant") == "the dog"
    assert text_of(found, "system") == "be brief"
    assert text_of(found, "") == "system\n\nuser\n\nassistant\n\nuser\n\nassistant\n"
    control = [token for token, role in zip(found.ids, found.roles, strict=True) if not role and token < 3]
    assert control == [IM_START_ID, IM_END_ID] * 4 + [IM_START_ID]
    assert found.control_ids == (IM_START_ID, IM_END_ID)


def test_control_tokens_that_are_allowed_are_the_users(read: Callable[..., PromptRead]) -> None:
    found = read(f"a{END}b", control_tokens=True)
    own = [token for token, role in zip(found.ids, found.roles, strict=True) if role == "user"]
    assert own.count(IM_END_ID) == 1


def test_kept_tokens_are_the_assistants(read: Callable[..., PromptRead]) -> None:
    found = read("the fox", prefix=(5, 6))
    assert found.roles[-2:] == ("assistant", "assistant")
    assert found.roles[-3] == ""


def test_a_raw_text_is_the_users_but_for_what_the_tokenizer_adds(
    open_engine: Callable[..., LocalEngine], tmp_path: Path
) -> None:
    folder = make_checkpoint(tmp_path / "bos", seed=3)
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    adds = {"add_bos_token": True, "bos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config | adds), encoding="utf-8")
    request = Request(" the dog", strategy="greedy", max_length=0, prompt_logps=True)
    found = watch(open_engine(model=folder), request).all(PromptRead)[0]
    assert found.ids[0] == EOS_ID
    assert found.roles == ("",) + ("user",) * (len(found.ids) - 1)


def test_turns_without_a_template_are_told_apart(read: Callable[..., PromptRead]) -> None:
    turns = (Message("user", "the"), Message("assistant", "fox"), Message("user", "dog"))
    found = read(turns, chat=False)
    assert [text_of(found, role) for role in ("user", "assistant", "")] == ["thedog", "fox", "\n\n"]


def test_a_template_may_change_the_text(open_engine: Callable[..., LocalEngine], tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "chat", seed=3)
    template = CHAT_TEMPLATE.replace("message['content']", "message['content'] | trim | upper")
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    request = Request("  the dog ", strategy="greedy", max_length=0, prompt_logps=True)
    found = watch(open_engine(model=folder), request).all(PromptRead)[0]
    assert text_of(found, "user") == "THE DOG"


def test_a_template_that_refuses_other_texts_leaves_the_roles_open(
    open_engine: Callable[..., LocalEngine], tmp_path: Path
) -> None:
    folder = make_checkpoint(tmp_path / "chat", seed=3)
    refusal = "{% if messages[0]['content'] != 'hi' %}{{ raise_exception('no') }}{% endif %}"
    (folder / "chat_template.jinja").write_text(refusal + CHAT_TEMPLATE, encoding="utf-8")
    request = Request("hi", strategy="greedy", max_length=0, prompt_logps=True)
    found = watch(open_engine(model=folder), request).all(PromptRead)[0]
    assert found.roles == ()
    assert len(found.ids) > 4


def test_the_thoughts_of_earlier_answers_may_be_left_out() -> None:
    turn = Message("assistant", "<think>\nhm\n</think>\n\nyes")
    mark = marks_of([turn], "[]")[0]
    assert cut("[yes]!", f"[{mark}]!", {mark: turn}) == [("", "["), ("assistant", "yes"), ("", "]!")]


def test_words_of_the_template_in_a_text_do_not_end_it() -> None:
    first, second = Message("user", "a]b"), Message("user", "]")
    one, two = marks_of([first, second], "[]")
    parts = cut("[a]b][]]", f"[{one}][{two}]", {one: first, two: second})
    assert parts is not None
    assert [text for role, text in parts if role] == ["a]b", "]"]


def test_a_template_that_writes_other_words_around_a_text_is_not_cut() -> None:
    turn = Message("user", "a")
    mark = marks_of([turn], "")[0]
    assert cut("<a>", f"({mark})", {mark: turn}) is None
    assert cut("(a)!", f"({mark})", {mark: turn}) is None


def test_a_token_over_an_edge_is_the_turns() -> None:
    parts = [("", "ab "), ("user", "cd"), ("", "ef")]
    spans = [(0, 2), (3, 5), (5, 6), (6, 7)]
    assert roles_of(parts, spans) == ["", "user", "", ""], "a span without its blank"
    assert roles_of(parts, [(0, 4), (4, 6), (6, 7)]) == ["user", "user", ""]


def test_every_byte_of_a_character_is_the_turns() -> None:
    parts = [("", "a"), ("user", "é"), ("", "b")]
    assert roles_of(parts, [(0, 1), (1, 2), (1, 2), (2, 3)]) == ["", "user", "user", ""]


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("text", ["the he", "  th  e ", "a\nb", f"he {END}\nhe", " "])
def test_positions_hold_with_every_kind_of_tokenizer(kind: str, text: str) -> None:
    """Normalizers and pre-tokenizers prepend, replace and lower what a text has; offsets see through all."""
    tokenizer = TOKENIZERS[kind]()
    masked = tokenizer.mask([text], "") if tokenizer.control_in([text]) else None
    hidden = masked.hide(text) if masked is not None else text
    parts = [("", f"{START}user\n"), ("user", hidden), ("", f"{END}\n{START}assistant\n")]
    texts, ids, spans = tokenizer.spans([part for _, part in parts], masked)
    roles = roles_of([(role, part) for (role, _), part in zip(parts, texts, strict=True)], spans)
    own = [token for token, role in zip(ids, roles, strict=True) if role]
    assert tokenizer.special.isdisjoint(own)
    spelled = b"".join(map(tokenizer.token_bytes, own)).decode()
    assert spelled.replace("<0x0A>", "\n").split() == text.split()
    if kind == "byte-level":
        assert spelled == text
    template = [token for token, role in zip(ids, roles, strict=True) if not role]
    assert [token for token in template if token in tokenizer.special] == [
        tokenizer.control[name] for name in (START, END, START)
    ]
