"""Which of the photographs that a COCO file lists are on disk? A part is used only where its size is stated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eval.decode import ImageSetError

PREFIX = "captions_"


def photograph_folder(annotations: Path) -> Path:
    """COCO's layout: annotations/captions_<split>.json lies beside the folder <split> of its images.

    Raises ImageSetError where the file is called otherwise.
    """
    split = annotations.stem.removeprefix(PREFIX)
    if not split or not annotations.name.startswith(PREFIX):
        reason = f"is not called {PREFIX}<split>.json, so its folder of images is not known"
        raise ImageSetError(annotations, reason)
    return annotations.parent.parent / split


def on_disk(annotations: Path, names: Sequence[str]) -> tuple[str, ...]:
    """Those of the listed file names whose photograph is there, sorted. Raises ImageSetError without a
    folder.
    """
    folder = photograph_folder(annotations)
    if not folder.is_dir():
        raise ImageSetError(folder, f"no such directory; it should hold the photographs of {annotations}")
    return tuple(sorted(name for name in names if (folder / name).is_file()))


def stated_subset(annotations: Path, names: Sequence[str], stated: int) -> tuple[str, ...]:
    """`on_disk`, which must find exactly as many as are stated: a part that grew or shrank is another set.

    Raises ImageSetError with both numbers.
    """
    there = on_disk(annotations, names)
    if len(there) != stated:
        reason = (
            f"holds {len(there)} of the {len(names)} photographs that {annotations.name} lists, and the scale "
            f"states {stated} (`present`); bring the others back, or state what is there"
        )
        raise ImageSetError(photograph_folder(annotations), reason)
    return there
