"""Files of settings: what is refused, with which file, line and suggestion."""

from pathlib import Path

import pytest

from add.config.load import load_ablations, load_baseline, load_run, load_scale
from add.config.yaml import SpecError, read_yaml
from tests.support.specs import ROOT, copy_settings, edit, table_of

BASE, MINI = "ablations/baseline.yaml", "config/mini.yaml"
LOSS, FEATURES = "ablations/loss_terms.yaml", "ablations/discriminator_features.yaml"
STEPS = "ablations/teacher_steps.yaml"

# (name, file, text replaced, its replacement, lines below the replaced text's first, part of the message)
BAD = [
    # keys
    ("unknown key", BASE, "teacher_steps:", "teacher_step:", 0, "did you mean 'teacher_steps'?"),
    (
        "unknown nested key",
        BASE,
        "r1_gamma:",
        "r1_gama:",
        0,
        "'discriminator.r1_gama'; did you mean 'r1_gamma'?",
    ),
    (
        "unknown key of a scale",
        MINI,
        "pictures_every:",
        "picture_every:",
        0,
        "did you mean 'pictures_every'?",
    ),
    ("unknown key of a network", MINI, "latents: sd21", "latent: sd21", 0, "did you mean 'latents'?"),
    ("unknown key of prompts", MINI, "caption_rule:", "caption_role:", 0, "did you mean 'caption_rule'?"),
    ("unknown key of a row", FEATURES, "published:", "publishd:", 0, "did you mean 'published'?"),
    ("bad published key", FEATURES, "fid:", "fdi:", 0, "did you mean 'fid'?"),
    (
        "unknown key, nothing near",
        BASE,
        "teacher_steps: 1",
        "xyzzy: 1",
        0,
        "known: discriminator, loss, student",
    ),
    ("missing key", BASE, "  r1_gamma: 1.0e-5", "", -4, "missing key 'discriminator.r1_gamma'"),
    ("name in an ablation", FEATURES, "part: a", "part: a\nname: x", 1, "unknown key 'name'"),
    ("key that is a number", MINI, "  c_text:", "  1:", 0, "is not text"),
    ("merge key", MINI, "  c_text:", "  <<:", 0, "not text"),
    # YAML
    ("duplicate key", BASE, "teacher: sd21", "student: sd21", 0, "duplicate key 'student' (first on line 6)"),
    ("duplicate nested key", LOSS, "{fid: 20.8,", "{fid: 20.8, fid: 20.8,", 0, "duplicate key 'fid'"),
    (
        "duplicate override",
        LOSS,
        "none}",
        "none, loss.distillation: sds}",
        0,
        "duplicate key 'loss.distillation'",
    ),
    ("not YAML", BASE, "[text, image]", "[text, image", 1, "is not YAML"),
    ("two documents", BASE, "loss:", "---\nloss:", 0, "is not YAML"),
    ("anchor", BASE, "student: sd21", "student: &a sd21", 0, "anchors"),
    ("date", BASE, "teacher: sd21", "teacher: 2024-01-01", 0, "'timestamp' is not supported"),
    ("tag", BASE, "teacher: sd21", "teacher: !!python/name:os.system x", 0, "is not supported"),
    # types
    (
        "text for a number",
        BASE,
        "1.0e-5",
        "'1e-5'",
        0,
        "r1_gamma: should be a valid number, not '1e-5' (text",
    ),
    (
        "text for an integer",
        MINI,
        "steps: 155",
        "steps: many",
        0,
        "training.steps: should be a valid integer",
    ),
    ("boolean for an integer", MINI, "batch: 40", "batch: true", 0, "valid integer, not true"),
    ("boolean for a float", MINI, "ema: 0.95", "ema: false", 0, "valid number, not false"),
    ("float for an integer", MINI, "batch: 40", "batch: 40.0", 0, "valid integer, not 40.0"),
    ("float for a choice of integers", BASE, "teacher_steps: 1", "teacher_steps: 1.0", 0, "not 1.0"),
    ("boolean for a choice of integers", BASE, "teacher_steps: 1", "teacher_steps: true", 0, "not true"),
    ("boolean in a list of choices", MINI, "steps: [1, 4]", "steps: [true, 4]", 0, "not true"),
    (
        "number for text",
        STEPS,
        '"2"',
        "2",
        0,
        "rows[1].label: should be a valid string, not 2 (put it into quotes",
    ),
    ("null", BASE, "student: sd21", "student:", 0, "student: should be a valid string, not null"),
    ("scalar for a list", BASE, "[text, image]", "text", 0, "should be a valid list, not 'text'"),
    ("scalar for a section", MINI, "nfsd:", "nfsd: 3\n  nfsd_was:", 0, "training.nfsd: "),
    (
        "text for a published value",
        FEATURES,
        "fid: 21.5",
        "fid: '21.5'",
        0,
        "rows[0].published.fid: should be a",
    ),
    ("NaN", BASE, "2.5", ".nan", 0, "loss.distillation_weight: should be a finite number, not nan"),
    (
        "infinity",
        MINI,
        "lr: 3.5e-4",
        "lr: .inf",
        0,
        "training.student_optimiser.lr: should be a finite number",
    ),
    # values
    ("unknown choice", BASE, "exponential", "exponental", 0, "did you mean 'exponential'?"),
    ("unknown condition", BASE, "[text, image]", "[text, imge]", 0, "did you mean 'image'?"),
    ("condition twice", BASE, "[text, image]", "[text, text]", 0, "names a condition twice"),
    (
        "unknown kind of prompts",
        MINI,
        "kind: partiprompts",
        "kind: partiprompt",
        0,
        "did you mean 'partiprompts'?",
    ),
    ("no kind of prompts", MINI, "kind: partiprompts", "#", -1, "missing key 'sampling.prompts.parti.kind'"),
    ("negative weight", BASE, "2.5", "-2.5", 0, "greater than or equal to 0"),
    (
        "steps not 1, 2 or 4",
        BASE,
        "teacher_steps: 1",
        "teacher_steps: 3",
        0,
        "3 is not a choice; known: 1, 2, 4",
    ),
    ("sampling 3 steps", MINI, "steps: [1, 4]", "steps: [1, 3]", 0, "sampling.steps[1]: 3 is not a choice"),
    ("sampling no steps", MINI, "steps: [1, 4]", "steps: []", 0, "at least 1 item"),
    ("t = 0", MINI, "[249, 499,", "[0, 499,", 0, "no t = 0"),
    ("negative timestep", MINI, "[249, 499,", "[-1, 499,", 0, "no t = 0"),
    ("t = 1000", MINI, "749, 999]", "749, 1000]", 0, "last timestep is 999"),
    ("timesteps out of order", MINI, "[249, 499,", "[499, 249,", 0, "strictly increasing"),
    ("timestep twice", MINI, "[249, 499,", "[249, 249,", 0, "strictly increasing"),
    ("weights and timesteps", MINI, "[1.0, 1.0, 1.0, 2.0]", "[1.0, 3.0]", 0, "holds 2 weights for 4"),
    ("distillation from t = 0", MINI, "[20, 979]", "[0, 979]", 0, "0 < first < last <= 999"),
    ("accumulation", MINI, "accumulate: 1", "accumulate: 3", 0, "a batch of 40 does not split into 3"),
    ("seed twice", MINI, "seeds: [0]", "seeds: [0, 0]", 0, "names a seed twice"),
    ("hash", MINI, "sha256: ", "sha256: abc  # ", 0, "should match pattern"),
    ("section for text", BASE, "student: sd21", "student: {a: 1}", 0, "student: should be a valid string"),
    ("scale's name", MINI, "name: mini", "name: smoke", 0, "two scales would share results/smoke/"),
    ("empty published", FEATURES, "{fid: 21.5, clip_score: 0.312}", "{}", 0, "neither fid nor clip_score"),
    ("CLIP score in per cent", FEATURES, "0.312", "31.2", 0, "less than or equal to 1"),
    ("part", FEATURES, "part: a", "part: aa", 0, "part: "),
    ("duplicate part", FEATURES, "part: a", "part: b", 0, "part: 'b' is already the part of "),
    ("no rows", STEPS, "rows:", "rows: []\nmore:", 0, "at least 1 item"),
    ("duplicate label", LOSS, "L_distill\n", "L_adv\n", 0, "duplicate label 'L_adv'; line 6"),
    (
        "labels of one name",
        LOSS,
        "L_distill\n",
        "l-adv\n",
        0,
        "too close to another: 'l-adv'; line 6 has 'L_adv'",
    ),
    ("label too long for a folder", LOSS, "L_distill\n", "L" * 300 + "\n", 0, "letters are more than 120"),
    (
        "number in quotes",
        BASE,
        "teacher_steps: 1",
        'teacher_steps: "1"',
        0,
        "'1' is text; write 1 without quotes",
    ),
    (
        "invisible",
        LOSS,
        "L_distill\n",
        '"L\\u200Bdistill"\n',
        0,
        "holds U+200B (ZERO WIDTH SPACE), which no reader",
    ),
    ("label without a name", LOSS, "L_distill\n", "λ\n", 0, "has no ASCII letter"),
]


