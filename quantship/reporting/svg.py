"""A matplotlib figure as an inline SVG that follows the page's colours and describes itself.

Colours are written as CSS variables with a mid-tone fallback, so one drawing serves light and dark
pages and still shows when it is saved on its own.
"""

from __future__ import annotations

import re
from io import BytesIO
from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, FAINT, SURFACE = "#1d2127", "#b9bec6", "#fefefe"
PALETTE = (
    ("#6b7381", "#98a2b3"),  # grey: what was there before
    ("#3a6fc4", "#7fabf5"),  # blue
    ("#a8610a", "#eda845"),  # amber
    ("#1f7d54", "#58c493"),  # green
    ("#8257b5", "#b99af2"),  # violet
    ("#bb4368", "#f087a8"),  # rose
    ("#0c7a85", "#4dc3cf"),  # teal
)
"""Colours of the groups, each for a light and for a dark page."""

VARIABLES = {
    INK: "currentColor",
    FAINT: f"var(--faint, {FAINT})",
    SURFACE: "var(--surface, none)",
    **{light: f"var(--c{place}, {light})" for place, (light, _) in enumerate(PALETTE)},
}
COLOUR = re.compile(r"#[0-9a-f]{6}\b")
FONT = re.compile(r"'DejaVu Sans'[^;]*")
REFERENCE = re.compile(r"url\(#([^)]+)\)")


def render(figure: Figure, name: str, title: str, description: str) -> str:
    """Draw ``figure`` as one ``<svg>`` element, the same text every time.

    Args:
        figure: Drawn in ``INK``, ``FAINT``, ``SURFACE`` and ``PALETTE``'s light colours only.
        name: Prefix of every id inside, unique in the page.
        title: What the figure is, in a few words.
        description: What it shows, for those who cannot see it.
    """
    import matplotlib as mpl

    buffer = BytesIO()
    with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(buffer.getvalue())
    _strip_namespaces(root)
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag in ("metadata", "style")]:
            parent.remove(child)
    _name_ids(root, name)
    _theme(root)
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "aria-labelledby": f"{name}-title {name}-desc",
        "style": "stroke-linejoin: round; stroke-linecap: butt",
    }
    for place, (tag, text) in enumerate((("title", title), ("desc", description))):
        element = ElementTree.Element(tag, {"id": f"{name}-{tag}"})
        element.text = text
        root.insert(place, element)
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=False)


def _strip_namespaces(root: ElementTree.Element) -> None:
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {key.rpartition("}")[2]: text for key, text in element.attrib.items()}


def _name_ids(root: ElementTree.Element, name: str) -> None:
    """Drop ids that nothing refers to, and prefix the others, so that figures share a page."""
    used = set()
    for element in root.iter():
        used.add(element.get("href", "").removeprefix("#"))
        used.update(REFERENCE.findall(" ".join(element.attrib.values())))
    for element in root.iter():
        identity = element.attrib.pop("id", None)
        if identity in used:
            element.set("id", f"{name}-{identity}")
        if "href" in element.attrib:
            element.set("href", f"#{name}-{element.attrib['href'].removeprefix('#')}")
        for key, text in element.attrib.items():
            element.set(key, REFERENCE.sub(rf"url(#{name}-\1)", text))


def _theme(root: ElementTree.Element) -> None:
    for element in root.iter():
        style = element.get("style")
        if style is None:
            continue
        style = COLOUR.sub(lambda match: VARIABLES.get(match[0], match[0]), style)
        if element.tag == "text":
            style = FONT.sub("var(--font, sans-serif)", style)
            if "fill:" not in style:
                style += "; fill: currentColor"
        element.set("style", style)
