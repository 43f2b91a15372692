"""Mistakes a user can mend are told in one line."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqssvae import errors
from seqssvae.config.settings import from_dict
from seqssvae.errors import UserError

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, UserError)]


@pytest.mark.parametrize("kind", KINDS)
@given(name=st.text())
def test_an_error_is_one_line_whatever_the_names_in_it(kind, name):
    message = str(kind(f"There is no {name!s}."))
    assert not set(message) & {*map(chr, range(32)), *map(chr, range(127, 160))}
    assert str(pickle.loads(pickle.dumps(kind(f"There is no {name!s}.")))) == message


@given(section=st.text("ab\n\r\x1b.", min_size=1), field=st.text("ab\n\r\x1b", min_size=1))
def test_an_unknown_field_is_named_in_one_line(section, field):
    for settings in ({section: {field: 1}}, {"objective": {section: 1}}):
        with pytest.raises(UserError) as caught:
            from_dict(settings)
        assert str(caught.value).isprintable()


def test_what_can_be_printed_stays():
    assert str(UserError("größer: 'a\\nb': 字")) == "größer: 'a\\nb': 字"
