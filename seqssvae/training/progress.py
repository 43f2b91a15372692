"""What a user sees while a model trains: a bar on a terminal, a line now and then elsewhere, or nothing."""

import sys

from seqssvae.training.progress_lines import Progress, ProgressLines


def progress(title: str, quiet: bool = False, summary: bool = False) -> Progress:
    """Return what shows a user how training goes: a bar where stderr is a terminal, lines on stderr elsewhere.

    Args:
        title: What is trained.
        quiet: Whether nothing is shown instead.
        summary: Whether the last evaluation is shown in any case, which is of use where no table follows.
    """
    if quiet or sys.stderr is None:
        return Progress(title)
    from seqssvae.training.progress_bar import ProgressBar, terminal  # loads rich

    console = terminal()
    return ProgressLines(title, summary) if console is None else ProgressBar(title, console, summary)
