"""Foreign votes in their real column layouts, and how the tests import them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eval.preferences.importers import import_votes
from eval.preferences.importers.build import Imported, Options
from eval.preferences.reader import read_votes, write_votes
from eval.preferences.record import PreferenceError

ARENA = Options(study="arena", question="quality", rater_kind="human")
ALONE = Options(study="arena", question="quality", rater_kind="human", rater="me")

TURN = [{"role": "user", "content": "a red cube"}, {"role": "assistant", "content": "..."}]
PARTS = [{"role": "user", "content": [{"type": "text", "text": "two cats", "image": None, "mimeType": None}]}]
ARENA_33K = {
    "question_id": "58210e39",
    "model_a": "chatglm-6b",
    "model_b": "koala-13b",
    "winner": "model_b",
    "judge": "arena_user_973",
    "conversation_a": TURN,
    "conversation_b": TURN,
    "turn": 1,
    "anony": True,
    "language": "English",
    "tstamp": 1682351591.1322,
}
ARENA_140K = {
    "id": "00f0c6e2",
    "model_a": "o3",
    "model_b": "gemini-2.5-pro",
    "winner": "tie",
    "evaluation_session_id": "e9d7",
    "evaluation_order": 1,
    "conversation_a": PARTS,
    "conversation_b": PARTS,
    "is_code": False,
    "timestamp": "2025-06-24 18:29:34.151000",
}
ARENA_55K = (
    "id,model_a,model_b,prompt,response_a,response_b,winner_model_a,winner_model_b,winner_tie\n"
    '30192,gpt-4,koala-13b,"[""a red, cube""]",x,y,1,0,0\n53567,gpt-4,alpaca,"[""two""]",x,y,0,0,1\n'
)
EVALICA = "left,right,winner\n0,1,tie\n0,2,right\n0,2,tie\n1,0,left\n"
PICK = {
    "are_different": True,
    "best_image_uid": "i-1",
    "caption": "a red, cube",
    "created_at": "2023-04-14 12:45:21.5",
    "has_label": True,
    "image_0_uid": "i-0",
    "image_1_uid": "i-1",
    "label_0": 0.0,
    "label_1": 1.0,
    "model_0": "stabilityai/stable-diffusion-2-1",
    "model_1": "dreamlike-art/dreamlike-photoreal-2.0",
    "ranking_id": 1,
    "user_id": 17,
}


def evalica_options(**more: Any) -> Options:
    return Options(**{**vars(ALONE), "prompt": "not recorded", "row_is": "prompt", **more})


def saved(folder: Path, content: Any, name: str = "foreign") -> Path:
    """A text as it is; objects as one JSON object a line."""
    file = folder / name
    file.write_text(content if isinstance(content, str) else "\n".join(map(json.dumps, content)) + "\n")
    return file


def brought(folder: Path, content: Any, options: Options, name: str = "auto") -> Imported:
    """Imports, and shows on the way that the schema takes what came out."""
    imported = import_votes(saved(folder, content), options, name)
    write_votes(folder / "votes.csv", imported.votes)
    assert len(read_votes(folder / "votes.csv")) == len(imported.votes)
    return imported


def refusals(folder: Path, content: Any, options: Options, name: str = "auto") -> list[str]:
    with pytest.raises(PreferenceError) as caught:
        import_votes(saved(folder, content), options, name)
    return [str(problem).removeprefix(f"{folder / 'foreign'}, ") for problem in caught.value.problems]
