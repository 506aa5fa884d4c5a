"""Scoring a run from end to end on tiny random networks: what is written, and what is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from add.config.scale import RepeatedPromptsSpec, Scale
from add.errors import REFUSED, InputError
from eval.image_scores import read_scores, scores_file
from eval.images import photograph_folder, read_samples
from eval.metrics.distances import cmmd, frechet_distance, statistics
from eval.metrics.measure import load_metric_networks, measure, score_diversity, score_images
from eval.metrics.protocol import ProtocolMismatchError, one_protocol, protocol_id
from eval.prompts import read_prompts
from eval.reference import load_reference, make_reference
from eval.reference import main as reference_main
from eval.score import main, score_run
from eval.stage import MeasureValues, ScoreValues
from tests.support.evaluation import ROOT, SIDE, make_world, tiny_scale, write_pictures, write_samples
from tests.support.specs import table_of

IMAGES, REFERENCES = 6, 9
COMPARED = {"fid", "kid", "cmmd", "precision", "recall", "density", "coverage"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Scale]:
    root = tmp_path_factory.mktemp("world")
    scale = make_world(root, IMAGES, REFERENCES)
    make_reference(MeasureValues.of(scale), root / "results/smoke/reference")
    return root, scale


def make_run(root: Path, scale: Scale) -> Path:
    """A finished run with samples of every set."""
    run = root / "baseline/seed3"
    (run / "train").mkdir(parents=True)
    (run / "spec.json").write_text(table_of(ROOT, "smoke").runs["baseline"].model_dump_json())
    (run / "train/train.json").write_text('{"wall_seconds": 5.5}')
    for name, config in scale.sampling.prompts.items():
        prompts = [(p.prompt_id, p.prompt) for p in read_prompts(config)]
        for steps in scale.sampling.steps:
            write_samples(run / f"samples/{name}-{steps}step", prompts, steps, first=500 * steps)
    return run


@pytest.fixture
def run(world: tuple[Path, Scale], tmp_path: Path) -> Path:
    return make_run(tmp_path, world[1])


def score(run: Path, world: tuple[Path, Scale]) -> dict[str, Any]:
    return score_run(run, ScoreValues.of(world[1]), world[0] / "results/smoke/reference").values()


def test_the_result_holds_every_metric_with_interval_and_protocol(
    run: Path, world: tuple[Path, Scale]
) -> None:
    result = score(run, world)
    assert (result["schema"], result["run"], result["seed"]) == (1, "baseline", 3)
    assert [(s["steps"], s["prompts"], s["images"]) for s in result["systems"]] == [
        (1, "coco", 6),
        (1, "parti", 4),
        (4, "coco", 6),
        (4, "parti", 4),
    ]
    for system in result["systems"]:
        photographic = {*COMPARED, "clip_score", "alignment"}
        assert set(system["metrics"]) == (photographic if system["prompts"] == "coco" else {"clip_score"})
        for metric, entry in system["metrics"].items():
            if metric == "fid":  # 6 images, 12 features
                assert "interval" not in entry
                assert "rank of at most 5" in entry["note"]
            else:
                low, high = entry["interval"]
                assert low <= entry["value"] <= high
                assert "95%" in entry["interval_covers"]
            protocol = result["protocols"][entry["protocol"]]
            assert protocol["metric"] == metric
            assert protocol["prompts"]["name"] == system["prompts"]
            assert protocol_id(protocol) == entry["protocol"]
    one, four = result["systems"][0]["metrics"], result["systems"][2]["metrics"]
    assert {m: e["protocol"] for m, e in one.items()} == {m: e["protocol"] for m, e in four.items()}
    assert one["fid"]["value"] != four["fid"]["value"]
    assert set(one["alignment"]["groups"]) == {"layout", "shape_0", "shape_1"}
    provenance = result["provenance"]
    assert provenance["train"] == {"wall_seconds": 5.5}
    assert set(provenance["weights"]) == {"extractor", "clip", "oracle"}
    assert set(provenance["sample_seconds"]) == {"coco-1step", "coco-4step", "parti-1step", "parti-4step"}
    json.dumps(result, allow_nan=False)


def test_the_scores_of_single_images_lie_beside_the_result(run: Path, world: tuple[Path, Scale]) -> None:
    """Breaks when a later comparison of images would not find what the printed number is the mean of."""
    metrics = score(run, world)["systems"][2]["metrics"]
    found = read_scores(scores_file(run, "coco", 4))
    assert found.seed == 3
    assert found.prompt_ids == tuple(
        s.prompt_id for s in read_samples(run / "samples/coco-4step", 32).samples
    )
    assert np.mean(found.scores.clip_score) == pytest.approx(metrics["clip_score"]["value"])
    assert np.mean(found.scores.alignment) == pytest.approx(metrics["alignment"]["value"])
    assert [set(answer) for answer in found.scores.answers] == [{"layout", "shape_0", "shape_1"}] * IMAGES
    assert not read_scores(scores_file(run, "parti", 1)).scores.alignment, "these prompts have no scene"


def test_the_numbers_are_those_of_the_parts(run: Path, world: tuple[Path, Scale]) -> None:
    """FID by hand from the images on disk; CLIP score from the metric CLIP with this set's own prompts."""
    root, scale = world
    metrics = score(run, world)["systems"][0]["metrics"]
    networks = load_metric_networks(scale.evaluation)
    pixels = np.stack([np.asarray(Image.open(f)) for f in sorted((run / "samples/coco-1step").glob("*.png"))])
    mine = measure([pixels], extractor=networks.extractor).features
    others = load_file(root / "results/smoke/reference/features.safetensors")["reference"]
    assert mine is not None
    expected = frechet_distance(statistics(mine), statistics(others))
    assert metrics["fid"]["value"] == pytest.approx(expected, rel=1e-4)
    texts = [p.prompt for p in read_prompts(scale.sampling.prompts["coco"])]
    assert metrics["clip_score"]["value"] == pytest.approx(
        networks.clip.cosines(pixels, texts).mean(), abs=1e-6
    )


