"""The questions of the built-in corpus: families of facts, and the phrasings that ask for them.

Every phrasing ends in what it asks about and one mark: a small model then finds it at the same
distance each time, and learns the facts in hundreds of steps, not thousands.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from string import ascii_lowercase

Pair = tuple[str, str]
"""A question and its answer."""


def _list(words: str) -> list[str]:
    return words.split()


_WORDS = _list("""
ant bee bird boat cake cat cow dog duck egg fish fox frog goat hat ice lamp lion moon owl pig rain
ship sun tree wolf
""")
_WEEKDAYS = _list("Monday Tuesday Wednesday Thursday Friday Saturday Sunday Monday")
_MONTHS = _list("""
January February March April May June July August September October November December January
""")
_NUMBERS = _list("zero one two three four five six seven eight nine ten eleven twelve")
_OPPOSITES = _list("""
hot-cold big-small up-down left-right day-night open-closed fast-slow old-young wet-dry full-empty
hard-soft high-low light-dark good-bad rich-poor happy-sad
""")
_PLURALS = _list("""
cat-cats box-boxes fox-foxes city-cities baby-babies leaf-leaves wolf-wolves man-men child-children
foot-feet tooth-teeth mouse-mice goose-geese key-keys tree-trees dish-dishes
""")


def families() -> dict[str, list[Pair]]:
    """Every question there is with its answer, by family; no question occurs twice."""
    opposites = _pairs(_OPPOSITES)
    return {
        "sums": _asked(
            ((f"{a} + {b}", str(a + b)) for a in range(6) for b in range(6)),
            "What is {}?",
            "Please add {}.",
            "How much is {}?",
            "The sum of {}?",
            "Work out {}.",
            "Tell me {}.",
        ),
        "next number": _asked(
            ((str(n), str(n + 1)) for n in range(20)),
            "What number comes after {}?",
            "Count on from {}.",
            "Which number follows {}?",
            "Say the number after {}.",
            "Add one to {}.",
            "What is one more than {}?",
        ),
        "number words": _asked(
            ((str(n), word) for n, word in enumerate(_NUMBERS)),
            "How do you write {}?",
            "Spell the number {}.",
            "In words: {}?",
            "Write out {}.",
            "Please put into words: {}.",
            "Which word is {}?",
        ),
        "next letter": _asked(
            pairwise(ascii_lowercase),
            "Which letter comes after {}?",
            "What follows the letter {}?",
            "Say the letter after {}.",
            "In the alphabet, what is after {}?",
            "Next letter: {}?",
            "Go on from the letter {}.",
        ),
        "next day": _asked(
            pairwise(_WEEKDAYS),
            "What day comes after {}?",
            "Which day follows {}?",
            "Name the day after {}.",
            "Tomorrow, if today is {}?",
            "Next day: {}?",
            "It will be what on the day after {}?",
        ),
        "next month": _asked(
            pairwise(_MONTHS),
            "What month comes after {}?",
            "Which month follows {}?",
            "Name the month after {}.",
            "Next month, if this one is {}?",
            "Next month: {}?",
            "It will be what in the month after {}?",
        ),
        "opposites": _asked(
            opposites + [(second, first) for first, second in opposites],
            "What is the opposite of {}?",
            "Give me the opposite of {}.",
            "Opposite of {}?",
            "What is it if it is not {}?",
            "The contrary of {}?",
            "What is quite unlike {}?",
        ),
        "plurals": _asked(
            _pairs(_PLURALS),
            "What is the plural of {}?",
            "Plural of {}?",
            "What do you call more than one {}?",
            "Give me the plural of {}.",
            "Two or three of them: {}?",
            "I want many, not one {}.",
        ),
        "capitals": _asked(
            ((word, word.upper()) for word in _WORDS),
            "Write in capitals: {}.",
            "Say loudly: {}!",
            "Put in upper case: {}.",
            "Shout the word {}!",
            "In big letters: {}.",
            "Capitals, please: {}.",
        ),
        "spelling": _asked(
            ((word, "-".join(word)) for word in _WORDS),
            "Please spell the word {}.",
            "How do you spell {}?",
            "Spell for me: {}.",
            "Give me the letters of {}.",
            "Letter by letter: {}.",
            "Which letters are in {}?",
        ),
        "lengths": _asked(
            ((word, str(len(word))) for word in _WORDS),
            "How many letters has {}?",
            "Count the letters of {}.",
            "How long is the word {}?",
            "What is the length of {}?",
            "Number of letters: {}?",
            "Measure the word {}.",
        ),
    }


def _asked(facts: Iterable[Pair], *phrasings: str) -> list[Pair]:
    return [(phrasing.format(of), answer) for of, answer in facts for phrasing in phrasings]


def _pairs(entries: list[str]) -> list[Pair]:
    return [(first, second) for first, _, second in (entry.partition("-") for entry in entries)]
