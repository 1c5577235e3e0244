"""Tiny encoders with their tokenizers, and sentences for them to judge, made on the spot."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 128,
    "max_position_embeddings": 64,
}
WORDS = ("the", "a", "film", "movie", "plot", "actor", "scene", "was", "is", "with", "very")
JUDGING = (("bad", "dull", "weak", "cold", "poor"), ("good", "great", "warm", "bright", "fine"))
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def build_tokenizer(texts: Iterable[str], num_words: int) -> PreTrainedTokenizerFast:
    """BERT's way of cutting texts into pieces, with pieces of these texts."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=num_words, special_tokens=SPECIAL, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=SIZES["max_position_embeddings"],
    )


def save_encoder(
    path: Path, texts: Iterable[str], *, num_words: int = 512, architecture: str = "bert"
) -> Path:
    """An encoder of 2 layers with random weights, without a head, and its tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModel

    tokenizer = build_tokenizer(texts, num_words)
    sizes = {"vocab_size": -(-len(tokenizer) // 32) * 32, "pad_token_id": 0, **SIZES}
    if architecture == "distilbert":  # which has names of its own for the same
        more = {"dim": 64, "n_layers": 2, "n_heads": 2, "hidden_dim": 128}
        sizes = {name: sizes[name] for name in ("vocab_size", "max_position_embeddings")} | more
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = AutoConfig.for_model(architecture, **sizes)
        AutoModel.from_config(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def sentences(count: int, seed: int) -> list[tuple[str, int]]:
    """Sentences with one word of praise or blame among others, and whether it is praise."""
    generator = random.Random(seed)
    made = []
    for index in range(count):
        sentence = generator.choices(WORDS, k=generator.randint(3, 12))
        sentence.insert(generator.randint(0, len(sentence)), generator.choice(JUDGING[index % 2]))
        made.append((" ".join(sentence), index % 2))
    return made


def write_sst2(path: Path, rows: Iterable[tuple[str, int]]) -> Path:
    """A file in the layout of SST-2."""
    lines = ("sentence\tlabel", *(f"{text}\t{label}" for text, label in rows))
    path.write_text("\n".join(lines) + "\n")
    return path
