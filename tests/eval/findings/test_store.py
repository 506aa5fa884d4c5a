"""The store of a study that grows: what goes in, what is refused by its own message, and that a run counts once."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from add.config.load import load_ablations, load_baseline
from add.config.resolve import resolve
from add.errors import InputError
from add.identity import METHOD, networks_of, spec_hash
from eval.findings.measured import measure_spreads
from eval.findings.present import PresentStudy, mismatches, present_study
from eval.findings.store import PROTOCOLS, Key, add_results, holds, read_store
from eval.metrics.protocol import protocol_id
from eval.result import Result
from reports.study import ReportRow
from tests.support.report_fixture import result_of, study_of
from tests.support.specs import ROOT, changed_scale

SCALE, TABLE = changed_scale("mini")
PRESENT = present_study(SCALE, TABLE)
OURS = resolve(
    SCALE, load_baseline(ROOT / "ablations/baseline.yaml"), load_ablations(ROOT / "ablations/ours")
)
RUNS = {**OURS.runs, **TABLE.runs}


def result(
    run: str = "baseline", seed: int = 100, processor: str = "CPU 1", shift: float = 0.0
) -> dict[str, Any]:
    """A whole result of the present table, or of a question of ours."""
    study = study_of((ReportRow("a", "Q", run, run, True),), scale=SCALE.name)
    values = result_of(study, run, seed)
    values["spec_hash"] = spec_hash(RUNS[run])
    for system in values["systems"]:
        system["images"] = SCALE.sampling.prompts[system["prompts"]].at(system["steps"]).count
        system["metrics"]["clip_score"]["value"] += shift
    repeated = SCALE.sampling.prompts["diversity"].count
    values["systems"][-1:-1] = [
        {"steps": steps, "prompts": "diversity", "images": repeated, "metrics": {}} for steps in (1, 4)
    ]
    provenance = values["provenance"]
    provenance["hardware"]["processor"] = processor
    provenance["train"] |= {
        "method": METHOD,
        "data": "d" * 64,
        "weights": {name: network.sha256 for name, network in networks_of(RUNS[run]).items()},
    }
    images = sha256(f"{run} {seed} {processor}".encode()).hexdigest()
    provenance["sample_sha256"] = {f"{s['prompts']}-{s['steps']}step": images for s in values["systems"]}
    return values


def put(folder: Path, *results: dict[str, Any]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for values in results:
        paths.append(folder / f"{len(list(folder.iterdir()))}.json")
        paths[-1].write_text(json.dumps(values))
    return paths


def add(store: Path, paths: list[Path], study: PresentStudy = PRESENT) -> tuple[list[Key], list[str]]:
    return add_results(paths, read_store(store), study)


def counted(store: Path, study: PresentStudy = PRESENT) -> dict[str, tuple[Result, ...]]:
    return read_store(store).counted(study).there


def test_results_go_in_once_and_come_out_by_seed(tmp_path: Path):
    store, files = tmp_path / "store", put(tmp_path / "in", *(result(seed=s) for s in (101, 100)))
    added, refused = add(store, files)
    assert [str(key) for key in added] == ["baseline, seed 101, on CPU 1", "baseline, seed 100, on CPU 1"]
    assert not refused
    found = counted(store)
    assert [r.seed for r in found["baseline"]] == [100, 101]
    assert list(found) == ["baseline"]
    original = result(seed=100)
    assert (
        found["baseline"][0].systems[0].metrics["fid"].value
        == original["systems"][0]["metrics"]["fid"]["value"]
    )
    assert found["baseline"][0].protocols, "each number keeps its protocol"
    assert len(list(store.rglob("seed*.json"))) == 2
    sizes = [file.stat().st_size for file in store.rglob("seed*.json")]
    assert max(sizes) < 8000, "a record is small"


def measured_with(values: dict[str, Any], metric: str, **changes: Any) -> dict[str, Any]:
    """The same result with one metric under a changed protocol."""
    for system in values["systems"]:
        if metric in system["metrics"]:
            protocol = values["protocols"][system["metrics"][metric]["protocol"]] | changes
            system["metrics"][metric]["protocol"] = protocol_id(protocol)
            values["protocols"][protocol_id(protocol)] = protocol
    return values


def other_spec() -> tuple[PresentStudy, dict[str, Any]]:
    study = replace(PRESENT, specs={**PRESENT.specs, "baseline": "0" * 12})
    return study, {**result(), "spec_hash": "0" * 12}


def other_weights() -> tuple[PresentStudy, dict[str, Any]]:
    weights = {**PRESENT.weights["baseline"], "sd21": "f" * 64}
    new = result()
    new["provenance"]["train"]["weights"]["sd21"] = "f" * 64
    return replace(PRESENT, weights={**PRESENT.weights, "baseline": weights}), new


def other_protocol() -> tuple[PresentStudy, dict[str, Any]]:
    new = measured_with(result(), "fid", sampling_seed=7)
    protocols = copy.deepcopy(PRESENT.protocols)
    protocols["coco"]["fid"]["sampling_seed"] = 7
    return replace(PRESENT, protocols=protocols), new


def other_images() -> tuple[PresentStudy, dict[str, Any]]:
    new = result()
    for system in new["systems"]:
        system["images"] = 10
    return replace(PRESENT, images={name: {1: 10, 4: 10} for name in PRESENT.images}), new


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (other_spec, "1 of another spec"),
        (other_weights, "1 trained from other weights"),
        (other_protocol, "1 measured under another protocol"),
        (other_images, "1 of other numbers of images"),
    ],
)
def test_after_a_change_old_records_stay_do_not_count_and_are_replaced_by_the_same_run(
    tmp_path: Path, change: Any, words: str
):
    store = tmp_path / "store"
    add(store, put(tmp_path / "in", result(), result("teacher_steps-2")))
    study, new = change()
    left = read_store(store).counted(study)
    assert "baseline" not in left.there
    assert left.left_out_text.startswith(
        f"{sum(left.left_out.values())} older record(s) in the store do not count"
    )
    if words not in left.left_out_text:  # what the measurement decides is so for every run
        assert words.replace("1 ", "2 ") in left.left_out_text
    another = copy.deepcopy(new) | {"seed": 101}
    another["provenance"]["sample_sha256"] = dict.fromkeys(new["provenance"]["sample_sha256"], "1" * 64)
    added, refused = add(store, put(tmp_path / "new", new, another), study)
    assert (len(added), refused) == (2, []), "old records do not block"
    assert [r.seed for r in counted(store, study)["baseline"]] == [100, 101]
    assert sum(read_store(store).counted(study).left_out.values()) == sum(left.left_out.values()) - 1
    added, refused = add(store, put(tmp_path / "again", new), study)
    assert not added, "one that counts is not replaced"
    assert "the same numbers" in refused[0]


def test_a_real_setting_of_the_scale_decides_what_counts():
    new = Result.model_validate(measured_with(result(), "fid", network={"sha256": "e" * 64}))
    (reason,) = mismatches(new, PRESENT)
    assert reason.kind == "protocol"
    assert "fid of 'coco' at 1 step(s) has network.sha256" in reason.message
    old = Result.model_validate(result())
    assert not list(mismatches(old, PRESENT))
    fewer = present_study(*changed_scale("mini", sampling__prompts__coco__count=1200))
    assert {m.kind for m in mismatches(old, fewer)} == {"images"}
    elsewhere = present_study(*changed_scale("mini", sampling__seed=7))
    assert not list(mismatches(Result.model_validate(measured_with(result(), "fid")), PRESENT))
    assert {m.kind for m in mismatches(old, elsewhere)} == {"protocol"}


def test_records_that_a_scale_cannot_tell_apart_are_not_mixed(tmp_path: Path):
    """Such as of data that were made anew: the settings are the same."""
    store = tmp_path / "store"
    add(store, put(tmp_path / "in", result()))
    other = tmp_path / "other"
    new = result(seed=101)
    new["provenance"]["train"]["data"] = "e" * 64
    (key,), _ = add(other, put(tmp_path / "more", new))
    key.file(other).rename(key.file(store))
    with pytest.raises(InputError, match=r"was trained on other data: eeeeeeeeeeee.*take the older kind out"):
        read_store(store).counted(PRESENT)


def test_figures_of_the_first_images_keep_their_protocols(tmp_path: Path):
    store = tmp_path / "store"
    values = result()
    for system in values["systems"]:
        if "fid" in system["metrics"]:
            protocol = values["protocols"][system["metrics"]["fid"]["protocol"]] | {"images": 500}
            values["protocols"][protocol_id(protocol)] = protocol
            fid = {**system["metrics"]["fid"], "value": 50.0, "protocol": protocol_id(protocol)}
            system["first"] = {"images": 500, "metrics": {"fid": fid}}
    add(store, put(tmp_path / "in", values))
    (kept,) = counted(store)["baseline"]
    comparable = next(s.comparable for s in kept.systems if s.prompts == "coco")
    assert kept.protocols[comparable.metrics["fid"].protocol]["images"] == 500
    assert holds(read_store(store), Result.model_validate(values))


def test_processors_of_one_marketing_name_are_told_apart_and_old_records_stay_readable(tmp_path: Path):
    store = tmp_path / "store"
    old = result(processor="Intel(R) Xeon(R) Processor")
    new = [result(processor="Intel(R) Xeon(R) Processor", shift=0.001 * k) for k in range(3)]
    for values, model, simd in zip(new, (143, 173, 173), ("AVX512", "AVX512", "AVX2"), strict=True):
        values["provenance"]["hardware"] |= {"family": 6, "model": model, "stepping": 8, "simd": simd}
        images = sha256(f"{model} {simd}".encode()).hexdigest()
        values["provenance"]["sample_sha256"] = dict.fromkeys(old["provenance"]["sample_sha256"], images)
    added, refused = add(store, put(tmp_path / "in", old, *new))
    assert (len(added), refused) == (4, [])
    assert {key.processor for key in read_store(store).runs} == {
        "Intel(R) Xeon(R) Processor",
        "Intel(R) Xeon(R) Processor (family/model/stepping 6/143/8, AVX512)",
        "Intel(R) Xeon(R) Processor (family/model/stepping 6/173/8, AVX512)",
        "Intel(R) Xeon(R) Processor (family/model/stepping 6/173/8, AVX2)",
    }
    assert len({path.name for path in store.rglob("seed*.json")}) == 4


def test_another_processors_run_of_one_seed_is_another_run(tmp_path: Path):
    store = tmp_path / "store"
    added, refused = add(store, put(tmp_path / "in", result(), result(processor="CPU 2", shift=0.01)))
    assert (len(added), refused) == (2, [])
    assert {key.processor for key in read_store(store).runs} == {"CPU 1", "CPU 2"}


def changed(change: Any, **of: Any) -> dict[str, Any]:
    values = copy.deepcopy(result(**of))
    change(values)
    return values


REFUSED = {
    "another spec": (
        lambda r: r.update(spec_hash="0" * 12),
        "is of another spec of baseline: 000000000000, here",
    ),
    "another method": (
        lambda r: r["provenance"]["train"].update(method=1),
        "was trained by version 1 of the method",
    ),
    "other weights": (
        lambda r: r["provenance"]["train"]["weights"].update(sd21="f" * 64),
        "was trained from other weights: sd21 is ffffffffffff, here it is",
    ),
    "other data": (
        lambda r: r["provenance"]["train"].update(data="e" * 64),
        "was trained on other data: eeeeeeeeeeee",
    ),
    "another protocol": (
        lambda r: r["systems"][0]["metrics"]["kid"].update(
            protocol=r["systems"][0]["metrics"]["fid"]["protocol"]
        ),
        "was measured under another protocol: kid of 'coco' at 1 step(s)",
    ),
    "few images": (
        lambda r: r["systems"][0].update(images=999),
        "measured 999 images of 'coco' at 1 step(s)",
    ),
    "a set is missing": (lambda r: r["systems"].pop(), "has no samples of 'parti' at 4 step(s)"),
    "images not stated": (
        lambda r: r["provenance"]["sample_sha256"].pop("coco-1step"),
        "does not say which images of 'coco' at 1 step(s) were measured",
    ),
    "a metric is missing": (
        lambda r: r["systems"][0]["metrics"].pop("kid"),
        "has no kid of 'coco' at 1 step(s)",
    ),
    "another scale": (lambda r: r.update(scale="paper"), "is of scale 'paper', the study is of 'mini'"),
    "a set twice": (lambda r: r["systems"].append(r["systems"][0]), "'coco' at 1 step(s) more than once"),
    "weights of no hash": (
        lambda r: r["provenance"]["train"]["weights"].update(sd21=None),
        "was trained from other weights: sd21 is None, here it is",
    ),
    "a seed of calibrations": (lambda r: r.update(seed=7), "has training seed 7: smaller ones than 100"),
    "no logarithm": (
        lambda r: r["systems"][0]["metrics"]["fid"].update(value=-0.004),
        "fid is -0.004, which has no logarithm ('coco' at 1 step(s))",
    ),
    "the images of another record": (
        lambda r: r["provenance"].update(sample_sha256=result(seed=100)["provenance"]["sample_sha256"]),
        "its images are those of baseline, seed 100, on CPU 1",
    ),
    "an unknown run": (
        lambda r: r.update(run="lambda-1"),
        "is of the run 'lambda-1', which the table does not have",
    ),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_match_is_refused_by_its_own_message(tmp_path: Path, change: Any, message: str):
    store = tmp_path / "store"
    add(store, put(tmp_path / "in", result(seed=100)))
    path, good = put(tmp_path / "more", changed(change, seed=101), result(seed=102))
    added, refused = add(store, [path, good])
    assert [key.seed for key in added] == [102], "what matches goes in"
    assert len(refused) == 1
    assert refused[0].startswith(str(path))
    assert message in refused[0]


@pytest.mark.parametrize(("shift", "message"), [(0.0, "the same numbers"), (0.01, "with other numbers")])
def test_a_run_is_never_counted_twice(tmp_path: Path, shift: float, message: str):
    store = tmp_path / "store"
    add(store, put(tmp_path / "in", result()))
    added, refused = add(
        store, put(tmp_path / "more", result(shift=shift), result(seed=101), result(seed=101))
    )
    assert [key.seed for key in added] == [101]
    assert message in refused[0]
    assert "is there already" in refused[1], "twice in one call"


def test_a_truncated_file_is_refused_and_the_others_go_in(tmp_path: Path):
    broken, whole = put(tmp_path / "in", result(seed=100), result(seed=101))
    broken.write_text(broken.read_text()[:500])
    added, refused = add(tmp_path / "store", [broken, whole])
    assert [key.seed for key in added] == [101]
    assert "not JSON" in refused[0]


def test_a_broken_store_is_refused_by_name(tmp_path: Path):
    store = tmp_path / "store"
    (key,), _ = add(store, put(tmp_path / "in", result()))
    file = key.file(store)
    text = file.read_text()
    moved = file.with_name("seed7-cpu-1-000000.json")
    moved.write_text(text)
    with pytest.raises(InputError, match="whose place is"):
        read_store(store)
    moved.unlink()
    file.write_text(text.replace('"seed": 100', '"seed": "x"'))
    with pytest.raises(InputError, match="not a run's record of schema 1"):
        read_store(store)
    file.write_text(text)
    (store / PROTOCOLS).write_text("{}")
    with pytest.raises(InputError, match="does not describe"):
        read_store(store)


def test_the_spread_between_runs_is_of_the_reports_protocols_alone(tmp_path: Path):
    store = tmp_path / "store"
    add(store, put(tmp_path / "in", *(result(seed=s, shift=0.01 * (s % 3)) for s in range(100, 106))))
    found = counted(store)
    metric = found["baseline"][0].systems[0].metrics["clip_score"]
    spreads = measure_spreads(found, {metric.protocol})
    assert set(spreads) == {("clip_score", 1, "coco"), ("clip_score", 4, "coco")}
    assert spreads["clip_score", 1, "coco"].typical.freedom == pytest.approx(5)
    assert not measure_spreads(found, set())
