"""What training leaves to be followed by: a JSON line and TensorBoard scalars a step, and pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from add.files import write_whole


class TrainLog:
    """Log of one run: `log.jsonl`, `tensorboard/` and `pictures/` below `directory`.

    Lines are written to `checkpoints/log.jsonl`, and copied to `log.jsonl` when the run has ended: a workflow engine
    removes the outputs of a job that failed, and with them would go the lines before the checkpoint that the
    next try goes on from. Opened at `step`, the log forgets what an interrupted run had logged from there on, so
    that nothing stands twice.
    """

    def __init__(self, directory: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.directory = directory
        self.file = directory / "checkpoints" / "log.jsonl"
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self._forget(step)
        self.stream = self.file.open("a", encoding="utf-8")
        self.board = SummaryWriter(str(directory / "tensorboard"), purge_step=step)

    def _forget(self, step: int) -> None:
        if not self.file.exists():
            return
        kept = []
        for line in self.file.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:  # the line that a killed process left half written
                break
            if record["step"] >= step:
                break
            kept.append(line + "\n")
        write_whole(self.file, "".join(kept))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log the values of one step."""
        self.stream.write(json.dumps({"step": step, **values}) + "\n")
        self.stream.flush()
        for name, value in values.items():
            self.board.add_scalar(name, value, step)

    def pictures(self, step: int, rows: Mapping[str, Tensor]) -> None:
        """Save rows of images, each (N, 3, H, W) in [-1, 1] and equally large, as one PNG; names in the file name.

        Raises FloatingPointError with the names of rows that are not finite: as pixels they would look black.
        """
        if broken := [name for name, images in rows.items() if not images.isfinite().all()]:
            raise FloatingPointError(
                f"{self.directory}, step {step}: pictures not finite: {', '.join(broken)}"
            )
        grid = image_grid(list(rows.values()))
        folder = self.directory / "pictures"
        folder.mkdir(exist_ok=True)
        from PIL import Image

        scale = max(1, 64 // (grid.shape[0] // len(rows)))
        picture = Image.fromarray(grid.repeat(scale, 0).repeat(scale, 1))
        picture.save(folder / f"step-{step:06d}-{'-'.join(rows)}.png")
        self.board.add_image("/".join(rows), grid, step, dataformats="HWC")

    def __enter__(self) -> TrainLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stream.close()
        self.board.close()
        if kind is None:
            write_whole(self.directory / "log.jsonl", self.file.read_text(encoding="utf-8"))


def read_log(directory: Path) -> list[dict[str, float]]:
    """The records of a run that has ended, in order."""
    lines = (directory / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def image_grid(rows: Sequence[Tensor]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Rows of images (N, 3, H, W) in [-1, 1] as one uint8 picture (rows H, N W, 3)."""
    stacked = torch.stack(list(rows)).detach().float().cpu().clamp(-1, 1)
    count, n, _, height, width = stacked.shape
    pixels = stacked.permute(0, 3, 1, 4, 2).reshape(count * height, n * width, 3)
    return ((pixels + 1) * 127.5).round().to(torch.uint8).numpy()
