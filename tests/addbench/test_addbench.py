"""The command line over the variants: what it prints, how it fails, and that it starts at once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from add.config.load import load_run
from add.config.types import WITH_NULLS
from add.identity import METHOD, spec_hash
from addbench.__main__ import main
from addbench.project import NOT_SET, aligned, changes, scalar
from tests.support.specs import ONE_ROW, ROOT, copy_settings, edit, table_of


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A copy of the settings, and the working directory."""
    monkeypatch.chdir(copy_settings(tmp_path))
    return tmp_path


@pytest.fixture
def addbench(root, capsys):
    """Runs the command line: exit code, standard output, standard error."""

    def run(*arguments):
        code = main(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def record(root, run="baseline", seed=0, scale="mini", finished=True):
    """Results such as training leaves; returns the path of spec.json."""
    directory = root / f"results/{scale}/{run}/seed{seed}"
    (directory / "train").mkdir(parents=True)
    spec = directory / "spec.json"
    spec.write_text(table_of(root, scale).runs[run].model_dump_json(indent=2))
    if finished:
        (directory / "train/train.json").write_text(json.dumps({"method": METHOD}))
    return spec


def test_list_names_every_cell_its_run_and_who_shares_it(addbench):
    code, out, _ = addbench("list")
    lines = out.splitlines()
    assert code == 0
    assert lines[0].split() == ["part", "label", "run"]
    for cell, line in zip(table_of(ROOT).cells, lines[1:23], strict=True):
        assert line.startswith(f"{cell.part}     {cell.label}  ")
        assert cell.run in line.split()
        assert ("default; shared with part " in line) == cell.is_default
    assert lines[2].endswith("default; shared with part b, c, d, e, f")
    assert lines[-1] == "22 cells, 17 runs, 1 training seed each, at scale mini"


@pytest.mark.parametrize(
    "arguments", [("--scale", "smoke", "list"), ("list", "--scale", "config/smoke.yaml")]
)
def test_the_scale_is_a_name_or_a_path_before_or_after_the_subcommand(addbench, arguments):
    assert addbench(*arguments)[1].endswith("at scale smoke\n")


@pytest.mark.parametrize("run", ["baseline", "loss_terms-l-distill", "teacher_type-sdxl-sdxl"])
def test_show_is_yaml_that_reads_back_as_the_run(addbench, root, run):
    code, out, _ = addbench("show", run)
    resolved = table_of(root).runs[run]
    assert code == 0
    assert YAML(typ="safe", pure=True).load(out) == resolved.model_dump(mode="json", context=WITH_NULLS)
    assert out.startswith(f"# spec {spec_hash(resolved)}, scale mini\n")


def test_show_as_json_is_the_spec_that_training_reads(addbench, root, tmp_path):
    # What the workflow writes to spec.json, for whoever trains one run by hand.
    code, out, _ = addbench("show", "teacher_steps-4", "--json")
    assert code == 0
    file = tmp_path / "spec.json"
    file.write_text(out, encoding="utf-8")
    assert load_run(file) == table_of(root).runs["teacher_steps-4"]


def test_show_says_where_each_value_comes_from(addbench, root):
    edit(root / "config/mini.yaml", "      revision: null", "      # revision: null")
    edit(root / "ablations/baseline.yaml", "  mean_weight:", "  # mean_weight:")
    row = ONE_ROW.replace("1.0}", "1.0, training.steps: 300}")
    (root / "ablations/weight.yaml").write_text(row)
    lines = [line.rsplit("  # ", 1) for line in addbench("show", "weight-lambda-1")[1].splitlines()]
    sources = {line[0].strip(): line[1] for line in lines if len(line) == 2}
    assert sources["name: weight-lambda-1"] == "resolved"
    assert sources["distillation_weight: 1.0"] == "row ablations/weight.yaml:4"
    assert sources["steps: 300"] == "row ablations/weight.yaml:4"
    assert sources["space: pixel"] == "baseline"
    assert sources["mean_weight: own"] == "baseline (default)"
    assert sources["batch: 40"] == "scale"
    assert sources["path: mini/weights/sd21"] == "scale"
    assert sources["revision: null"] == "scale"  # the last of several; the first is the one left out
    first = next(line for line in lines if "revision" in line[0])
    assert first[1] == "scale (default)"


def test_show_marks_networks_that_the_run_does_not_load(addbench):
    lines = [line.split() for line in addbench("show", "loss_terms-l-distill")[1].splitlines()]
    for key, value in (("features:", "{}"), ("c_text:", "null"), ("c_img:", "null")):
        assert [key, value, "#", "unused"] in lines


def test_diff_shows_only_the_keys_that_differ(addbench):
    code, out, _ = addbench("diff", "baseline", "loss_terms-l-adv-lambda-l-distill-sds")
    lines = [line.split() for line in out.splitlines()]
    assert code == 0
    assert lines == [
        ["key", "baseline", "loss_terms-l-adv-lambda-l-distill-sds"],
        ["loss.distillation", "exponential", "sds"],
    ]
    assert addbench("diff", "baseline", "baseline")[1] == "baseline and baseline do not differ\n"


@pytest.mark.parametrize(
    "arguments", [("show", "basline"), ("diff", "baseline", "basline"), ("explain", "basline")]
)
def test_an_unknown_run_is_named_with_the_nearest_known_one(addbench, arguments):
    code, out, err = addbench(*arguments)
    assert (code, out) == (2, "")
    assert "scale 'mini' has no run 'basline'; did you mean 'baseline'?" in err


def test_an_unknown_scale_is_named_with_the_nearest_known_one(addbench):
    code, _, err = addbench("--scale", "smoek", "list")
    assert code == 1
    assert err == "config/smoek.yaml:1: no such scale; did you mean 'smoke'?\n"


def test_validate_checks_every_file_at_every_scale(addbench):
    code, out, _ = addbench("validate")
    each = "; ".join(f"{scale}: 22 cells, 17 runs" for scale in ("mini", "paper", "smoke"))
    assert (code, out) == (0, f"12 files are valid ({each})\n")


def test_validate_prints_all_problems_of_all_files_at_once(addbench, root):
    expected = [
        f"config/mini.yaml:{edit(root / 'config/mini.yaml', 'batch: 40', 'batch: true')}:",
        f"config/smoke.yaml:{edit(root / 'config/smoke.yaml', 'ema: 0.99', 'ema: 1.5')}:",
        f"ablations/baseline.yaml:{edit(root / 'ablations/baseline.yaml', 'teacher_steps', 'steps')}:",
        f"ablations/loss_terms.yaml:{edit(root / 'ablations/loss_terms.yaml', 'part: d', 'part: a')}:",
        f"ablations/teacher_steps.yaml:{edit(root / 'ablations/teacher_steps.yaml', 'fid: 20.8', 'fdi: 2')}:",
    ]
    code, out, err = addbench("validate")
    assert (code, out) == (1, "")
    for start in expected:
        assert any(line.startswith(start) for line in err.splitlines()), (start, err)


def test_validate_finds_what_is_wrong_at_one_scale_only(addbench, root):
    """An override that only one scale can follow."""
    edit(root / "config/smoke.yaml", "vit_l_clip:", "vit_other:")
    code, _, err = addbench("validate")
    assert code == 1
    assert err.startswith("ablations/discriminator_features.yaml:")
    assert "the scale 'smoke' has no feature network 'vit_l_clip'" in err
    assert addbench("--scale", "mini", "validate")[0] == 0


def test_a_broken_file_fails_every_command_with_its_place(addbench, root):
    line = edit(root / "ablations/baseline.yaml", "teacher: sd21", "teachr: sd21")
    for arguments in (
        ("list",),
        ("show", "baseline"),
        ("diff", "baseline", "baseline"),
        ("explain", "baseline"),
    ):
        code, out, err = addbench(*arguments)
        assert (code, out) == (1, "")
        assert f"ablations/baseline.yaml:{line}: unknown key 'teachr'; did you mean 'teacher'?" in err


def test_commands_outside_a_repository_say_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["validate"]) == 1
    assert "run from the repository's root" in capsys.readouterr().err
    assert main(["list"]) == 1
    assert capsys.readouterr().err