@pytest.mark.parametrize(
    ("file", "old", "new", "below", "message"), [bad[1:] for bad in BAD], ids=[b[0] for b in BAD]
)
def test_a_bad_file_is_refused_with_its_file_line_and_reason(tmp_path, file, old, new, below, message):
    root = copy_settings(tmp_path)
    line = edit(root / file, old, new) + below
    with pytest.raises(SpecError) as caught:
        table_of(root)
    problems = [(Path(p.file), p.line, p.message) for p in caught.value.problems]
    assert [p for p in problems if p[0] == root / file and p[1] == line and message in p[2]], (line, problems)


def test_a_wrong_entry_of_a_list_is_not_called_a_list_that_is_too_short_too(tmp_path):
    root = copy_settings(tmp_path)
    edit(root / MINI, "steps: [1, 4]", "steps: [one]")
    with pytest.raises(SpecError) as caught:
        table_of(root)
    assert ["at least" in problem.message for problem in caught.value.problems] == [False]


def test_the_files_of_the_repository_are_valid():
    assert load_scale(ROOT / "config/mini.yaml").name == "mini"
    assert load_scale(ROOT / "config/smoke.yaml").name == "smoke"


def test_all_problems_of_all_ablations_are_told_at_once(tmp_path):
    root = copy_settings(tmp_path)
    lines = [
        edit(root / FEATURES, "fid: 21.5", "fid: many"),
        edit(root / FEATURES, "fid: 24.0", "fdi: 24.0"),
        edit(root / LOSS, "part: d", "part: 4"),
    ]
    with pytest.raises(SpecError) as caught:
        load_ablations(root / "ablations")
    assert [problem.line for problem in caught.value.problems] == lines
    assert str(caught.value).count("\n") == 2


