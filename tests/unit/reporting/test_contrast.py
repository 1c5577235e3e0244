"""Colours of text against what lies behind it, in both themes, without a browser."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from quantship.reporting import svg

BEHIND = {
    "ink": ("paper", "surface", "good-paper", "alarm-paper"),
    "quiet": ("paper", "surface"),
    "alarm": ("paper", "surface", "alarm-paper"),
    "good": ("surface", "good-paper"),
    "mark-ink": ("mark",),
}
LEAST = 4.5


def variables(theme: str) -> dict[str, str]:
    """Colours of a theme, by the names of their variables."""
    text = (files("quantship.reporting") / "templates" / "report.css").read_text(encoding="utf-8")
    light, dark = text.split("prefers-color-scheme: dark", 1)
    found = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", light))
    if theme == "dark":
        found |= dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", dark))
    place = ("light", "dark").index(theme)
    return found | {f"c{number}": pair[place] for number, pair in enumerate(svg.PALETTE)}


def luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (
        one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in channels
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_can_be_read(theme: str) -> None:
    colours = variables(theme)
    names = [f"c{place}" for place in range(len(svg.PALETTE))]
    pairs = [(text, behind) for text, those in BEHIND.items() for behind in those]
    pairs += [(name, "surface") for name in names]  # names beside points have their colours
    poor = {
        pair: round(ratio, 2)
        for pair in pairs
        if (ratio := contrast(*(colours[name] for name in pair))) < LEAST
    }
    assert poor == {}


def test_contrast_is_that_of_the_guidelines() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