def test_explain_says_that_a_run_never_ran(addbench):
    assert addbench("explain", "baseline")[1] == (
        "results/mini/baseline/seed0: never ran (it holds no spec.json)\n"
    )


def test_explain_says_that_nothing_changed(addbench, root):
    record(root)
    edit(root / "ablations/baseline.yaml", "student:", "# a comment\nstudent:")
    assert addbench("explain", "baseline") == (0, "results/mini/baseline/seed0: nothing changed\n", "")


def test_explain_says_that_training_was_cut_off(addbench, root):
    record(root, finished=False)
    assert "training has not finished; it would go on" in addbench("explain", "baseline")[1]


def test_explain_names_each_changed_setting_with_both_values(addbench, root):
    record(root)
    edit(root / "ablations/baseline.yaml", "2.5", "5.0")
    edit(root / "config/mini.yaml", "steps: 155", "steps: 300")
    assert addbench("explain", "baseline")[1].splitlines() == [
        "results/mini/baseline/seed0: 2 changes",
        "  loss.distillation_weight: 2.5 -> 5.0",
        "  training.steps: 155 -> 300",
    ]


def test_explain_compares_with_results_of_another_version_of_the_settings(addbench, root):
    spec = record(root)
    values = json.loads(spec.read_text())
    values["training"]["forgotten"] = 1
    del values["training"]["ema"]
    values["name"] = "an old name"
    spec.write_text(json.dumps(values))
    assert addbench("explain", "baseline")[1].splitlines()[1:] == [
        "  training.forgotten: 1 -> (not set)",
        "  training.ema: (not set) -> 0.95",
    ]


