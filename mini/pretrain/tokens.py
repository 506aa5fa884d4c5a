"""The miniature's tokenizer: CLIP's byte-level BPE, its merges learnt from the world's captions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from mini.world import captions, draw_scenes

MAX_LENGTH = 16  # the longest caption has 13 words, and two tokens enclose it
_BOS, _EOS = "<|startoftext|>", "<|endoftext|>"


def learn_merges(words: Iterable[str]) -> list[tuple[str, str]]:
    """Byte-pair merges, in order, after which each of `words` (ASCII) is one token ending in `</w>`.

    The commonest pair of neighbours is merged next; of several, the alphabetically first. (The `tokenizers`
    trainer breaks such ties by chance, so that two builds numbered two words the other way round.)
    """
    parts = [[*word[:-1], f"{word[-1]}</w>"] for word in sorted(set(words))]
    merges: list[tuple[str, str]] = []
    while pairs := Counter(pair for word in parts for pair in pairwise(word)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        parts = [_merged(word, best) for word in parts]
    return merges


def _merged(word: list[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    for token in word:
        # A token just merged is longer than the pair's first half, so it is not taken for one.
        if out and (out[-1], token) == pair:
            out[-1] += token
        else:
            out.append(token)
    return out


def build_tokenizer() -> Any:
    """A transformers CLIPTokenizer: every word of the world is one token, any other text splits into bytes."""
    from tokenizers import pre_tokenizers
    from transformers import CLIPTokenizer

    scenes = draw_scenes("train", 4000)
    merges = learn_merges(word for i in range(len(scenes)) for c in captions(scenes, i) for word in c.split())
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(f"{letter}</w>" for letter in alphabet), *("".join(pair) for pair in merges)]
    vocabulary = {token: i for i, token in enumerate([*dict.fromkeys(tokens), _BOS, _EOS])}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_LENGTH)
