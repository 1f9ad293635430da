# ruff: noqa: E501 — templates stand as they are published
from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_tui.engine.checkpoints.checkpoint import Checkpoint, open_checkpoint
from edge_tui.engine.port import Message
from edge_tui.engine.text import template_process
from edge_tui.engine.text.chat_template import ChatError, render, thinking_open, unread
from tests.engine.random_checkpoints import make_checkpoint
from tests.engine.template_bombs import BOMBS

CHATML = (
    "{%- for message in messages %}{%- if loop.first and messages[0]['role'] != 'system' %}"
    "{{- '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{%- endif %}"
    "{{- '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
    "{% set system_message = false %}{% endif %}{% for message in loop_messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
LLAMA3 = """{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not date_string is defined %}
    {%- set date_string = strftime_now("%d %b %Y") if strftime_now is defined else "26 Jul 2024" %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
MISTRAL = """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set ns = namespace(index=0) %}
{%- for message in loop_messages %}
    {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
        {{- raise_exception("After the optional system message, roles must alternate user/assistant") }}
    {%- endif %}
    {%- set ns.index = ns.index + 1 %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " ~ message["content"]|trim ~ eos_token}}
    {%- endif %}
{%- endfor %}
"""
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for message in messages %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}"
    "{% else %}{% set role = message['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)
QWEN3 = """{%- for message in messages %}
    {%- if message.content is string %}{%- set content = message.content %}{%- else %}{%- set content = '' %}{%- endif %}
    {%- if message.role == "assistant" and '</think>' in content %}
        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{{- {"model": "é<b>", "list": [1, 2.5, none]}|tojson }}{{ messages|map(attribute='role')|join(', ') }}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}"""
TRAINING = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}"
    "{% else %}{{ m.content }}{% endif %}{% if loop.index > 3 %}{% break %}{% endif %}{% endfor %}"
)
TEMPLATES = {
    "chatml": CHATML,
    "llama2": LLAMA2,
    "llama3": LLAMA3,
    "mistral": MISTRAL,
    "gemma": GEMMA,
    "qwen3": QWEN3,
    "training": TRAINING,
}
TOKENS = {"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": False}, "add_bos_token": True}


def checkpoint(template: str | None) -> Checkpoint:
    config = TOKENS
    return Checkpoint(
        "org/model", Path(), {}, "LlamaForCausalLM", {}, tokenizer_config=config, chat_template=template
    )


def reference(template: str, turns: list[Message]) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    conversation = [{"role": turn.role, "content": turn.content} for turn in turns]
    rendered, _ = render_jinja_template(
        [conversation],
        chat_template=template,
        add_generation_prompt=True,
        bos_token="<s>",
        eos_token="</s>",
    )
    return str(rendered[0])


CONVERSATIONS = [
    [Message("user", " Why is the sky blue? ")],
    [
        Message("system", "Be brief."),
        Message("user", "Hi <b>&</b> 👋\n"),
        Message("assistant", "a</think>\nb"),
    ],
    [Message("user", "1"), Message("assistant", "2"), Message("user", "3\n\n")],
    [Message("user", "1"), Message("user", "2")],
]


@pytest.mark.parametrize("turns", CONVERSATIONS, ids=["one", "system", "three", "not alternating"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_render_as_transformers_renders_them(name: str, turns: list[Message]) -> None:
    from jinja2 import TemplateError

    template = TEMPLATES[name]
    try:
        expected = reference(template, turns)
    except TemplateError as error:
        with pytest.raises(ChatError, match=str(error.message).split("(")[0].split("/")[0]):
            render(checkpoint(template), turns)
    else:
        assert render(checkpoint(template), turns) == expected


@given(content=st.text(max_size=60))
@settings(max_examples=20)
def test_any_content_is_passed_on(content: str) -> None:
    turns = [Message("user", content)]
    assert render(checkpoint(CHATML), turns) == reference(CHATML, turns)


@pytest.mark.parametrize("name", TEMPLATES)
def test_variables_that_a_template_does_not_read_are_known(name: str) -> None:
    read = {
        "llama3": {"messages", "date_string", "custom_tools"},
        "qwen3": {"messages", "enable_thinking", "add_generation_prompt"},
    }.get(name, {"messages"})
    variables = dict.fromkeys([*sorted(read), "enable_thinkng"])
    assert unread(checkpoint(TEMPLATES[name]), variables) == ("enable_thinkng",)


@pytest.mark.parametrize(
    ("config", "older"),
    [
        ({}, {}),
        ({"bos_token": None, "eos_token": "<e>"}, {}),
        ({"bos_token": "<b>", "pad_token": {"__type": "AddedToken", "content": "<p>"}}, {}),
        ({}, {"bos_token": "<a>", "eos_token": {"content": "<e>", "lstrip": False}}),
        ({"bos_token": "<b>"}, {"bos_token": "<a>", "eos_token": "<e>"}),
        ({"bos_token": "<b>", "added_tokens_decoder": {}}, {"bos_token": "<a>", "eos_token": "<e>"}),
        ({"image_token": "<i>", "add_bos_token": True}, {}),
        ({"extra_special_tokens": {"boi": "<boi>", "image_token": "<i>"}}, {}),
        ({"extra_special_tokens": ["<boi>"]}, {"mask_token": "<m>"}),
        ({"model_specific_special_tokens": {"boi": "<boi>"}}, {}),
        ({"tokenizer_class": "GPT2Tokenizer"}, {}),
        ({"tokenizer_class": "Qwen2Tokenizer", "pad_token": "<p>"}, {}),
    ],
)
def test_special_tokens_are_those_of_transformers(
    tmp_path: Path, config: dict[str, object], older: dict[str, object]
) -> None:
    from transformers import AutoTokenizer

    folder = make_checkpoint(tmp_path / "m")
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "special_tokens_map.json").write_text(json.dumps(older))
    names = "bos_token, eos_token, unk_token, pad_token, mask_token, image_token, boi, add_bos_token"
    (folder / "chat_template.jinja").write_text(f"{{{{ [{names}] }}}}")
    turns = [{"role": "user", "content": "x"}]
    expected = AutoTokenizer.from_pretrained(folder).apply_chat_template(turns, tokenize=False)
    assert render(open_checkpoint(str(folder)), [Message("user", "x")]) == expected


def test_without_a_template_there_is_nothing_to_render() -> None:
    assert render(checkpoint(None), [Message("user", "x")]) is None


LIMITS = {
    "takes more than 2 s": BOMBS["equal"],
    "takes more than 256 MB of memory": BOMBS["repetition"],
    "writes more than 4,000,000 characters": BOMBS["output"],
    "nested too deeply": BOMBS["endless macro"],
}


@pytest.mark.parametrize("limit", LIMITS)
def test_a_limit_is_one_sentence_and_the_next_template_renders(
    limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if limit == "takes more than 2 s":
        monkeypatch.setattr(template_process, "SECONDS", 0.5)
    with pytest.raises(ChatError, match=limit) as caught:
        render(checkpoint(LIMITS[limit]), [Message("user", "x")])
    assert str(caught.value).startswith("The chat template of org/model cannot render this conversation (")
    assert str(caught.value).endswith("or switch the template off to complete raw text.")
    assert render(checkpoint("{{ messages[0].content }}"), [Message("user", "x")]) == "x"


def test_a_process_that_does_not_start_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    render(checkpoint(CHATML), [Message("user", "x")])
    monkeypatch.setattr(sys, "executable", "/no/python")
    with pytest.raises(ChatError, match="more than 4,000,000"):  # ends the process there is
        render(checkpoint(BOMBS["output"]), [Message("user", "x")])
    with pytest.raises(ChatError, match="does not start") as caught:
        render(checkpoint(CHATML), [Message("user", "x")])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages.append(1) }}",
        "{{ messages[0].__class__.__mro__ }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ '{0.__class__.__mro__}'.format(messages) }}",
        "{% set n = namespace(_a=1) %}x",
        "{% set n = namespace() %}{% set n._a = 1 %}x",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{% if %}",
        "",
        "{{ messages[9].content }}",
        "{{ 1 / 0 }}",
        "{{ nothing() }}",
        "{{ messages|nothing }}",
        "{{ 'x' + 1 }}",
        "{{ raise_exception('two\nlines') }}",
    ],
)
def test_what_a_template_may_not_do_is_one_sentence(template: str) -> None:
    with pytest.raises(ChatError) as caught:
        render(checkpoint(template), [Message("user", "x")])
    assert "\n" not in str(caught.value)


def test_variables_reach_the_template_and_cannot_stand_for_the_conversation() -> None:
    turns = [Message("user", "x")]
    wanted = {"enable_thinking": False, "list": [1, {"a": None}], "2": "é\ud800"}
    template = "{{ enable_thinking }}{{ list }}{{ date is defined }}"
    assert render(checkpoint(template), turns, variables=wanted) == "False[1, {'a': None}]False"
    assert str(render(checkpoint(QWEN3), turns, variables=wanted)).endswith("<think>\n\n</think>\n\n")
    for name in ("messages", "tools", "documents", "add_generation_prompt", "bos_token", "pad_token"):
        with pytest.raises(ChatError, match=f"variable '{name}' is set from"):
            render(checkpoint(CHATML), turns, variables={name: "x"})
    with pytest.raises(ChatError, match="JSON cannot hold it"):
        render(checkpoint(CHATML), turns, variables={"x": object()})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<|im_start|>assistant\n<think>\n", True),
        ("assistant<think>", True),
        ("<think>\n\n</think>\n\n", False),
        ("<think>a", False),
        ("", False),
    ],
)
def test_an_opened_thought_is_seen(text: str, expected: bool) -> None:
    assert thinking_open(text) is expected
