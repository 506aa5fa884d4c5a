"""Row labels as typeset text: `L_adv` gets an index, `lambda` is a Greek letter, all else is literal."""

from __future__ import annotations

import re
from dataclasses import dataclass

_INDEX = re.compile(r"(?<![A-Za-z0-9_])([A-Za-z])_([A-Za-z]+(?:,[A-Za-z]+)*)(?![A-Za-z0-9_])")
_GREEK = re.compile(r"(?<![A-Za-z0-9_])(lambda|gamma)(?![A-Za-z0-9_])")
_LETTERS = {"lambda": "λ", "gamma": "\N{GREEK SMALL LETTER GAMMA}"}


@dataclass(frozen=True)
class Piece:
    """A stretch of a label: `index` is set as a subscript, `symbol` in italics."""

    text: str
    index: bool = False
    symbol: bool = False


def plain_label(label: str) -> str:
    """A label on one line as plain text, Greek letters set: for figures."""
    return _GREEK.sub(lambda found: _LETTERS[found.group()], " ".join(label.split()))


def split_label(label: str) -> tuple[Piece, ...]:
    """A label in pieces; joined, with `_` before an index, they are the label with Greek letters set."""
    label = plain_label(label)
    pieces: list[Piece] = []
    end = 0
    for found in _INDEX.finditer(label):
        pieces += [
            Piece(label[end : found.start()]),
            Piece(found.group(1), symbol=True),
            Piece(found.group(2), index=True),
        ]
        end = found.end()
    pieces.append(Piece(label[end:]))
    return tuple(piece for piece in pieces if piece.text)