@pytest.mark.parametrize("name", ["Upper.yaml", "with-hyphen.yaml", "short.yml", "loud.YAML", "baseline.yml"])
def test_an_ablation_whose_file_cannot_name_runs_is_refused_not_skipped(tmp_path, name):
    root = copy_settings(tmp_path)
    (root / "ablations" / name).write_text("part: x\n")
    with pytest.raises(SpecError, match="rename it"):
        load_ablations(root / "ablations")


def test_a_missing_file_or_directory_is_named(tmp_path):
    for load in (load_scale, load_baseline, load_run):
        with pytest.raises(SpecError, match=r"none\.yaml:1: cannot be read: No such file"):
            load(tmp_path / "none.yaml")
    with pytest.raises(SpecError, match="is not a directory"):
        load_ablations(tmp_path / "none")
    (tmp_path / "questions").mkdir()
    with pytest.raises(SpecError, match="holds no question and no baseline"):
        load_ablations(tmp_path / "questions")
    (tmp_path / "questions/baseline.yaml").touch()
    assert load_ablations(tmp_path / "questions") == (), "the baseline alone"


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        (b"a: 1\nb: \xff", 2, "UTF-8"),
        (b"", 1, "no mapping"),
        (b"- 1", 1, "no mapping"),
        (b"a: \x01", 1, "YAML"),
        (b"a: !!int x", 1, "a: "),
        (b"a: &x [*x]", 1, "anchors"),
        (b"a: " + b"[" * 5000 + b"]" * 5000, 1, "nested too deeply"),
    ],
)
def test_what_is_no_mapping_of_plain_values_is_refused(tmp_path, content, line, message):
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    with pytest.raises(SpecError, match=message) as caught:
        read_yaml(path)
    assert caught.value.line == line


@pytest.mark.parametrize("text", ["1e-5", "1.0e-5", "1.0E-5", "0.00001", "10.0e-6"])
def test_every_notation_of_a_number_is_that_number(tmp_path, text):
    """YAML 1.1 reads 1e-5 as text; 1.2 does not."""
    root = copy_settings(tmp_path)
    edit(root / BASE, "1.0e-5", text)
    assert load_baseline(root / BASE).discriminator.r1_gamma == 1e-5
    assert load_baseline(root / BASE) == load_baseline(ROOT / BASE)


def test_words_that_yaml_1_1_takes_for_booleans_are_words(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("a: [no, yes, on, off, y]\n")
    assert read_yaml(path)[0] == {"a": ("no", "yes", "on", "off", "y")}


def test_minus_zero_is_zero(tmp_path):
    """They are equal, but are written differently, so a hash would tell them apart."""
    path = tmp_path / "x.yaml"
    path.write_text("a: -0.0\n")
    assert str(read_yaml(path)[0]["a"]) == "0.0"
