"""One image set under several protocols: the base is result.json's, differences are differences, hashes differ."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from add.config.scale import Scale
from add.errors import InputError
from eval.images import read_samples
from eval.metrics.measure import load_metric_networks, score_images
from eval.protocols.compare import csv_table, markdown_table, text_table
from eval.protocols.run import Request, open_reference, score_protocols
from eval.reference import load_reference, make_reference
from eval.stage import MeasureValues
from tests.support.protocol_sets import IMAGES, protocols, samples, world

ROWS = """\
  - {name: itself, why: nothing changes}
  - {name: jpeg, why: artefacts, set: {samples_format: jpeg-30}}
  - {name: both, why: artefacts, set: {samples_format: jpeg-30, reference_format: jpeg-30}}
  - {name: legacy, why: aliases, set: {resize: tensorflow1}}
  - {name: native, why: no picture between, set: {reference_resolution: native}}
  - {name: small, why: less detail, set: {reference_resolution: half, samples_resolution: half}}
  - {name: squeezed, why: proportions, set: {reference_crop: none, reference_filter: nearest}}
  - {name: fewer, why: bias, set: {images: half}}
  - {name: infinite, why: no bias, set: {estimator: infinity}}
  - {name: captions, why: other prompts, set: {caption_rule: random, rule_seed: 3}}
  - {name: seed, why: luck, set: {sampling_seed: 8}}
