"""A hook of the site's build: each tutorial can be had as a notebook, too, which a line under its title links to."""

from pathlib import Path
from typing import Any

import jupytext

FOLDER = "tutorials/"
PYTHON = "---\njupyter:\n  kernelspec: {display_name: Python 3, language: python, name: python3}\n---\n\n"


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Link to the notebook, by HTML since no file of the sources is what it leads to."""
    if not page.file.src_uri.startswith(FOLDER):
        return markdown
    title, rest = markdown.split("\n", 1)
    name = f"{Path(page.file.src_uri).stem}.ipynb"
    return f'{title}\n\n<a href="../{name}" download>As a notebook</a>, without what it prints.\n{rest}'


def on_post_build(config: Any) -> None:
    """Write the notebooks beside the pages."""
    for source in sorted((Path(config.docs_dir) / FOLDER).glob("*.md")):
        notebook = jupytext.reads(PYTHON + source.read_text(encoding="utf-8"), fmt="md")
        for cell in notebook.cells:
            cell.metadata.clear()  # settings of the block for the site's build
        jupytext.write(notebook, Path(config.site_dir) / FOLDER / f"{source.stem}.ipynb")
