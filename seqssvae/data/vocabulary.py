"""Symbols and labels, and the numbers that stand for them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Int

from seqssvae.data.table import split_symbols
from seqssvae.errors import DataError

PAD, UNK, START, END = 0, 1, 2, 3
"""Ids of the special symbols, as in yoyodyne; ordinary symbols follow from 4."""
SPECIALS = ("<P>", "<UNK>", "<S>", "<E>")
"""Names of the special symbols, by id."""
NEVER_GENERATED = (PAD, START)
"""Ids whose probability is 0 at every step."""


def _check_names(kind: str, names: Sequence[str], reserved: Sequence[str] = ()) -> None:
    for name in names:
        if not name or name in reserved:
            raise DataError(f"A {kind} must be a text that is not empty and not reserved, not {name!r}.")
        if any("\ud800" <= character <= "\udfff" for character in name):
            raise DataError(f"A {kind} must be Unicode, which half a surrogate pair, as in {name!r}, is not.")
    if len(set(names)) != len(names):
        repeated = next(name for name, count in Counter(names).items() if count > 1)
        raise DataError(f"Each {kind} must stand there once, but {repeated!r} is repeated.")


def _stored_text(stored: Any, key: str, what: str) -> str:
    if not isinstance(stored, Mapping) or not isinstance(stored.get(key), str):
        raise DataError(f"The stored {what} must have a text named {key!r}.")
    return stored[key]


def _stored_names(stored: Any, key: str, what: str) -> tuple[str, ...]:
    names = stored.get(key) if isinstance(stored, Mapping) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"The stored {what} must have a list of texts named {key!r}.")
    return tuple(names)


@dataclass(frozen=True)
class Vocabulary:
    """The symbols that sequences are made of.

    A symbol whose text is that of a special symbol is read as UNK, so that what `decode` shows can be read again.

    Args:
        symbols: Ordinary symbols, by id from 4.
        separator: What separates the symbols of a sequence in text; empty: each character is a symbol.

    Raises:
        DataError: If a symbol is empty, repeated, or has the name of a special one.

    Example:
        >>> vocabulary = Vocabulary(("a", "b"), separator="")
        >>> vocabulary.encode("abc").tolist()
        [4, 5, 1, 3]
        >>> vocabulary.decode([4, 5, 1, 3, 0])
        ['a', 'b', '<UNK>']
    """

    symbols: tuple[str, ...]
    separator: str

    def __post_init__(self) -> None:
        _check_names("symbol", self.symbols, SPECIALS)

    @classmethod
    def from_counts(cls, counts: Mapping[str, int], separator: str, minimum_count: int = 1) -> "Vocabulary":
        """Make a vocabulary of the symbols, sorted, that occur at least this often.

        Args:
            counts: How often each symbol occurs; names of special symbols are left out.
            separator: What separates the symbols of a sequence in text.
            minimum_count: How often a symbol must occur.
        """
        kept = (symbol for symbol, count in counts.items() if count >= minimum_count and symbol not in SPECIALS)
        return cls(tuple(sorted(kept)), separator)

    def with_symbols(self, other: "Vocabulary") -> "Vocabulary":
        """This vocabulary, and behind its symbols those that another one, whose separator it gets, has beside them."""
        return Vocabulary(tuple(dict.fromkeys((*self.symbols, *other.symbols))), other.separator)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {symbol: id_ for id_, symbol in enumerate(self.symbols, start=len(SPECIALS))}

    def __len__(self) -> int:
        """V, special symbols included."""
        return len(SPECIALS) + len(self.symbols)

    def lookup(self, symbols: Iterable[str]) -> Int[np.ndarray, " M"]:
        """The id of each symbol, UNK where it is unknown."""
        return np.array([self._ids.get(symbol, UNK) for symbol in symbols], dtype=np.int32)

    def encode(self, symbols: Iterable[str]) -> Int[np.ndarray, " T"]:
        """The ids of a sequence of symbols, UNK for unknown ones, with END behind them."""
        return np.append(self.lookup(symbols), np.int32(END))

    def decode(self, ids: Sequence[int] | Int[np.ndarray, " T"]) -> list[str]:
        """The symbols of these ids up to the first END or PAD; UNK becomes its name, START is left out."""
        symbols = []
        for id_ in np.asarray(ids).tolist():
            if id_ in (END, PAD):
                break
            if id_ != START:
                symbols.append(SPECIALS[UNK] if id_ == UNK else self.symbols[id_ - len(SPECIALS)])
        return symbols

    def split(self, text: str) -> list[str]:
        """Split a text into symbols."""
        return split_symbols(text, self.separator)

    def join(self, symbols: Sequence[str]) -> str:
        """The text that `split` splits into these symbols."""
        return self.separator.join(symbols)

    def to_dict(self) -> dict[str, Any]:
        """The plain values that are stored as JSON."""
        return {"separator": self.separator, "symbols": list(self.symbols)}

    @classmethod
    def from_dict(cls, stored: Any) -> "Vocabulary":
        """Read what `to_dict` returned.

        Raises:
            DataError: If it is something else.
        """
        symbols = _stored_names(stored, "symbols", "vocabulary")
        return cls(symbols, _stored_text(stored, "separator", "vocabulary"))


@dataclass(frozen=True)
class Labels:
    """The classes, in the order of their ids.

    Args:
        names: Their names.

    Raises:
        DataError: If a name is empty or repeated.
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_names("label", self.names)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {name: id_ for id_, name in enumerate(self.names)}

    def __len__(self) -> int:
        """K, the number of classes."""
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self._ids

    def __str__(self) -> str:
        """The names in one line, the first twenty of them if there are more."""
        shown = ", ".join(self.names[:20])
        return shown if len(self) <= 20 else f"{shown} and {len(self) - 20} more"

    def index(self, name: str) -> int:
        """The id of a label.

        Raises:
            DataError: If there is no such label; the message names those that there are.
        """
        if name not in self._ids:
            raise DataError(f"There is no label {name!r}; known are {self}.")
        return self._ids[name]

    def to_dict(self) -> dict[str, Any]:
        """The plain values that are stored as JSON."""
        return {"names": list(self.names)}

    @classmethod
    def from_dict(cls, stored: Any) -> "Labels":
        """Read what `to_dict` returned.

        Raises:
            DataError: If it is something else.
        """
        return cls(_stored_names(stored, "names", "labels"))