"""


@pytest.fixture(scope="module")
def scale(tmp_path_factory: pytest.TempPathFactory) -> Scale:
    return world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def root(scale: Scale) -> Path:
    root = Path(scale.evaluation.reference.images).parent
    samples(scale, root / "samples")
    samples(scale, root / "seed8", seed=8, first=900)
    return root


@pytest.fixture(scope="module")
def request_(root: Path) -> Request:
    return Request(root / "samples", own_samples={"seed": root / "seed8"})


@pytest.fixture(scope="module")
def comparison(scale: Scale, root: Path, request_: Request):
    return score_protocols(protocols(root, ROWS), scale, request_)


def row(comparison, name: str):
    return next(r for r in comparison.rows if r.name == name)


def test_the_base_is_the_number_and_the_protocol_of_result_json(comparison, scale, root) -> None:
    """Otherwise the table explains differences from a number that stands nowhere else."""
    make_reference(MeasureValues.of(scale), root / "ref", present_only=True)
    networks = load_metric_networks(scale.evaluation)
    reference = load_reference(root / "ref", scale.evaluation, networks.extractor)
    found = read_samples(root / "samples", scale.evaluation.resolution)
    texts = [s.prompt for s in found.samples]
    networks = replace(networks, oracle=None)
    scored = score_images(found.batches(4), texts, "coco", MeasureValues.of(scale), networks, reference)
    base = comparison.rows[0]
    for metric, figure, identity in (
        ("fid", base.fid, base.fid_protocol),
        ("kid", base.kid, base.kid_protocol),
    ):
        entry = scored.metrics[metric]
        assert figure.value == entry.value
        assert [figure.low, figure.high] == pytest.approx(entry.interval, rel=1e-12)
        assert identity == entry.protocol


def test_the_base_is_nothing_away_from_itself(comparison) -> None:
    d = row(comparison, "itself").difference
    assert (d.fid.value, d.fid.low, d.fid.high) == (0, 0, 0)
    assert (d.kid.value, d.kid.low, d.kid.high) == (0, 0, 0)
    assert row(comparison, "itself").fid_protocol == comparison.rows[0].fid_protocol


def test_each_change_moves_the_numbers_and_has_a_protocol_of_its_own(comparison) -> None:
    scored = [r for r in comparison.rows if r.fid is not None and r.name not in ("itself", "infinite")]
    assert len({r.fid.value for r in scored}) == len({r.kid.value for r in scored}) == len(scored) == 9
    assert len({r.fid_protocol for r in scored}) == len({r.kid_protocol for r in scored}) == 9
    for r in scored:
        assert comparison.protocols[r.fid_protocol]["metric"] == "fid"
        assert comparison.protocols[r.kid_protocol]["metric"] == "kid"


def test_pairing_takes_the_shared_noise_out(comparison) -> None:
    """The same images through JPEG: the difference is far better known than either value."""
    base, jpeg = comparison.rows[0], row(comparison, "jpeg")
    width = jpeg.difference.fid.high - jpeg.difference.fid.low
    assert jpeg.difference.paired
    assert width < 0.8 * (base.fid.high - base.fid.low)
    assert jpeg.difference.fid.value == pytest.approx(jpeg.fid.value - base.fid.value)
    fewer = row(comparison, "fewer").difference
    assert fewer.paired
    alone = row(comparison, "fewer").kid
    assert fewer.kid.high - fewer.kid.low < alone.high - alone.low
    # Twelve images of twelve features: their covariance is singular, and no error of the distance is known.
    assert (fewer.fid.low, fewer.fid.high) == (None, None)
    assert row(comparison, "fewer").fid.low is None


def test_other_samples_are_scored_in_pairs_of_prompts(comparison, scale) -> None:
    seed = row(comparison, "seed")
    assert seed.difference.paired
    assert comparison.protocols[seed.fid_protocol]["sampling_seed"] == 8
    assert comparison.facts["samples"]["seed"]["images"] == IMAGES


def test_what_cannot_be_scored_has_a_row_that_says_why(comparison) -> None:
    captions, infinite = row(comparison, "captions"), row(comparison, "infinite")
    assert captions.fid is captions.fid_protocol is None
    assert "--samples-for captions=DIRECTORY" in captions.not_scored
    assert "12 features needs 120 images or more, 24 are there" in infinite.not_scored


def test_order_and_company_do_not_matter(comparison, scale, root, request_) -> None:
    lines = ROWS.splitlines(keepends=True)
    other = score_protocols(
        protocols(root, "".join(reversed(lines[1:5])), "b.yaml"), scale, Request(root / "samples")
    )
    for found in other.rows:
        assert found == row(comparison, found.name)


def test_a_folder_of_images_has_no_prompts_to_state(scale, root) -> None:
    document = protocols(root, "  - {name: itself, why: nothing changes}\n", "c.yaml")
    found = score_protocols(document, scale, Request(root / "photographs"))
    base = found.rows[0]
    assert base.fid is not None
    assert found.protocols[str(base.fid_protocol)]["prompts"] is None
    assert abs(base.fid.value) < 1e-6, "the reference is nothing away from itself"
    assert "prompts not stated" in text_table(found)


def test_images_for_prompts_of_no_photographs_say_so(scale, root) -> None:
    """PartiPrompts' samples are compared too, with the note that it is no zero-shot FID."""
    document = protocols(root, "  - {name: jpeg, why: artefacts, set: {samples_format: jpeg-30}}\n", "g.yaml")
    directory = samples(scale, root / "parti", prompts="parti")
    found = score_protocols(document, scale, Request(directory, "parti"))
    assert found.protocols[str(found.rows[0].fid_protocol)]["prompts"]["kind"] == "partiprompts"
    assert "'parti' describe no photographs" in text_table(found)
    rule = protocols(root, "  - {name: c, why: w, set: {caption_rule: first}}\n", "h.yaml")
    with pytest.raises(InputError, match="'parti' has no captions to choose from"):
        score_protocols(rule, scale, Request(directory, "parti", own_samples={"c": directory}))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"samples": Path("absent")}, "no such directory"),
        ({"reference": Path("absent")}, "no such directory"),
        ({"prompts": "parti"}, "lists 24 images, set 'parti' has 6 prompts"),
        ({"prompts": "koko"}, "has no prompt set 'koko'; did you mean 'coco'"),
        ({"own_samples": {"jpeg": Path("x")}}, "takes no samples of its own; those that do: captions, seed"),
        ({"own_samples": {"captions": "seed8"}}, "entry . is for"),
        ({"own_samples": {"seed": "samples"}}, "has seed 7, not 8 as stated"),
        ({"own_samples": {"seed": "photographs"}}, "no record of its prompts"),
    ],
)
def test_bad_input_is_refused_by_name(changed, reason, scale, root) -> None:
    own = {k: root / v for k, v in changed.get("own_samples", {}).items()}
    request = replace(Request(root / "samples"), **{**changed, "own_samples": own})
    with pytest.raises(InputError, match=reason):
        score_protocols(protocols(root, ROWS, "d.yaml"), scale, request)