def test_scoring_twice_gives_the_same_numbers(run: Path, world: tuple[Path, Scale]) -> None:
    first, second = score(run, world), score(run, world)
    assert first["systems"] == second["systems"]
    assert first["protocols"] == second["protocols"]


def spoil(run: Path, what: str) -> str:
    """Damage a finished run; returns what the refusal should name."""
    samples = run / "samples/coco-4step"
    if what == "no set":
        shutil.rmtree(samples)
        return "coco-4step/samples.json"
    if what == "truncated":
        data = (samples / "000003.png").read_bytes()
        (samples / "000003.png").write_bytes(data[:-20])
        return "coco-4step/000003.png"
    if what == "untrained":
        (run / "train/train.json").unlink()
        return "training did not finish"
    if what == "steps":
        shutil.rmtree(samples)
        shutil.copytree(run / "samples/coco-1step", samples)
        return "says 1 steps"
    index = samples / "index.csv"
    text = index.read_text()
    old, new = {"prompt": ("scene called b", "scene called B"), "seed": (",7,", ",8,")}[what]
    assert old in text
    index.write_text(text.replace(old, new, 1))
    return "sample again"


@pytest.mark.parametrize("what", ["no set", "truncated", "untrained", "steps", "prompt", "seed"])
def test_a_run_that_is_not_whole_has_no_result(run: Path, world: tuple[Path, Scale], what: str) -> None:
    reason = spoil(run, what)
    with pytest.raises(InputError) as caught:
        score(run, world)
    assert reason in str(caught.value)


