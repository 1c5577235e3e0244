"""The plots of a search: the bits of each layer by block and kind, and what else could be had."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from quantship.reporting import canvas, formatting, search_text, svg
from quantship.reporting.canvas import Drawing
from quantship.reporting.search_schema import Search, SearchedLayer

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOUR = svg.PALETTE[1][0]
FOUND = svg.PALETTE[2][0]
FAINTEST = 0.12
"""Opacity of the fewest bits that were chosen; the most are opaque."""
BLOCK = re.compile(r"^(?P<before>.*?)\.(?P<block>\d+)(?:\.(?P<kind>.+))?$")


def draw(search: Search) -> list[Drawing]:
    """The plots of a search: of its layers, where they lie in blocks, and of its front."""
    cells = _cells(search)
    drawings = [] if not cells else [_draw_layers(search, cells)]
    return [*drawings, _draw_front(search)]


def _cells(search: Search) -> dict[tuple[str, int], SearchedLayer]:
    """Layers that were chosen for, by kind and block."""
    found: dict[tuple[str, int], SearchedLayer] = {}
    for layer in search.layers:
        match = BLOCK.match(layer.name)
        if match is not None and layer.candidate is not None:
            found[match["kind"] or match["before"], int(match["block"])] = layer
    return found


def _draw_layers(search: Search, cells: dict[tuple[str, int], SearchedLayer]) -> Drawing:
    from matplotlib.patches import Patch, Rectangle

    kinds = list(dict.fromkeys(kind for kind, _ in cells))
    blocks = sorted({block for _, block in cells})
    shades = _shades(search)
    figure, axes = canvas.axes(height_pt=76 + 26 * len(kinds))
    for (kind, block), layer in cells.items():
        corner = (blocks.index(block) - 0.5, kinds.index(kind) - 0.5)
        shade = shades[layer.candidate or ""]
        axes.add_patch(Rectangle(corner, 0.94, 0.9, color=COLOUR, alpha=shade, lw=0))
    axes.set_xlim(-0.6, len(blocks) - 0.4)
    axes.set_ylim(len(kinds) - 0.4, -0.6)
    axes.set_yticks(range(len(kinds)), kinds, parse_math=False)
    step = max(1, len(blocks) // 16)
    axes.set_xticks(range(0, len(blocks), step), [str(one) for one in blocks[::step]])
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.set_xlabel("block")
    names = list(shades)
    canvas.legend(axes, [Patch(color=COLOUR, alpha=shades[name], lw=0) for name in names], names)
    title = f"{search.name}: bits by layer"
    spoken = "; ".join(f"{layer.name}: {layer.candidate}" for layer in cells.values())
    caption = "The darker, the more bits. Layers that nothing was chosen for are left out."
    return Drawing(title, caption, svg.render(figure, f"bits-{search.name}", title, spoken))


def _shades(search: Search) -> dict[str, float]:
    """Opacity of each candidate that was chosen, from the fewest bits to the most."""
    bits: dict[str, float] = {}
    for layer in search.layers:
        if layer.candidate is not None:
            share = 1 / layer.group_size if layer.group_size else 0.0
            bits[layer.candidate] = layer.code_bits + share
    ordered = sorted(bits, key=lambda name: bits[name])
    step = (1 - FAINTEST) / max(1, len(ordered) - 1)
    return {name: FAINTEST + step * place for place, name in enumerate(ordered)}


def _draw_front(search: Search) -> Drawing:
    figure, axes = canvas.axes(height_pt=320)
    in_bytes = search.unit == "bytes"
    scale = 1 / formatting.MB if in_bytes else 1.0
    axes.plot(
        [point.cost * scale for point in search.front],
        [point.harm for point in search.front],
        color=svg.INK,
        lw=1.3,
        alpha=0.75,
        label="Pareto front, predicted",
    )
    uniform = search.uniform
    axes.plot(
        [one.cost * scale for one in uniform],
        [one.kl_nats for one in uniform],
        ls="",
        marker="o",
        ms=7,
        color=COLOUR,
        label="uniform, measured",
    )
    axes.plot(
        search.result.cost * scale,
        search.result.kl_nats,
        ls="",
        marker="D",
        ms=9,
        color=FOUND,
        label="found, measured",
    )
    harms = [point.harm for point in search.front]
    harms += [one.kl_nats for one in (search.result, *uniform)]
    if min(harms) > 0:
        axes.set_yscale("log")
    for one in uniform:
        _name(axes, one.candidate or "", one.cost * scale, one.kl_nats)
    _name(axes, search.name, search.result.cost * scale, search.result.kl_nats)
    axes.margins(x=0.1, y=0.1)
    axes.set_xlabel(
        f"size on {search.runtime}, MB" if in_bytes else f"cost, {search.unit}", parse_math=False
    )
    axes.set_ylabel("KL from the float model, nats a token")
    canvas.legend(axes, *axes.get_legend_handles_labels())
    title = f"{search.name}: what {search.unit} buy"
    spoken = "; ".join(
        f"{one.candidate or search.name}: {search_text.cost(search, one.cost)}, "
        f"KL {formatting.small(one.kl_nats)}"
        for one in (search.result, *uniform)
    )
    caption = (
        "Lower left is better. The line is the best that can be predicted at each cost; dots are "
        "measured on the calibration data, rounded to nearest."
    )
    return Drawing(title, caption, svg.render(figure, f"front-{search.name}", title, spoken))


def _name(axes: Axes, name: str, x: float, y: float) -> None:
    axes.annotate(
        name,
        (x, y),
        xytext=(8, 4),
        textcoords="offset points",
        fontsize=9.5,
        color=svg.INK,
        parse_math=False,
    )
