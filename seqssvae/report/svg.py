"""Figures of matplotlib's as SVG that stands in a page: in the page's colours, read aloud, and by no other file."""

import html
import io
import re
from typing import Any

INK = "#010203"
"""The colour of text and lines, which becomes that of the page's text."""
RECIPE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": "medium",
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "legend.facecolor": "none",
    "legend.framealpha": 0.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def to_svg(figure: Any, name: str, title: str, description: str) -> str:
    """The figure as an element `svg`, and close it.

    Args:
        figure: A figure of matplotlib's that was drawn with `RECIPE`.
        name: What ids in the picture begin with; no other picture of the page may have the same.
        title: What it shows, in a few words.
        description: What is to be seen in it, for those who cannot see it.
    """
    from matplotlib import pyplot, rc_context

    buffer = io.StringIO()
    with rc_context({**RECIPE, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'id="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'(xlink:href="|url\()#', rf"\1#{name}-", text)
    text = text.replace(INK, "currentColor")
    text = re.sub(r"font: ([0-9.]+)px [^;\"]*", r"font-size: \1px", text)
    size = re.search(r'<svg[^>]*viewBox="0 0 ([0-9.]+) ([0-9.]+)"', text)
    width = f' style="max-width: {float(size.group(1)) * 1.25:.0f}px"' if size else ""
    label = f'role="img" aria-labelledby="{name}-title {name}-description"{width}'
    opening = re.sub(r' (height|width)="[^"]*"', "", text[: text.index(">")])
    head = f'<title id="{name}-title">{html.escape(title)}</title>'
    head += f'<desc id="{name}-description">{html.escape(description)}</desc>'
    return f"{opening} {label}>{head}{text[text.index('>') + 1 :]}".strip()
