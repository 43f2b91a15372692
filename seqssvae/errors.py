"""The one family of exceptions for mistakes a user can mend.

The command line prints their message on one line, without a traceback, and exits with status 2.
"""

import re

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def printable(text: str) -> str:
    """Return a text with control characters, which a terminal would obey, as escapes.

    Example:
        >>> printable("a\\x1b[2Jb")
        'a\\\\x1b[2Jb'
    """
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


class UserError(Exception):
    """A mistake in what the user gave; the message says what, where, and what would be right.

    It is one line, whatever the names in it that somebody gave.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class ConfigurationError(UserError, ValueError):
    """A field of the configuration is unknown, has a wrong value, or contradicts another."""


class DataError(UserError, ValueError):
    """A data file, or a row of it, cannot be used; the message names file and line."""


class RunError(UserError):
    """A run directory is missing, incomplete, in the way, or not what it should be."""


class BackendError(UserError, ImportError):
    """A twin that was asked for is not installed; the message names the extra to install."""


class MissingPackageError(UserError, ImportError):
    """A package that was asked for is not installed; the message says how to install it."""


class HubError(UserError):
    """A repository of a hub cannot be read or written; the message says why."""


class NonFiniteError(UserError):
    """A model gives a value that is not finite; the message names term and rows."""
