from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantship.data.templating import IGNORED
from quantship.previewing import marking
from quantship.previewing.marking import rendered, visible
from quantship.tiny import build_tokenizer

TOKENIZER = build_tokenizer(max_length=4096)


@settings(deadline=None)
@given(
    text=st.text(st.characters(codec="ascii", min_codepoint=32, max_codepoint=126), min_size=1),
    data=st.data(),
)
def test_runs_are_the_text_and_alternate(text, data):
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    masked = data.draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids)))
    labels = [IGNORED if mask else token for mask, token in zip(masked, ids, strict=True)]
    found = rendered("file:1", ids, labels, TOKENIZER)
    assert "".join(run.text for run in found.runs) == text
    learnt = [run.learnt for run in found.runs]
    assert all(one != other for one, other in pairwise(learnt))
    assert (found.tokens, found.learnt_tokens) == (len(ids), masked.count(False))
    assert not found.is_cut


def test_a_long_record_shows_its_beginning(monkeypatch):
    monkeypatch.setattr(marking, "SHOWN_TOKENS", 5)
    ids = TOKENIZER("beginning", add_special_tokens=False)["input_ids"]
    found = rendered("file:1", ids, ids, TOKENIZER)
    assert found.runs[0].text == "begin"
    assert found.is_cut
    assert found.tokens == 9


@pytest.mark.parametrize("code", [0, 7, 8, 13, 27, 127, 0x9B])
def test_control_characters_do_nothing_on_a_terminal(code):
    shown = visible(f"a{chr(code)}[31mb\tc\nd")
    assert shown[0] == "a"
    assert shown[1].isprintable()
    assert shown[2:] == "[31mb\tc\nd"
