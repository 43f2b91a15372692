"""The configuration as a YAML file that explains itself."""

import inspect
import textwrap
from collections.abc import Iterator
from typing import Any, get_type_hints

import docstring_parser

from seqssvae.config import Config
from seqssvae.config.fields import is_section
from seqssvae.config.settings import Settings, from_dict, to_dict, to_plain_yaml

WIDTH = 100
"""Most characters of a comment's line."""


def template(settings: Settings) -> str:
    """Return every field with what its docstring says, as a YAML document.

    Args:
        settings: Some fields, nested as in `Config`; the others have their defaults.

    Example:
        >>> print(template({})[:95])
        # Where the rows are and how they are read.
        data:
          # File to learn from (TSV, CSV, FASTA, JSON
    """
    return "".join(f"{line}\n" for line in _lines(Config, to_dict(from_dict(settings)), ""))


def _lines(cls: type, values: dict[str, Any], indent: str) -> Iterator[str]:
    texts = {of.arg_name: of.description or "" for of in docstring_parser.parse(inspect.getdoc(cls) or "").params}
    for name, kind in get_type_hints(cls).items():
        text = " ".join(texts[name].split()).replace("`", "")
        yield from textwrap.wrap(text, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
        if is_section(kind):
            yield f"{indent}{name}:"
            yield from _lines(kind, values[name], f"{indent}  ")
        else:
            yield f"{indent}{to_plain_yaml({name: values[name]}, in_one_line=True)}"
