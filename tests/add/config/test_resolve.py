"""Table 1 as runs: how many, which numbers are published, and what an edit of the settings changes."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from add.config.load import load_ablations, load_baseline, load_scale
from add.config.resolve import override_keys, resolve
from add.config.run import Run
from add.config.yaml import read_yaml
from add.identity import spec_hash
from tests.support.specs import ONE_ROW, ROOT, copy_settings, edit, table_of

# Table 1 of arXiv 2311.17042, typed apart from ablations/: part, FID, CLIP score, default, what differs.
PUBLISHED = [
    ("a", 21.5, 0.312, False, {"features": "vit_s_dinov1"}),
    ("a", 20.6, 0.319, True, {}),
    ("a", 24.0, 0.302, False, {"features": "vit_l_dinov2"}),
    ("a", 23.3, 0.308, False, {"features": "vit_l_clip"}),
    ("b", 21.2, 0.302, False, {"conditioning": ()}),
    ("b", 21.2, 0.307, False, {"conditioning": ("text",)}),
    ("b", 21.1, 0.316, False, {"conditioning": ("image",)}),
    ("b", 20.6, 0.319, True, {}),
    ("c", 293.6, 0.065, False, {"student_init": "random"}),
    ("c", 20.6, 0.319, True, {}),
    ("d", 20.8, 0.315, False, {"distillation": "none"}),
    ("d", 315.6, 0.076, False, {"adversarial": 0.0}),
    ("d", 20.6, 0.319, True, {}),
    ("d", 22.3, 0.325, False, {"distillation": "sds"}),
    ("d", 21.8, 0.327, False, {"distillation": "nfsd"}),
    ("e", 20.6, 0.319, True, {}),
    ("e", 21.3, 0.321, False, {"teacher": "sdxl"}),
    ("e", 29.3, 0.314, False, {"student": "sdxl"}),
    ("e", 28.41, 0.325, False, {"student": "sdxl", "teacher": "sdxl"}),
    ("f", 20.6, 0.319, True, {}),
    ("f", 20.8, 0.321, False, {"teacher_steps": 2}),
    ("f", 20.3, 0.317, False, {"teacher_steps": 4}),
]
DEFAULT = {
    "student": "sd21",
    "teacher": "sd21",
    "student_init": "pretrained",
    "features": "vit_s_dinov2",
    "conditioning": ("text", "image"),
    "r1_gamma": 1e-5,
    "adversarial": 1.0,
    "distillation": "exponential",
    "distillation_weight": 2.5,
    "space": "pixel",
    "teacher_steps": 1,
}
RUNS = [
    "baseline",
    "discriminator_features-vit-s-dinov1",
    "discriminator_features-vit-l-dinov2",
    "discriminator_features-vit-l-clip",
    "discriminator_conditioning-none",
    "discriminator_conditioning-text",
    "discriminator_conditioning-image",
    "student_pretraining-random",
    "loss_terms-l-adv",
    "loss_terms-l-distill",
    "loss_terms-l-adv-lambda-l-distill-sds",
    "loss_terms-l-adv-lambda-l-distill-nfsd",
    "teacher_type-sd2-1-sdxl",
    "teacher_type-sdxl-sd2-1",
    "teacher_type-sdxl-sdxl",
    "teacher_steps-2",
    "teacher_steps-4",
]

BASELINE_RUN = table_of(ROOT).runs["baseline"]


def _flat_variant(run: Run) -> dict:
    values = run.variant.model_dump()
    return {**values, **values["discriminator"], **values["loss"]}


def _changed(before, after):
    """Names of the runs whose values differ, of those that both tables have."""
    both = before.runs.keys() & after.runs.keys()
    return {name for name in both if spec_hash(before.runs[name]) != spec_hash(after.runs[name])}


@pytest.mark.parametrize("scale", ["mini", "smoke"])
def test_22_cells_are_17_runs_with_stable_names(scale):
    table = table_of(ROOT, scale)
    assert len(table.cells) == 22
    assert list(table.runs) == RUNS
    assert [run.name for run in table.runs.values()] == RUNS
    assert {cell.run for cell in table.cells} == set(RUNS)
    assert [len(table.cells_of(name)) for name in RUNS] == [6] + [1] * 16


def test_every_cell_is_the_papers_row_with_the_papers_numbers():
    table = table_of(ROOT)
    for cell, (part, fid, clip, default, differs) in zip(table.cells, PUBLISHED, strict=True):
        assert cell.published is not None
        found = (cell.part, cell.published.fid, cell.published.clip_score, cell.is_default)
        assert found == (part, fid, clip, default), cell
        values = _flat_variant(table.runs[cell.run])
        assert {key: values[key] for key in DEFAULT} == {**DEFAULT, **differs}, cell
        assert cell.source == f"paper Table 1{part}"


def test_no_two_runs_have_equal_values():
    runs = table_of(ROOT).runs.values()
    assert len({spec_hash(run) for run in runs}) == 17


def test_a_run_holds_only_the_networks_that_it_uses():
    runs = table_of(ROOT).runs
    assert set(runs["baseline"].networks.diffusion) == {"sd21"}
    assert set(runs["baseline"].networks.features) == {"vit_s_dinov2"}
    assert set(runs["teacher_type-sdxl-sd2-1"].networks.diffusion) == {"sd21", "sdxl"}
    assert runs["teacher_type-sdxl-sd2-1"].student.family == "SDXL's stand-in"
    assert runs["teacher_type-sdxl-sd2-1"].teacher.family == "SD2.1's stand-in"
    text, image = (runs[f"discriminator_conditioning-{name}"].networks for name in ("text", "image"))
    assert (text.c_text is None, text.c_img is None) == (False, True)
    assert (image.c_text is None, image.c_img is None) == (True, False)
    alone = runs["loss_terms-l-distill"].networks
    assert (alone.features, alone.c_text, alone.c_img) == ({}, None, None)


def test_a_run_that_distils_nothing_loads_no_teacher(tmp_path):
    root = copy_settings(tmp_path)
    keys = "loss.distillation: none, teacher: sdxl"
    (root / "ablations/alone.yaml").write_text(ONE_ROW.replace("loss.distillation_weight: 1.0", keys))
    run = table_of(root).runs["alone-lambda-1"]
    assert set(run.networks.diffusion) == {"sd21"}
    with pytest.raises(KeyError):
        run.teacher  # noqa: B018


def test_a_comment_changes_nothing(tmp_path):
    root = copy_settings(tmp_path)
    for path in root.glob("*/*.yaml"):
        path.write_text("# new\n\n" + path.read_text("utf-8").replace("# ", "#  changed ") + "\n# end\n")
    before, after = table_of(ROOT), table_of(root)
    assert after.runs == before.runs
    assert [cell.run for cell in after.cells] == [cell.run for cell in before.cells]


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32))
def test_the_order_of_keys_changes_nothing(tmp_path_factory, seed):
    root = copy_settings(tmp_path_factory.mktemp("order"))
    shuffle = random.Random(seed).shuffle

    def shuffled(node):
        if isinstance(node, tuple):
            return [shuffled(item) for item in node]
        if not isinstance(node, dict):
            return node
        keys = list(node)
        shuffle(keys)
        return {key: shuffled(node[key]) for key in keys}

    for path in root.glob("*/*.yaml"):
        values, _ = read_yaml(path)
        with path.open("w") as stream:
            writer = YAML(typ="safe", pure=True)
            writer.sort_base_mapping_type_on_output = False
            writer.dump(shuffled(values), stream)
    before, after = table_of(ROOT), table_of(root)
    assert {name: spec_hash(run) for name, run in after.runs.items()} == {
        name: spec_hash(run) for name, run in before.runs.items()
    }


@pytest.mark.parametrize(
    ("old", "new"),
    [("2.5", "2.50"), ("2.5", "25.0e-1"), ("1.0e-5", "1e-5"), ("[text, image]", "[image, text]")],
)
def test_another_notation_of_a_value_changes_nothing(tmp_path, old, new):
    root = copy_settings(tmp_path)
    edit(root / "ablations/baseline.yaml", old, new)
    assert table_of(root).runs == table_of(ROOT).runs


@pytest.mark.parametrize(
    ("old", "new", "kept"),
    [
        ("2.5", "5.0", set()),
        ("pretrained", "random", {"student_pretraining-random"}),
        ("vit_s_dinov2", "vit_l_clip", {name for name in RUNS if name.startswith("discriminator_features")}),
        ("[text, image]", "[]", {name for name in RUNS if name.startswith("discriminator_cond")}),
        (
            "exponential",
            "sds",
            {name for name in RUNS if name.startswith("loss_terms")} - {"loss_terms-l-distill"},
        ),
        ("teacher_steps: 1", "teacher_steps: 2", {"teacher_steps-2", "teacher_steps-4"}),
    ],
)
def test_a_baseline_value_changes_exactly_the_runs_that_do_not_override_it(tmp_path, old, new, kept):
    """A row that then equals the new baseline is the baseline, and its old run is no longer in the table."""
    root = copy_settings(tmp_path)
    edit(root / "ablations/baseline.yaml", old, new)
    before, after = table_of(ROOT), table_of(root)
    gone = before.runs.keys() - after.runs.keys()
    assert all(spec_hash(before.runs[name]) == spec_hash(after.runs["baseline"]) for name in gone)
    assert _changed(before, after) == set(RUNS) - kept - gone
    assert gone <= kept


def test_a_value_of_the_scale_changes_every_run_and_the_seeds_none(tmp_path):
    root = copy_settings(tmp_path)
    edit(root / "config/mini.yaml", "seeds: [0]", "seeds: [0, 1, 2]")
    assert table_of(root).runs == table_of(ROOT).runs
    edit(root / "config/mini.yaml", "steps: 155", "steps: 251")
    assert _changed(table_of(ROOT), table_of(root)) == set(RUNS)


def test_how_samples_are_drawn_and_scored_changes_no_training_run(tmp_path):
    root = copy_settings(tmp_path)
    for old, new in (
        ("count: 4000", "count: 3999"),
        ("  batch: 100", "  batch: 101"),
        ("build: mini.d", "build: d"),
    ):
        edit(root / "config/mini.yaml", old, new)
    assert table_of(root).runs == table_of(ROOT).runs


def test_a_network_changes_exactly_the_runs_that_use_it(tmp_path):
    root = copy_settings(tmp_path)
    edit(root / "config/mini.yaml", "latents: sdxl", "latents: other")
    assert _changed(table_of(ROOT), table_of(root)) == {
        name for name in RUNS if name.startswith("teacher_type")
    }


def test_a_new_file_with_one_row_adds_exactly_one_run(tmp_path):
    root = copy_settings(tmp_path)
    (root / "ablations/weight.yaml").write_text(ONE_ROW)
    before, after = table_of(ROOT), table_of(root)
    assert after.runs.keys() - before.runs.keys() == {"weight-lambda-1"}
    assert _changed(before, after) == set()
    assert len(after.cells) == 23
    assert after.cells[-1].published is None


def test_a_new_row_that_equals_an_old_one_shares_its_run(tmp_path):
    root = copy_settings(tmp_path)
    same = ONE_ROW.replace("loss.distillation_weight: 1.0", "loss.distillation: sds")
    (root / "ablations/again.yaml").write_text(same)
    table = table_of(root)
    assert len(table.runs) == 17
    assert table.cells[-1].run == "loss_terms-l-adv-lambda-l-distill-sds"


def test_a_row_that_states_the_baselines_value_is_the_baseline(tmp_path):
    root = copy_settings(tmp_path)
    stated = "{loss.distillation_weight: 2.50, discriminator.conditioning: [image, text]}"
    (root / "ablations/again.yaml").write_text(ONE_ROW.replace("{loss.distillation_weight: 1.0}", stated))
    cell = table_of(root).cells[-1]
    assert (cell.run, cell.is_default) == ("baseline", True)


def test_rows_override_training_settings_of_every_depth(tmp_path):
    root = copy_settings(tmp_path)
    keys = "{training.steps: 300, training.student_optimiser.lr: 1e-3, training.nfsd.negative_prompt: blur}"
    (root / "ablations/more.yaml").write_text(ONE_ROW.replace("{loss.distillation_weight: 1.0}", keys))
    training = table_of(root).runs["more-lambda-1"].training
    assert (training.steps, training.student_optimiser.lr, training.nfsd.negative_prompt) == (
        300,
        1e-3,
        "blur",
    )
    assert training.head_optimiser.lr == 5e-3


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_the_hash_depends_on_values_not_on_the_order_of_keys_or_the_name(data):
    run = table_of(ROOT).runs["teacher_type-sd2-1-sdxl"]  # it has a dictionary of two networks
    values = run.model_dump()

    def shuffled(node):
        if not isinstance(node, dict):
            return node
        return {key: shuffled(node[key]) for key in data.draw(st.permutations(list(node)))}

    other = Run.model_validate({**shuffled(values), "name": data.draw(st.text(max_size=5))})
    assert spec_hash(other) == spec_hash(run)
    assert len(spec_hash(other)) == 12


@given(weight=st.floats(0, 1e6, exclude_min=True, allow_nan=False))
def test_the_hash_differs_exactly_where_a_value_differs(weight):
    loss = BASELINE_RUN.variant.loss.model_copy(update={"distillation_weight": weight})
    variant = BASELINE_RUN.variant.model_copy(update={"loss": loss})
    other = BASELINE_RUN.model_copy(update={"variant": variant})
    assert (spec_hash(other) == spec_hash(BASELINE_RUN)) == (weight == 2.5)


def test_every_override_key_is_known_and_reaches_the_run(tmp_path):
    """Each leaf of Variant and Training, set to the value it already has, resolves to the baseline."""
    values = {**BASELINE_RUN.variant.model_dump(), "training": BASELINE_RUN.training.model_dump()}
    keys = override_keys()
    assert len(keys) == len(set(keys)) > 40
    assert "training.seeds" not in keys
    # Options that are unset have no value that could be stated again.
    unset = [k for k in keys if k == "training.resolution" or k.startswith("training.performance")]
    keys = [k for k in keys if k not in unset]
    root = copy_settings(tmp_path)
    scale, baseline = load_scale(root / "config/mini.yaml"), load_baseline(root / "ablations/baseline.yaml")
    row = {}
    for key in keys:
        node = values
        for part in key.split("."):
            node = node[part]
        row[key] = list(node) if isinstance(node, tuple) else node
    rows = [{"label": key, "set": {key: value}} for key, value in row.items()]
    for old in (root / "ablations").glob("[!b]*.yaml"):
        old.unlink()
    with (root / "ablations/all.yaml").open("w") as stream:
        YAML(typ="safe", pure=True).dump({"part": "a", "question": "all", "rows": rows}, stream)
    table = resolve(scale, baseline, load_ablations(root / "ablations"))
    assert set(table.runs) == {"baseline"}
    assert len(table.cells) == len(keys)


def test_our_own_questions_resolve_and_are_no_runs_of_the_papers_table():
    scale, baseline = load_scale(ROOT / "config/mini.yaml"), load_baseline(ROOT / "ablations/baseline.yaml")
    ours = resolve(scale, baseline, load_ablations(ROOT / "ablations/ours"))
    theirs = resolve(scale, baseline, load_ablations(ROOT / "ablations"))
    assert set(ours.runs) & set(theirs.runs) == {"baseline"}
    assert all(cell.source == "ours" and cell.published is None for cell in ours.cells)
    assert {cell.part for cell in ours.cells}.isdisjoint(cell.part for cell in theirs.cells)