def test_explain_looks_at_every_seed_and_at_the_scale_asked_for(addbench, root):
    edit(root / "config/smoke.yaml", "seeds: [0]", "seeds: [0, 3]")
    record(root, seed=3, scale="smoke")
    assert addbench("--scale", "smoke", "explain", "baseline")[1].splitlines() == [
        "results/smoke/baseline/seed0: never ran (it holds no spec.json)",
        "results/smoke/baseline/seed3: nothing changed",
    ]


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [(b"{\n!", 2, "is not JSON"), (b"[]", 1, "no settings"), (b"\xff", 1, "UTF-8")],
)
def test_explain_refuses_a_broken_record(addbench, root, content, line, message):
    record(root).write_bytes(content)
    code, out, err = addbench("explain", "baseline")
    assert (code, out) == (1, "")
    assert err.startswith(f"results/mini/baseline/seed0/spec.json:{line}: ")
    assert message in err


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        1,
        1.0,
        1e-5,
        2.5,
        "",
        "null",
        "True",
        "plain",
        "SD2.1's stand-in",
        "a: b",
        "# x",
        "1.0",
        "no",
        "λ",
        "-",
    ],
)
def test_every_value_is_shown_as_yaml_that_reads_back(value):
    for shown in (value, [value, value], {"key": value}):
        read = YAML(typ="safe", pure=True).load(f"x: {scalar(shown)}")["x"]
        assert read == shown
        assert type(read) is type(shown)


def test_changes_tell_absent_from_null_and_a_boolean_from_a_number():
    assert changes({"a": None}, {"a": None}) == []
    assert changes({"a": 1.0}, {"a": 1}) == []
    assert changes({"a": True}, {"a": 1}) == [("a", "true", "1")]
    assert changes({"a": None}, {"b": None}) == [("a", "null", NOT_SET), ("b", NOT_SET, "null")]


def test_columns_are_aligned_without_trailing_space():
    assert aligned([("a", "bbb", ""), ("aaa", "b", "c")]) == "a    bbb\naaa  b    c"


def test_the_command_imports_nothing_heavy():
    """Start-up stays below half a second only as long as no module pulls torch, numpy or the like in."""
    heavy = {"torch", "numpy", "diffusers", "transformers", "open_clip", "matplotlib", "pandas", "snakemake"}
    script = "import sys; from addbench.__main__ import main; main(['list'])"
    script += f"; sys.exit(', '.join({heavy!r} & sys.modules.keys()) or 0)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "22 cells" in done.stdout


def test_python_m_addbench_runs(root):
    environment = {"PYTHONPATH": str(ROOT), "PATH": str(Path(sys.executable).parent)}
    command = [sys.executable, "-m", "addbench", "--scale", "smoke", "validate"]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "10 files are valid (smoke: 22 cells, 17 runs)\n"


def test_a_reader_that_has_seen_enough_is_no_error(root):
    # `addbench show baseline | head` ended in a traceback.
    script = 'set -o pipefail; "$0" -m addbench show baseline | true'
    environment = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        ["bash", "-c", script, sys.executable],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
