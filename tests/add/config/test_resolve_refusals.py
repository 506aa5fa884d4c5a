"""Rows, baselines and scales that do not go together: what is refused, and where it stands."""

import pytest

from add.config.yaml import SpecError
from tests.support.specs import ONE_ROW, copy_settings, edit, table_of

BAD_ROWS = [
    (
        "discriminator.feature: vit_l_clip",
        "unknown key 'discriminator.feature'; did you mean 'discriminator.features'",
    ),
    ("features: vit_l_clip", "did you mean 'discriminator.features'?"),
    ("training.step: 3", "did you mean 'training.steps'?"),
    ("sampling.seed: 3", "unknown key 'sampling.seed'"),
    ("training.seeds: [1]", "training.seeds is the scale's alone"),
    ("training.device: cuda", "training.device is the scale's alone"),
    ("training.student_optimiser: {lr: 1.0}", "is a section; set one of training.student_optimiser.lr"),
    (
        "discriminator.features: vit_x",
        "the scale 'mini' has no feature network 'vit_x'; did you mean 'vit_l_clip'?",
    ),
    ("discriminator.features: vit_s_dino", "did you mean 'vit_s_dinov2'?"),
    ("teacher: sdx", "the scale 'mini' has no diffusion network 'sdx'; did you mean 'sdxl'?"),
    ("student: 21", "student: should be a valid string, not 21"),
    ("loss.distillation_weight: '1.0'", "should be a valid number, not '1.0' (text"),
    ("loss.distillation_weight: .nan", "finite number"),
    ("loss.distillation: nfds", "did you mean 'nfsd'?"),
    ("teacher_steps: true", "teacher_steps: should be the integer 1, 2 or 4, not true"),
    ("training.batch: true", "training.batch: should be a valid integer, not true"),
    ("training.batch: {a: 1}", "training.batch: should be a valid integer"),
    ("training.accumulate: 3", "training.accumulate: a batch of 40 does not split into 3 equal parts"),
    ("training.batch: 33, training.accumulate: 2", "a batch of 33 does not split into 2 equal parts"),
    (
        "training.student_timesteps: [200, 400, 600, 800]",
        "ends at 800: sampling begins at the last, from pure noise",
    ),
    ("discriminator.given: shuffled, training.accumulate: 40", "of the 1 samples that a step takes at once"),
    ("training.student_timesteps: [0, 499, 749, 999]", "no t = 0"),
    ("training.student_timesteps: [499, 999]", "holds 4 weights for 2 student_timesteps"),
    (
        "training.student_timesteps: [499, 999], training.student_timestep_weights: [1, 1]",
        "2 timesteps are trained, but the scale's sampling.steps asks for 4 steps",
    ),
    ("loss.adversarial: 0, loss.distillation: none", "nothing would train the student"),
    (
        "loss.distillation: nfsd, training.nfsd.negative_prompt: '', "
        "training.distillation_timesteps: [200, 979]",
        "nfsd's delta_D is zero for every sample",
    ),
    ("training.nfsd.negative_prompt: ' '", "training.nfsd.negative_prompt: holds nothing but white space"),
    ("discriminator.conditioning: [], discriminator.given: shuffled", "changes nothing without a condition"),
    (
        "loss.space: latent, teacher: sdxl",
        "two VAEs is not defined: the student 'sd21' has latents sd21, the teacher",
    ),
]


@pytest.mark.parametrize(("keys", "message"), BAD_ROWS, ids=[row[0] for row in BAD_ROWS])
def test_a_bad_row_is_refused_where_it_stands(tmp_path, keys, message):
    root = copy_settings(tmp_path)
    bad = root / "ablations/bad.yaml"
    bad.write_text(ONE_ROW.replace("loss.distillation_weight: 1.0", keys))
    with pytest.raises(SpecError) as caught:
        table_of(root)
    assert (caught.value.file, caught.value.line) == (bad.as_posix(), 5)
    assert message in caught.value.message
    assert len(caught.value.problems) == 1


def test_all_bad_rows_are_told_at_once(tmp_path):
    root = copy_settings(tmp_path)
    steps = root / "ablations/teacher_steps.yaml"
    lines = [
        edit(steps, "teacher_steps: 2", "teacher_stps: 2"),
        edit(steps, "teacher_steps: 4", "teacher: sd22"),
    ]
    with pytest.raises(SpecError) as caught:
        table_of(root)
    assert [(problem.file, problem.line) for problem in caught.value.problems] == [
        (steps.as_posix(), line) for line in lines
    ]


