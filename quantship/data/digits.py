"""Handwritten digits: the 1,797 images that lie inside the scikit-learn package.

A record is an image of 8 × 8 pixels with 17 shades, and the digit that it shows. Each pixel is
repeated until there are 28 × 28, as many as larger collections of digits have, and scaled to
[0, 1]: 784 features. About a fifth of the images, chosen by a hash of their number, are ``test``.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Literal
from zlib import crc32

from quantship.data.source import Sample, SourceOptions
from quantship.errors import QuantshipError

NUM_FEATURES, NUM_CLASSES = 784, 10
_WIDTH, _SHADES = 28, 16


class Options(SourceOptions):
    """Handwritten digits to classify, from scikit-learn (``quantship[examples]``)."""

    adapter: Literal["digits"]
    split: Literal["train", "test"] = "train"
    """train and test share no image; test holds about a fifth of them."""


def unavailable() -> str | None:
    """Why the images cannot be read, or None where they can."""
    if find_spec("sklearn") is None:
        return "adapter digits reads images of scikit-learn, which is not installed"
    return None


def samples(options: Options) -> Iterator[Sample]:
    """Yield the images of a split in the order of the collection.

    Raises:
        QuantshipError: scikit-learn is not installed.
    """
    reason = unavailable()
    if reason is not None:
        raise QuantshipError(f"{reason}; install it with quantship[examples]")
    import numpy as np
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    nearest = np.arange(_WIDTH) * 8 // _WIDTH
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        is_test = crc32(str(index).encode()) % 5 == 0
        if is_test == (options.split == "test"):
            pixels = image.reshape(8, 8)[np.ix_(nearest, nearest)] / _SHADES
            yield Sample(pixels.astype(np.float32).ravel(), int(label))