def test_the_command_refuses_with_one_line_and_writes_nothing(run: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "result.json"
    command = ["--run", str(run), "--scale", str(tmp_path / "absent.yaml"), "--out", str(out)]
    assert main(command) == REFUSED
    assert "absent.yaml" in capsys.readouterr().err
    assert not out.exists()


def test_the_reference_states_the_floor_and_what_blur_costs(world: tuple[Path, Scale]) -> None:
    root, _ = world
    content = json.loads((root / "results/smoke/reference/reference.json").read_text())
    features = load_file(root / "results/smoke/reference/features.safetensors")
    assert features["reference"].shape == (REFERENCES, 12)
    assert features["real.coco"].shape == (IMAGES, 12)
    expected = frechet_distance(statistics(features["real.coco"]), statistics(features["reference"]))
    assert content["floor"]["fid"] == pytest.approx(expected)
    real = content["real"][0]
    assert set(real["metrics"]) == {*COMPARED, "clip_score", "alignment"}
    assert content["blur_factor"] == pytest.approx(real["blur"]["fid"] / expected)
    assert real["blur"]["fid"] != pytest.approx(expected, rel=1e-3), "the blur reached no network"
    assert content["reference"]["count"] == REFERENCES


def test_a_reference_made_otherwise_is_refused(world: tuple[Path, Scale], tmp_path: Path) -> None:
    root, scale = world
    networks = load_metric_networks(scale.evaluation)
    directory = root / "results/smoke/reference"
    assert load_reference(directory, scale.evaluation, networks.extractor).source.count == REFERENCES
    other = tiny_scale(root, IMAGES, REFERENCES, crop="center")
    with pytest.raises(InputError, match=r"made with image_rule.*make it again"):
        load_reference(directory, other.evaluation, networks.extractor)
    with pytest.raises(InputError, match="is missing; make it"):
        load_reference(root / "absent", scale.evaluation, networks.extractor)
    mixed = tmp_path / "mixed"  # as a reference remade and killed between its two files
    shutil.copytree(directory, mixed)
    data = bytearray((mixed / "features.safetensors").read_bytes())
    data[-1] ^= 1
    (mixed / "features.safetensors").write_bytes(data)
    with pytest.raises(InputError, match=r"not what reference\.json was made with"):
        load_reference(mixed, scale.evaluation, networks.extractor)


def test_an_older_reference_has_no_embeddings_and_says_what_to_do(
    world: tuple[Path, Scale], tmp_path: Path
) -> None:
    root, scale = world
    networks = load_metric_networks(scale.evaluation)
    shutil.copytree(root / "results/smoke/reference", tmp_path / "old")
    facts = json.loads((tmp_path / "old/reference.json").read_text())
    del facts["settings"]["clip"]
    (tmp_path / "old/reference.json").write_text(json.dumps(facts))
    load_reference(tmp_path / "old", scale.evaluation, networks.extractor)  # FID's features are all there
    with pytest.raises(InputError, match=r"older version.*make it again: python -m eval\.reference"):
        load_reference(tmp_path / "old", scale.evaluation, networks.extractor, networks.clip)


def test_another_clip_than_the_references_is_refused(world: tuple[Path, Scale]) -> None:
    root, scale = world
    networks = load_metric_networks(scale.evaluation)
    other = replace(networks.clip, network=networks.clip.network.model_copy(update={"sha256": "0" * 64}))
    with pytest.raises(InputError, match=r"made with clip.*make it again"):
        load_reference(root / "results/smoke/reference", scale.evaluation, networks.extractor, other)


def test_cmmd_compares_with_the_embeddings_of_the_real_images(run: Path, world: tuple[Path, Scale]) -> None:
    """By hand from the images on disk; breaks when either side is embedded otherwise."""
    root, scale = world
    metrics = score(run, world)["systems"][0]["metrics"]
    clip = load_metric_networks(scale.evaluation).clip
    drawn, real = (
        clip.embeddings(np.stack([np.asarray(Image.open(f)) for f in sorted(folder.glob("*.png"))]))
        for folder in (run / "samples/coco-1step", root / "reference")
    )
    assert metrics["cmmd"]["value"] == pytest.approx(cmmd(drawn, real).value, abs=1e-4)
    assert abs(cmmd(drawn, real).value) > 1e-2


def test_fid_against_statistics_alone(run: Path, world: tuple[Path, Scale], tmp_path: Path, capsys) -> None:
    """The same value as against the images behind them, under another protocol, and nothing else compares."""
    root, scale = world
    file, smoke = tmp_path / "real.npz", str(root / "results/smoke/reference")
    values = MeasureValues.of(scale).model_dump_json()
    assert reference_main(["--scale", values, "--out", smoke, "--npz", str(file)]) == 0
    whole = score(run, world)
    alone = score_run(run, ScoreValues.of(scale), file)
    one, other = whole["systems"][0]["metrics"], alone.systems[0].metrics
    assert set(other) == {"fid", "clip_score", "alignment"}
    assert other["fid"].value == pytest.approx(one["fid"]["value"], rel=1e-9)
    assert other["fid"].note is not None
    assert "statistics alone" in other["fid"].note
    protocols = whole["protocols"] | alone.protocols
    with pytest.raises(ProtocolMismatchError, match="reference"):
        one_protocol([one["fid"]["protocol"], other["fid"].protocol], protocols)
    stated = protocols[other["fid"].protocol]
    assert stated["statistics"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert "statistics" not in protocols[one["fid"]["protocol"]], "the ids of other protocols stay"
    cropped = tiny_scale(root, IMAGES, REFERENCES, crop="center")
    with pytest.raises(InputError, match="under another image_rule"):
        score_run(run, ScoreValues.of(cropped), file)


def test_the_diversity_within_a_prompt(world: tuple[Path, Scale], tmp_path: Path) -> None:
    _, scale = world
    networks, values = load_metric_networks(scale.evaluation), MeasureValues.of(scale)
    write_pictures(tmp_path, range(6))
    images = np.stack([np.asarray(Image.open(f)) for f in sorted(tmp_path.glob("*.png"))])
    alike = images[[0, 0, 1, 1, 0, 1]]
    found = score_diversity([alike[:4], alike[4:]], list("aabbab"), "parti", values, networks)
    entry = found.metrics["vendi_score"]
    assert entry.value == pytest.approx(1, abs=1e-6)
    assert "3 images a prompt" in found.protocols[entry.protocol]["definition"]
    assert (found.protocols[entry.protocol]["images"], entry.interval_covers) == (
        6,
        "prompts (standard error, 95%)",
    )
    unlike = score_diversity([images], list("ababab"), "parti", values, networks).metrics["vendi_score"]
    assert unlike.value > 1.001
    assert unlike.protocol == entry.protocol
    with pytest.raises(InputError, match="same number of images"):
        score_diversity([images], list("aabbbb"), "parti", values, networks)
    with pytest.raises(InputError, match="two prompts or more"):
        score_diversity([images], ["a"] * 6, "parti", values, networks)


def test_a_stated_subset_where_photographs_are_missing(world: tuple[Path, Scale], tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(world[0], root)
    (root / "val/000002.png").unlink()
    scale = tiny_scale(root, IMAGES, REFERENCES)
    with pytest.raises(InputError, match=r"1 of 6 images are missing: 000002\.png"):
        make_reference(MeasureValues.of(scale), tmp_path / "out")
    made = make_reference(MeasureValues.of(scale), tmp_path / "out", present_only=True)
    assert (made.real[0].images, made.real[0].listed) == (5, 6)


def test_real_images_compared_with_themselves_have_no_blur_factor(
    world: tuple[Path, Scale], tmp_path: Path
) -> None:
    root = tmp_path / "copy"
    shutil.copytree(world[0], root)
    shutil.rmtree(root / "reference")
    shutil.copytree(root / "val", root / "reference")
    made = make_reference(MeasureValues.of(tiny_scale(root, IMAGES, IMAGES)), tmp_path / "out")
    assert made.floor["fid"] == pytest.approx(0, abs=1e-6)
    assert made.blur_factor is None


def test_prompts_without_scenes_have_no_alignment_and_part_of_them_is_an_error(
    world: tuple[Path, Scale], tmp_path: Path
) -> None:
    root, scale = world
    networks = load_metric_networks(scale.evaluation)
    reference = load_reference(root / "results/smoke/reference", scale.evaluation, networks.extractor)
    write_pictures(tmp_path, range(3))
    images = np.stack([np.asarray(Image.open(f)) for f in sorted(tmp_path.glob("*.png"))])
    foreign = ["a dog", "a cat", "a cow"]
    assert (
        "alignment"
        not in score_images([images], foreign, "coco", MeasureValues.of(scale), networks, reference).metrics
    )
    with pytest.raises(InputError, match="2 of 3 prompts have no scene"):
        score_images(
            [images], ["a scene called a", *foreign[1:]], "coco", MeasureValues.of(scale), networks, reference
        )


def test_without_an_oracle_the_rest_is_scored(run: Path, world: tuple[Path, Scale]) -> None:
    root, _ = world
    blind = tiny_scale(root, IMAGES, REFERENCES, oracle=None)
    result = score_run(run, ScoreValues.of(blind), root / "results/smoke/reference")
    assert set(result.systems[0].metrics) == {*COMPARED, "clip_score"}
    assert "oracle" not in result.provenance.weights


def test_the_folder_of_photographs_is_cocos(world: tuple[Path, Scale]) -> None:
    root, scale = world
    config = scale.sampling.prompts["coco"]
    assert config.kind == "coco"
    assert photograph_folder(Path(config.annotations)) == root / "val"
    with pytest.raises(InputError, match="captions_<split>"):
        photograph_folder(Path("data/val.json"))


def test_reading_happens_before_any_network_is_loaded(run: Path, world: tuple[Path, Scale]) -> None:
    """A set that is not there should be refused in a second, not after a minute of loading."""
    root, scale = world
    broken = scale.evaluation.clip.model_copy(update={"model": "local-dir:absent"})
    unloadable = scale.model_copy(update={"evaluation": scale.evaluation.model_copy(update={"clip": broken})})
    spoil(run, "no set")
    with pytest.raises(InputError, match="did not finish"):
        score_run(run, ScoreValues.of(unloadable), root)
    prompts = scale.sampling.prompts["parti"].model_copy(update={"file": str(root / "absent.tsv")})
    sampling = scale.sampling.model_copy(update={"prompts": {"parti": prompts}})
    with pytest.raises(InputError, match="cannot be read"):
        score_run(run, ScoreValues.of(scale.model_copy(update={"sampling": sampling})), root)


def test_samples_of_another_size_are_refused(run: Path) -> None:
    with pytest.raises(InputError, match=f"is {SIDE}x{SIDE}; 32x32 is to be measured"):
        next(read_samples(run / "samples/coco-1step", 32).batches(2))


def test_the_reference_command_refuses_with_one_line(tmp_path: Path, capsys) -> None:
    assert reference_main(["--scale", str(tmp_path / "absent.yaml"), "--out", str(tmp_path)]) == REFUSED
    assert "absent.yaml" in capsys.readouterr().err


def test_prompts_that_clips_tokenizer_cuts_are_counted_and_noted(world: tuple[Path, Scale]) -> None:
    root, scale = world
    networks = load_metric_networks(scale.evaluation)
    reference = load_reference(root / "results/smoke/reference", scale.evaluation, networks.extractor)
    images = np.stack([np.asarray(Image.open(f)) for f in sorted((root / "val").glob("*.png"))[:3]])
    found = {}
    for texts in (["a dog", "a cat", "a cow"], ["a dog", "a cat", "a cow " * 50]):
        scored = score_images([images], texts, "parti", MeasureValues.of(scale), networks, reference)
        found[texts[2]] = scored.metrics["clip_score"]
    assert [(each.truncated_prompts, each.note is None) for each in found.values()] == [(0, True), (1, False)]
    assert "CLIP's tokenizer cut 1 of 3 prompts" in str(found["a cow " * 50].note)


def test_another_name_of_a_prompt_set_is_the_same_protocol(run: Path, world: tuple[Path, Scale]) -> None:
    root, scale = world
    sets = scale.sampling.prompts
    renamed = scale.model_copy(
        update={
            "sampling": scale.sampling.model_copy(update={"prompts": {"captions": sets["coco"]}}),
            "study": None,
        }
    )
    for steps in (1, 4):
        (run / f"samples/coco-{steps}step").rename(run / f"samples/captions-{steps}step")
    found = score_run(run, ScoreValues.of(renamed), root / "results/smoke/reference")
    real = json.loads((root / "results/smoke/reference/reference.json").read_text())["real"][0]
    assert {k: v.protocol for k, v in found.systems[0].metrics.items()} == {
        k: v["protocol"] for k, v in real["metrics"].items()
    }


def test_the_images_of_one_prompt_are_scored_by_their_diversity_alone(
    world: tuple[Path, Scale], tmp_path: Path
) -> None:
    """Against the effective number of images by hand, of features from the images on disk."""
    root, scale = world
    of = scale.sampling.prompts["parti"].model_dump()
    repeated = RepeatedPromptsSpec.model_validate({"kind": "repeated", "images": 2, "of": of})
    prompts = {**scale.sampling.prompts, "diversity": repeated}
    scale = scale.model_copy(update={"sampling": scale.sampling.model_copy(update={"prompts": prompts})})
    run = make_run(tmp_path, scale)
    result = score(run, (root, scale))
    (found,) = [s for s in result["systems"] if (s["prompts"], s["steps"]) == ("diversity", 4)]
    assert set(found["metrics"]) == {"vendi_score"}
    assert found["images"] == 8
    networks = load_metric_networks(scale.evaluation)
    samples = read_samples(run / "samples/diversity-4step", SIDE)
    features = measure(samples.batches(8), extractor=networks.extractor).features
    assert features is not None
    numbers = []
    for pair in features.reshape(4, 2, -1).astype(np.float64):
        one, two = (x / np.linalg.norm(x) for x in pair)
        shares = np.array([1 + one @ two, 1 - one @ two]) / 2
        numbers.append(np.exp(-(shares * np.log(shares)).sum()))
    assert found["metrics"]["vendi_score"]["value"] == pytest.approx(np.mean(numbers), rel=1e-6)
    protocol = result["protocols"][found["metrics"]["vendi_score"]["protocol"]]
    assert protocol["definition"].endswith("; 2 images a prompt")
    assert protocol["prompts"]["count"] == 4
    assert len(read_scores(scores_file(run, "diversity", 4)).prompt_ids) == 8
