"""`addbench adopt`: what it writes, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from add.config.load import load_ablations, load_baseline, load_scale
from add.config.resolve import resolve
from eval.prompts import read_prompts
from reports.study import study_from_spec
from tests.support.adopting import NAMES, adopt, workplace
from tests.support.specs import ROOT


@pytest.fixture
def here(smoke_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return workplace(smoke_directory, tmp_path, monkeypatch)


def test_the_new_scale_is_the_base_with_your_input_and_says_what_it_means(here: Path, capsys) -> None:
    assert adopt("--present-only", "--steps", "2") == 0
    said = capsys.readouterr().out
    assert "6 images, 12 captions; 4 are drawn" in said
    assert "4 of 6 are on disk (modes: 1 CMYK, 1 L, 2 RGB); only these are used" in said
    assert "snakemake --cores all results/coco/baseline/seed0/result.json --config scale=coco" in said
    scale, base = load_scale("config/coco.yaml"), load_scale("config/smoke.yaml")
    assert scale.networks == base.networks
    assert scale.training == base.training.model_copy(update={"steps": 2})
    assert (scale.evaluation.oracle, scale.study) == (None, None)
    assert scale.evaluation.extractor == base.evaluation.extractor
    drawn = {name: [p.prompt for p in read_prompts(c)] for name, c in scale.sampling.prompts.items()}
    assert drawn["coco"] == [f"{n} one" for n in NAMES[1:5]]
    assert sorted(drawn["parti"]) == [f"prompt {k}" for k in range(2, 8)]
    for text in (said, scale.notice or "", scale.description):
        assert "means nothing" in text or "mean nothing" in text
    baseline, ablations = load_baseline("ablations/baseline.yaml"), load_ablations("ablations")
    study = study_from_spec(scale, baseline, resolve(scale, baseline, ablations))
    assert study.notice == scale.notice, "every page of the report prints a study's notice"


def test_the_workflow_plans_one_run_of_it_without_remaking_the_data(here: Path) -> None:
    assert adopt("--present-only") == 0
    target = "results/coco/baseline/seed0/result.json"
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--snakefile",
        str(ROOT / "Snakefile"),
        "--cores",
        "1",
    ]
    done = subprocess.run(
        [*command, "--dry-run", target, "--config", "scale=coco"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = (done.stdout + done.stderr).splitlines()
    assert {line.split()[0] for line in lines if line.endswith("      1")} == {
        "reference",
        "sample",
        "score",
        "train",
    }


def header(here: Path) -> None:
    file = here / "mine/PartiPrompts.tsv"
    file.write_text(file.read_text().replace("Challenge", "Challenges", 1))


def broken(here: Path) -> None:
    for name in NAMES[2:4]:
        file = here / "mine/val2017" / name
        file.write_bytes(file.read_bytes()[:-400])


def absent_split(here: Path) -> None:
    file = here / "mine/annotations/captions_val2017.json"
    file.rename(file.with_name("captions_val2014.json"))


def one_caption_less(here: Path) -> None:
    file = here / "mine/annotations/captions_val2017.json"
    content = json.loads(file.read_text())
    content["annotations"] = content["annotations"][2:]
    file.write_text(json.dumps(content))


def both_files(here: Path) -> None:
    header(here)
    one_caption_less(here)


def no_photographs(here: Path) -> None:
    for file in (here / "mine/val2017").iterdir():
        file.unlink()


BAD: list[tuple[str, Callable[[Path], object], tuple[str, ...]]] = [
    (
        "no folder",
        lambda h: (h / "mine").rename(h / "x"),
        ("mine: no such folder", "Prompts.tsv: no such file"),
    ),
    ("no captions", absent_split, ("captions_val2017.json: no such file", "captions_val2014.json")),
    ("no split", lambda h: (h / "mine/val2017").rename(h / "x"), ("mine/val2017: no such folder",)),
    (
        "no photographs",
        no_photographs,
        ("0 of the 6 photographs", "at least 3"),
    ),
    (
        "broken",
        broken,
        (
            f"val2017/{NAMES[2]}: cannot be read as an image",
            f"val2017/{NAMES[3]}: cannot be read as an image",
        ),
    ),
    ("header", header, ("line 1: column 'Challenge' is missing",)),
    ("caption", one_caption_less, ("annotations: image 1 has no caption",)),
    ("two files", both_files, ("'Challenge' is missing", "has no caption")),
    ("a stray file", lambda h: (h / "mine/val2017/notes.txt").touch(), ("notes.txt: is not an image",)),
]


@pytest.mark.parametrize(("spoil", "reasons"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_what_is_missing_or_broken_is_named_and_nothing_is_written(
    here: Path, capsys, spoil: Callable[[Path], object], reasons: tuple[str, ...]
) -> None:
    spoil(here)
    before = sorted((here / "config").glob("*.yaml"))
    assert adopt("--present-only") == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    for reason in reasons:
        assert reason in captured.err
    assert sorted((here / "config").glob("*.yaml")) == before
    assert not (here / "data/coco").exists()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ((), f"2 of the 6 photographs that captions_val2017.json lists are missing, the first is {NAMES[0]}"),
        (("--present-only", "--captions", "5"), "captions: 5 are to be drawn; choose 3 to 4"),
        (("--present-only", "--prompt-count", "7"), "prompts: 7 are to be drawn; choose 3 to 6"),
        (("--present-only", "--steps", "0"), "training.steps"),
        (("--present-only", "--name", "My scale"), "name"),
        (("--present-only", "--name", "smoke"), "config/smoke.yaml: was not written by adopt"),
        (("--present-only", "--name", "smoke", "--replace"), "config/smoke.yaml: was not written by adopt"),
    ],
)
def test_options_that_cannot_be_met_are_refused(here: Path, capsys, options, reason: str) -> None:
    before = (here / "config/smoke.yaml").read_text()
    assert adopt(*options) == 1
    assert reason in capsys.readouterr().err
    assert (here / "config/smoke.yaml").read_text() == before


@pytest.mark.parametrize("name", ["annotations/captions_train.json", "dataset.json"])
def test_a_file_of_yours_is_never_written_over(here: Path, capsys, name: str) -> None:
    """Breaks when photographs that lie in data/<name> lose their own captions to the list of those on disk."""
    own = here / "data/coco" / name
    own.parent.mkdir(parents=True)
    own.write_text('{"images": [], "annotations": [], "info": {"description": "mine"}}')
    assert adopt("--present-only") == 1
    assert f"data/coco/{name}: is a file of yours" in capsys.readouterr().err
    assert '"mine"' in own.read_text()
    assert not (here / "config/coco.yaml").exists()
    own.unlink()
    assert adopt("--present-only") == adopt("--present-only", "--replace") == 0, "its own files it does"


def test_a_scale_that_you_edited_is_replaced_only_when_told(here: Path, capsys) -> None:
    assert adopt("--present-only") == 0
    assert adopt("--present-only") == 0, "the same again changes nothing, so there is nothing to refuse"
    file = here / "config/coco.yaml"
    text = file.read_text()
    file.write_text(text.replace("  steps: 3\n", "  steps: 9\n"))
    assert adopt("--present-only") == 1
    assert "give --replace" in capsys.readouterr().err
    assert load_scale(file).training.steps == 9
    assert adopt("--present-only", "--replace") == 0
    assert file.read_text() == text


def test_a_base_whose_networks_are_not_made_yet_says_how_to_make_them(here: Path, capsys) -> None:
    (here / "data/smoke").unlink()
    assert adopt("--present-only") == 1
    assert "snakemake --cores all data/smoke/dataset.json --config scale=smoke" in capsys.readouterr().err


def test_the_command_stays_free_of_torch(here: Path) -> None:
    arguments = [
        "--scale",
        "smoke",
        "adopt",
        "--coco",
        "mine",
        "--prompts",
        "mine/PartiPrompts.tsv",
        "--present-only",
    ]
    code = f"import sys; from addbench.__main__ import main; main({arguments}); print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.endswith("\nFalse\n")
