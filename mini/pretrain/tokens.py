"""The miniature's tokenizer: CLIP's byte-level BPE, its merges learnt from the world's captions."""

from __future__ import annotations

import json
from typing import Any

from mini.world import captions, draw_scenes

MAX_LENGTH = 16  # the longest caption has 13 words, and two tokens enclose it
_BOS, _EOS = "<|startoftext|>", "<|endoftext|>"


def build_tokenizer() -> Any:
    """A transformers CLIPTokenizer: every word of the world is one token, any other text splits into bytes."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    scenes = draw_scenes("train", 4000)
    words = sorted({word for i in range(len(scenes)) for c in captions(scenes, i) for word in c.split()})
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=10_000,
        min_frequency=1,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    learner.train_from_iterator(words, trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    tokens = [*alphabet, *(f"{letter}</w>" for letter in alphabet)]
    tokens += [token for token in ("".join(pair) for pair in merges) if token not in tokens]
    vocabulary = {token: i for i, token in enumerate([*dict.fromkeys(tokens), _BOS, _EOS])}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_LENGTH)
