"""Where compiled programs are kept between processes."""

import os
from pathlib import Path


def compilation_cache() -> Path | None:
    """Return the directory in which a twin that compiles keeps its programs; None if it is to keep none.

    It is `seqssvae/jax` in the user's cache directory (`XDG_CACHE_HOME`, or else `~/.cache`). The environment variable
    `SEQSSVAE_CACHE` names another directory or, if it is empty, none.
    """
    directory = os.environ.get("SEQSSVAE_CACHE")
    if directory is not None:
        return Path(directory) if directory else None
    caches = os.environ.get("XDG_CACHE_HOME")
    return (Path(caches) if caches else Path.home() / ".cache") / "seqssvae" / "jax"