def test_a_bad_baseline_is_told_once_and_where_it_stands(tmp_path):
    root = copy_settings(tmp_path)
    line = edit(root / "ablations/baseline.yaml", "vit_s_dinov2", "vit_s_dinov3")
    with pytest.raises(SpecError) as caught:
        table_of(root)
    assert [(p.file, p.line) for p in caught.value.problems] == [
        ((root / "ablations/baseline.yaml").as_posix(), line)
    ]
    assert "did you mean 'vit_s_dinov2'?" in str(caught.value)


def test_a_scale_that_trains_fewer_timesteps_than_it_samples_is_refused(tmp_path):
    root = copy_settings(tmp_path)
    line = edit(root / "config/mini.yaml", "[249, 499, 749, 999]", "[499, 999]")
    edit(root / "config/mini.yaml", "[1.0, 1.0, 1.0, 2.0]", "[1.0, 1.0]")
    with pytest.raises(SpecError, match="asks for 4 steps") as caught:
        table_of(root)
    assert (caught.value.file, caught.value.line) == ((root / "config/mini.yaml").as_posix(), line)


def test_conditioning_needs_the_scales_embedding_network(tmp_path):
    root = copy_settings(tmp_path)
    path = root / "config/mini.yaml"
    text = path.read_text("utf-8")
    start, end = text.index("  c_text:"), text.index("  c_img:")
    path.write_text(text[:start] + text[end:])
    with pytest.raises(SpecError, match=r"'text' needs networks\.c_text, which the scale 'mini' lacks"):
        table_of(root)


@pytest.mark.parametrize(
    ("latents", "space", "distillation", "fine"),
    [
        ("sd21", "latent", "exponential", True),
        ("sdxl", "latent", "exponential", False),
        (None, "latent", "exponential", False),
        ("sdxl", "pixel", "exponential", True),
        ("sdxl", "latent", "none", True),
    ],
)
def test_latents_compare_only_within_one_vae(tmp_path, latents, space, distillation, fine):
    root = copy_settings(tmp_path)
    edit(root / "config/mini.yaml", "latents: sdxl", f"latents: {latents or 'null'}")
    keys = f"loss.space: {space}, teacher: sdxl, loss.distillation: {distillation}"
    (root / "ablations/latent.yaml").write_text(ONE_ROW.replace("loss.distillation_weight: 1.0", keys))
    if fine:
        table = table_of(root)
        assert table.runs[table.cells[-1].run].variant.loss.space == space
    else:
        with pytest.raises(SpecError, match="a latent-space distance between two VAEs is not defined"):
            table_of(root)


def test_latents_that_neither_network_states_are_not_taken_for_equal(tmp_path):
    root = copy_settings(tmp_path)
    for name in ("sd21", "sdxl"):
        edit(root / "config/mini.yaml", f"latents: {name}", "latents: null")
    keys = "loss.space: latent, teacher: sdxl"
    (root / "ablations/latent.yaml").write_text(ONE_ROW.replace("loss.distillation_weight: 1.0", keys))
    with pytest.raises(SpecError, match="has latents not stated, the teacher 'sdxl' not stated"):
        table_of(root)


def test_one_network_compares_with_itself_whatever_its_latents_are_called(tmp_path):
    root = copy_settings(tmp_path)
    edit(root / "config/mini.yaml", "latents: sd21", "latents: null")
    (root / "ablations/latent.yaml").write_text(ONE_ROW.replace("distillation_weight: 1.0", "space: latent"))
    assert table_of(root).runs["latent-lambda-1"].variant.loss.space == "latent"


def test_the_latent_error_stands_where_the_row_makes_it(tmp_path):
    """The baseline compares latents; the row that brings another VAE is to blame."""
    root = copy_settings(tmp_path)
    edit(root / "ablations/baseline.yaml", "space: pixel", "space: latent")
    with pytest.raises(SpecError) as caught:
        table_of(root)
    path = root / "ablations/teacher_type.yaml"
    mixed = ("set: {teacher: sdxl}", "set: {student: sdxl}")
    lines = [n for n, text in enumerate(path.read_text().splitlines(), 1) if text.strip() in mixed]
    assert [(p.file, p.line) for p in caught.value.problems] == [(path.as_posix(), line) for line in lines]
