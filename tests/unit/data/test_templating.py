from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantship.data import Example
from quantship.data.templating import IGNORED, encode
from quantship.errors import DataError, QuantshipError
from quantship.tiny import CHAT_TEMPLATE, END_ROLE, build_tokenizer

TOKENIZER = build_tokenizer(max_length=256)
TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40).filter(
    lambda text: text.strip() and "<|" not in text
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant"]), "content": TEXT}
    ),
    min_size=1,
    max_size=6,
).filter(lambda messages: any(message["role"] == "assistant" for message in messages))

LLAMA2 = (
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '<|end|>[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ ' ' + message['content'] | trim + ' <|im_end|>' }}{% endif %}{% endfor %}"
)
PLAIN = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
COUNTING = "{{ messages | length }}" + CHAT_TEMPLATE
REFUSING = "{{ raise_exception('roles must alternate') }}"


def example(*turns: tuple[str, str], raw: bool = False) -> Example:
    messages = tuple({"role": role, "content": content} for role, content in turns)
    return Example(messages, "chats.jsonl:7", raw=raw)


def learned(encoded) -> str:
    return TOKENIZER.decode([label for label in encoded.labels if label != IGNORED])


@settings(deadline=None)
@given(MESSAGES)
def test_what_is_learned_is_what_the_assistant_says_and_its_end(messages):
    encoded = encode(Example(tuple(messages), "here"), TOKENIZER, None, True)
    said = [message["content"] for message in messages if message["role"] == "assistant"]
    assert learned(encoded) == "".join(content + END_ROLE for content in said)


@settings(deadline=None)
@given(MESSAGES)
def test_masking_changes_labels_only_and_labels_are_ids_or_ignored(messages):
    chat = Example(tuple(messages), "here")
    masked, whole = (encode(chat, TOKENIZER, None, mask) for mask in (True, False))
    assert masked.input_ids == whole.input_ids == whole.labels
    assert all(
        label in (IGNORED, token)
        for label, token in zip(masked.labels, masked.input_ids, strict=True)
    )


@settings(deadline=None)
@given(MESSAGES)
def test_a_chat_is_tokenized_as_the_template_renders_it(messages):
    encoded = encode(Example(tuple(messages), "here"), TOKENIZER, None, False)
    assert TOKENIZER.decode(encoded.input_ids) == TOKENIZER.apply_chat_template(
        messages, tokenize=False
    )


@settings(deadline=None)
@given(TEXT)
def test_running_text_is_tokenized_as_it_stands_and_learned_whole(text):
    raw = example(("assistant", text), raw=True)
    encoded = encode(raw, TOKENIZER, REFUSING, True)
    assert TOKENIZER.decode(encoded.input_ids) == text
    assert encoded.labels == encoded.input_ids


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (LLAMA2, " yes <|im_end|> no <|im_end|>"),
        (PLAIN, " yes \nno\n"),  # white space is the only end marker there is
    ],
)
def test_other_templates_end_their_turns_in_their_own_way(template, expected):
    chat = example(("user", "a?"), ("assistant", " yes "), ("user", "b?"), ("assistant", "no"))
    assert learned(encode(chat, TOKENIZER, template, True)) == expected


def test_a_content_like_the_end_of_a_turn_is_learned_without_the_line_end():
    chat = example(("user", "How does it end?"), ("assistant", "|>"))
    assert learned(encode(chat, TOKENIZER, None, True)) == "|>" + END_ROLE


def test_a_beginning_token_of_the_template_is_not_doubled():
    from tokenizers.processors import TemplateProcessing

    tokenizer = build_tokenizer(max_length=256)
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|end|> $A", special_tokens=[("<|end|>", end)]
    )
    assert tokenizer("a")["input_ids"][0] == end
    for mask_prompt in (True, False):
        chat = example(("user", "a?"), ("assistant", "b"))
        assert encode(chat, tokenizer, LLAMA2, mask_prompt).input_ids.count(end) == 1


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (REFUSING, "the chat template fails: roles must alternate"),
        ("{{ messages[0].content.no_such() }}", "the chat template fails"),
        ("{{ 1 / 0 }}", "the chat template fails"),
        ("{% for %}", "the chat template fails"),
        (CHAT_TEMPLATE + "{{ '' if add_generation_prompt else '.' }}", "up to message 1 differ"),
        (COUNTING, "writes the chat up to message 1 differently"),
    ],
)
def test_a_template_that_fails_or_is_not_stable_names_the_record(template, says):
    chat = example(("user", "a?"), ("assistant", "b"), ("user", "c?"), ("assistant", "d"))
    with pytest.raises(DataError) as caught:
        encode(chat, TOKENIZER, template, True)
    assert caught.value.origin == "chats.jsonl:7"
    assert says in str(caught.value)


def test_an_unstable_template_will_do_where_nothing_is_masked():
    chat = example(("user", "a?"), ("assistant", "b"))
    assert TOKENIZER.decode(encode(chat, TOKENIZER, COUNTING, False).input_ids).startswith("2<")


def test_a_tokenizer_without_offsets_is_refused_for_masking_only():
    from transformers import ByT5Tokenizer

    chat = example(("user", "a?"), ("assistant", "b"))
    with pytest.raises(QuantshipError, match="fast tokenizer"):
        encode(chat, ByT5Tokenizer(), PLAIN, True)
    assert encode(chat, ByT5Tokenizer(), PLAIN, False).input_ids


@pytest.mark.parametrize("content", ["b", " b", "  b ", "\nb", "b c  d"])
def test_trimmed_offsets_put_every_space_where_it_belongs(content):
    from tokenizers import processors

    tokenizer = build_tokenizer(max_length=256)
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    assert tokenizer("a ", return_offsets_mapping=True)["offset_mapping"][1] == (2, 2)
    chat = example(("user", "a "), ("assistant", content))
    assert learned(encode(chat, tokenizer, PLAIN, True)) == content + "\n"
