"""What a preview says; ``quantship data --json`` prints it."""

from __future__ import annotations

from pydantic import Field

from quantship.frozen import Frozen


class Run(Frozen):
    """Tokens beside each other that are treated alike."""

    text: str
    learnt: bool
    """Whether the loss looks at them."""


class Rendered(Frozen):
    """A record as the model reads it."""

    origin: str
    """Where it came from, as ``path:line``."""
    tokens: int
    """Of the record; running text shows its first window."""
    learnt_tokens: int
    label: str | None = None
    """Its class, where it has one."""
    runs: tuple[Run, ...]
    """Its text; the beginning of it where it is long."""
    is_cut: bool
    """Whether more of it follows."""


class Bin(Frozen):
    """Sequences of similar lengths."""

    first: int
    """Shortest, in tokens."""
    last: int | None
    """Longest; null: any."""
    sequences: int
    used: bool
    """Whether they are used; those over max_length are left out, or cut where texts have classes.
    """


class SourceCounts(Frozen):
    """What becomes of the records of a source."""

    adapter: str
    name: str
    """Its file, else its data set on the Hub, and its split."""
    held_out: bool | None = None
    """True: those held out by ``data.holdout``; false: the others; null: all of them."""
    records: int
    """Records on this side."""
    other_side: int = 0
    """Records on the other side of ``data.holdout``."""
    used: int
    over_length: int = 0
    """Chats left out as they have more than max_length tokens."""
    all_masked: int = 0
    """Chats and windows left out as they have no token to predict."""
    windows: int = 0
    """Sequences that running text becomes."""
    cut: int = 0
    """Texts with a class that are cut to max_length."""
    also_in_train: int | None = None
    """Records that are trained on as well; null: not a source to evaluate on."""
    records_digest: str
    """Of what the records say, whatever their order."""
    digests: tuple[str, ...]
    """SHA-256 of each file."""


class Side(Frozen):
    """A data set that the recipe makes or a task reads."""

    name: str
    """``train``, ``eval``, or the name of an evaluation task."""
    sources: tuple[SourceCounts, ...]
    sequences: int
    """Sequences, blocks where they are packed, or samples."""
    tokens: int | None = None
    """Null: samples, which have none."""
    learnt_tokens: int | None = None
    """Tokens that are not masked; null: what is learnt is a class."""
    unpacked_tokens: int = 0
    """Tokens of blocks left out as they have no token to predict."""
    classes: dict[str, int] | None = None
    """Records by class; null: tokens are predicted."""
    lengths: tuple[Bin, ...] = ()
    token_lengths: dict[str, int] = Field(default_factory=dict)
    """Percentiles of the lengths."""
    digest: str | None = None
    """Of the prepared tokens and labels, as the report gives it for all of ``eval``."""
    examples: tuple[Rendered, ...] = ()


class Preview(Frozen):
    """What a recipe would train and evaluate on."""

    recipe: str
    model: str
    """Where the tokenizer comes from."""
    max_length: int | None
    """Longest sequence in tokens; null: the model reads samples."""
    packing: bool
    holdout: float | None
    limit: int | None
    """Records read of each source, at most; null: all."""
    sides: tuple[Side, ...]