def test_a_broken_photograph_stops_it(scale, root, tmp_path) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "a.png").write_bytes((root / "photographs/0000.png").read_bytes()[:200])
    with pytest.raises(InputError, match=r"a\.png: cannot be read as an image"):
        score_protocols(protocols(root, ROWS, "e.yaml"), scale, Request(root / "samples", reference=folder))


def test_the_reference_is_the_scales_first_images(scale, root) -> None:
    wanted = scale.evaluation.reference.model_copy(update={"count": 5})
    part = scale.model_copy(update={"evaluation": scale.evaluation.model_copy(update={"reference": wanted})})
    images, source = open_reference(part, None)
    assert [f.name for f in images.files] == [f"{k:04d}.png" for k in range(5)]
    assert source.count == 5
    assert len(open_reference(part, root / "photographs")[0]) == 40


def test_the_tables_hold_every_row_with_its_reason_and_hash(comparison) -> None:
    import csv
    import io

    lines = list(csv.DictReader(io.StringIO(csv_table(comparison))))
    assert list(lines[0]) == [
        *("protocol", "changes", "images", "fid", "fid_low", "fid_high", "kid", "kid_low", "kid_high"),
        *("fid_difference", "fid_difference_low", "fid_difference_high"),
        *("kid_difference", "kid_difference_low", "kid_difference_high"),
        *("paired", "other_unit", "fid_protocol", "kid_protocol", "note", "not_scored", "why"),
    ]
    text, markdown = text_table(comparison), markdown_table(comparison)
    for r, line in zip(comparison.rows, lines, strict=True):
        assert line["protocol"] == r.name
        assert r.why in text
        assert r.why in markdown
        if r.fid is None:
            assert line["fid"] == ""
            assert line["not_scored"] == r.not_scored
            assert r.not_scored in text
            continue
        assert float(line["fid"]) == r.fid.value
        assert r.fid_protocol in text
        assert f"| {r.fid_protocol} |" in markdown
    assert "smoke scale" in text, "the scale's notice is left out"
    widths = {
        markdown_line.count(" | ")
        for markdown_line in markdown.splitlines()
        if markdown_line.startswith("| ")
    }
    assert len(widths) == 1
    json.dumps(comparison.facts)


def counting_decodes(images):
    """The images, and a list to which each file is added as it is decoded."""
    decoded: list[Path] = []

    def decode(file: Path) -> Image.Image:
        decoded.append(file)
        return images.decode(file)

    return replace(images, decode=decode), decoded


def test_each_photograph_is_decoded_once_for_all_protocols(scale, root, monkeypatch) -> None:
    """Decoding is what most of the time goes into; a second decode a protocol would multiply it."""
    images, source = open_reference(scale, None)
    counting, decoded = counting_decodes(images)
    monkeypatch.setattr("eval.protocols.run.open_reference", lambda *_: (counting, source))
    found = score_protocols(protocols(root, ROWS, "f.yaml"), scale, Request(root / "samples"))
    assert len(decoded) == len(set(decoded)) == 40
    assert len(found.rows) == 12


def test_memory_holds_one_batch_at_a_time(scale) -> None:
    """Breaks when a whole set is decoded before the first batch is used up."""
    counting, decoded = counting_decodes(open_reference(scale, None)[0])
    batches = counting.decoded(4)
    for k in range(1, 4):
        assert len(next(batches)) == 4
        assert len(decoded) == 4 * k


def test_another_networks_distance_has_no_difference(scale, root) -> None:
    """FID in other features is another unit: a difference in the table would be read as one."""
    features = {"other": scale.networks.features["vit_l_dinov2"]}
    extractor = scale.evaluation.extractor
    update = {"path": str(root / "oracle"), "sha256": None, "image_size": extractor.image_size}
    features = {"other": features["other"].model_copy(update=update)}
    networks = scale.networks.model_copy(update={"features": features})
    document = protocols(
        root, "  - {name: o, why: w, set: {extractor: {kind: features, network: other}}}\n", "i.yaml"
    )
    found = score_protocols(
        document, scale.model_copy(update={"networks": networks}), Request(root / "samples")
    )
    other = found.rows[1]
    assert other.fid is not None
    assert other.fid != found.rows[0].fid
    assert (other.other_unit, other.difference) == (True, None)
    assert "another unit" in text_table(found)
    assert other.fid_protocol != found.rows[0].fid_protocol
