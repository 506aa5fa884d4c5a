"""What is wrong with training data is named: shard, member, file, line; all of it at once."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from pyarrow import parquet

from add.config.training import FolderSpec, HuggingFaceSpec, ShardsSpec
from add.data.images import left_out_line
from add.data.training_set import open_training_set, scan_training_set
from add.errors import InputError
from tests.support.training_data import FORMS, png, table, write, write_saved, write_tar

FOUR = [png((i, 0, 0)) for i in range(4)]


def problems(train: object) -> list[str]:
    return scan_training_set(train)[1]  # type: ignore[arg-type]


def shards(root: Path) -> ShardsSpec:
    train = write("shards", root, FOUR, list("abcd"))
    assert isinstance(train, ShardsSpec)
    return train


def test_a_missing_shard_of_a_range_is_named(tmp_path: Path):
    train = shards(tmp_path)
    (tmp_path / "set-001.tar").unlink()
    with pytest.raises(InputError, match=r"set-001\.tar: no such shard"):
        open_training_set(train)


@pytest.mark.parametrize(("pattern", "reason"), [
    ("no-*.tar", "no shard matches"),
    ("set-{001..000}.tar", "range is empty"),
    ("set-{a..b}.tar", "braces hold two numbers"),
])  # fmt: skip
def test_a_pattern_that_names_no_shard_is_refused(tmp_path: Path, pattern: str, reason: str):
    shards(tmp_path)
    assert reason in problems(ShardsSpec(kind="webdataset", shards=f"{tmp_path}/{pattern}"))[0]


@pytest.mark.parametrize("cut", [300, 512 + 40, 2048])
def test_a_truncated_shard_is_refused_wherever_it_was_cut(tmp_path: Path, cut: int):
    # 2048 is between two members, where Python's tarfile sees nothing wrong.
    train = shards(tmp_path)
    file = tmp_path / "set-000.tar"
    file.write_bytes(file.read_bytes()[:cut])
    (found,) = problems(train)
    assert found.startswith(f"{file}: ")
    assert "truncated" in found or "not a whole" in found


def test_a_compressed_shard_and_a_link_are_refused(tmp_path: Path):
    import gzip
    import tarfile

    train = shards(tmp_path)
    file = tmp_path / "set-000.tar"
    file.write_bytes(gzip.compress(file.read_bytes()))
    assert "not a whole, uncompressed tar" in problems(train)[0]
    with tarfile.open(file, "w") as archive:
        link = tarfile.TarInfo("a.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    assert "a.png: a link or a sparse file" in problems(train)[0]


def test_members_without_their_partner_are_named_all_at_once(tmp_path: Path):
    members = [("x/a.jpg", b"-"), ("x/b.txt", b"b"), ("y/a.txt", b"of another folder"), ("c.png", b"1")]
    members += [("c.txt", b"c"), ("c.webp", b"2"), (".DS_Store", b"-"), ("c.cls", b"7")]
    write_tar(tmp_path / "set.tar", members)
    found = problems(ShardsSpec(kind="webdataset", shards=f"{tmp_path}/set.tar"))
    file = tmp_path / "set.tar"
    assert sorted(found) == sorted([
        f"{file}: x/a.jpg: an image without a caption (no .txt member)",
        f"{file}: x/b.txt: a caption without an image",
        f"{file}: y/a.txt: a caption without an image",
        f"{file}: c.webp: a second one beside c.png",
    ])  # fmt: skip


@pytest.mark.parametrize(("content", "reason"), [
    (b"{", "not JSON"), (b"{}", "no field 'caption'"), (b'{"caption": 3}', "it should be a text"),
    (b'{"caption": []}', "it should be a text"), (b'{"caption": null}', "it should be a text"),
])  # fmt: skip
def test_a_json_member_without_a_caption_is_named(tmp_path: Path, content: bytes, reason: str):
    write_tar(tmp_path / "set.tar", [("a.png", png()), ("a.json", content)])
    data = open_training_set(
        ShardsSpec(kind="webdataset", shards=f"{tmp_path}/set.tar", caption_field="caption")
    )
    with pytest.raises(InputError, match=rf"set\.tar: a\.json: .*{reason}"):
        data.samples([0])


def test_an_index_is_kept_and_made_again_when_the_shard_changes_or_it_is_deleted(tmp_path: Path):
    train = shards(tmp_path)
    open_training_set(train)
    kept = sorted((tmp_path / ".index").iterdir())
    assert len(kept) == 2
    times = [file.stat().st_mtime_ns for file in kept]
    assert open_training_set(train).samples([3])[0].captions == ("d",)
    assert [file.stat().st_mtime_ns for file in kept] == times, "a kept index was made again"
    kept[0].write_bytes(b"damaged")
    kept[1].unlink()
    assert open_training_set(train).samples([3])[0].captions == ("d",)
    data = open_training_set(train)
    write_tar(tmp_path / "set-000.tar", [("z.png", FOUR[0]), ("z.txt", b"new")])
    with pytest.raises(InputError, match=r"set-000\.tar: changed since it was indexed"):
        data.samples([0])
    assert open_training_set(train).samples([0])[0].captions == ("new",)


def test_shards_that_cannot_be_written_beside_are_indexed_in_the_users_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    train = shards(tmp_path / "set")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "set/.index").write_text("in the way")
    open_training_set(train)
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 2


def test_text_files_and_images_must_pair(tmp_path: Path):
    train = write("text", tmp_path, FOUR, list("abcd"))
    (tmp_path / "000000.txt").unlink()
    (tmp_path / "000003.png").unlink()
    (tmp_path / "000001.jpg").write_bytes(png())
    found = problems(train)
    assert len(found) == 3
    assert "000000.png: an image without a caption" in found[0]
    assert "000001.png: shares 000001.txt with 000001.jpg" in found[1]
    assert "000003.txt: a caption without an image" in found[2]


@pytest.mark.parametrize(("content", "reason"), [
    ("name,text\n000000.png,a\n", "metadata.csv:1: has no column file_name"),
    ("file_name,text\n000000.png\n", "metadata.csv:2: 1 fields, the header has 2"),
    ("file_name,text\n9.png,a\n", "metadata.csv:2: a caption without an image: there is no '9.png'"),
    ("file_name,text\n000000.png,\n", "metadata.csv:2: the caption is empty"),
    ("file_name,text\n000000.png,a\n000000.png,b\n", "metadata.csv:3: 000000.png is there twice"),
    ('file_name,text\n000000.png,"a\n', "metadata.csv:2: not CSV"),
    ("file_name,text\n000000.png,a\n000001.png,caf\xe9\n", "metadata.csv:3: is not UTF-8"),
    ("", "metadata.csv:1: has no column file_name and no text"),
])  # fmt: skip
def test_a_wrong_row_of_metadata_is_named_by_its_line(tmp_path: Path, content: str, reason: str):
    train = write("csv", tmp_path, FOUR, list("abcd"))
    (tmp_path / "metadata.csv").write_bytes(content.encode("latin-1"))
    assert any(reason in text for text in problems(train)), problems(train)


@pytest.mark.parametrize(("line", "reason"), [
    ("{", "not JSON"), ("[]", "has no field file_name and no text"), ('{"file_name": 3, "text": "a"}', "there is no 3"),
    ('{"file_name": "000000.png", "text": 3}', "it should be a text"),
])  # fmt: skip
def test_a_wrong_line_of_jsonl_is_named(tmp_path: Path, line: str, reason: str):
    train = write("jsonl", tmp_path, FOUR, list("abcd"))
    (tmp_path / "metadata.jsonl").write_text(f"\n{line}\n")
    assert any("metadata.jsonl:2: " in text and reason in text for text in problems(train)), problems(train)


def test_an_image_that_metadata_leaves_out_and_two_metadata_files_are_refused(tmp_path: Path):
    train = write("csv", tmp_path, FOUR, list("abcd"))
    (tmp_path / "new.png").write_bytes(png())
    (tmp_path / "metadata.jsonl").write_text("")
    (tmp_path / "below").mkdir()
    (tmp_path / "below/metadata.csv").write_text("")
    found = "\n".join(problems(train))
    assert "new.png: an image without a caption: metadata.csv does not list it" in found
    assert "holds metadata.csv and metadata.jsonl" in found
    assert "below/metadata.csv: a metadata file below the folder" in found


@pytest.mark.parametrize("form", FORMS)
def test_a_set_that_is_empty_or_not_there_is_refused(tmp_path: Path, form: str):
    train = write(form, tmp_path / "empty", [], [])
    assert problems(train), form
    moved = tmp_path / "gone"
    (tmp_path / "empty").rename(moved)
    assert any("no such" in text or "no image" in text for text in problems(train)), problems(train)


def saved(root: Path, **changes: object) -> HuggingFaceSpec:
    values = {"path": str(root), "image_column": "image", "caption_column": "text", **changes}
    return HuggingFaceSpec(kind="huggingface", **values)  # type: ignore[arg-type]


def test_a_null_or_a_path_in_place_of_an_image_is_named_by_its_row(tmp_path: Path):
    write_saved(tmp_path, [png(), None, png()], ["a", "b", None])
    data = open_training_set(saved(tmp_path))
    with pytest.raises(InputError, match=r"00000-of-00002\.arrow: row 1: a caption without an image"):
        data.samples([1])
    with pytest.raises(InputError, match=r"00001-of-00002\.arrow: row 0: an image without a caption"):
        data.samples([2])


def test_files_columns_and_splits_that_are_not_there_are_named(tmp_path: Path):
    write_saved(tmp_path / "s", FOUR, list("abcd"))
    assert (
        "has no column 'caption'; it has image, text"
        in problems(saved(tmp_path / "s", caption_column="caption"))[0]
    )
    assert "should hold encoded images" in problems(saved(tmp_path / "s", image_column="text"))[0]
    assert "should hold text" in problems(saved(tmp_path / "s", caption_column="image"))[0]
    assert "leave data.train.split out" in problems(saved(tmp_path / "s", split="train"))[0]
    arrow = tmp_path / "s/data-00001-of-00002.arrow"
    arrow.write_bytes(arrow.read_bytes()[:-8])
    assert "truncated" in problems(saved(tmp_path / "s"))[0]
    arrow.unlink()
    assert f"{arrow}: no such file, though state.json lists it" in problems(saved(tmp_path / "s"))
    (tmp_path / "d").mkdir()
    (tmp_path / "d/dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    assert "there is no split 'val'; it has test, train" in problems(saved(tmp_path / "d", split="val"))[0]


def test_parquet_files_are_one_split_whole_and_complete(tmp_path: Path):
    for name in ("train-00000-of-00002", "test-00000-of-00001"):
        parquet.write_table(table(FOUR, list("abcd")), tmp_path / f"{name}.parquet")
    assert "split is not set; it has test, train" in problems(saved(tmp_path))[0]
    (found,) = problems(saved(tmp_path, split="train"))
    assert "train-00001-of-00002.parquet: no such file" in found
    assert problems(saved(tmp_path, split="test")) == []
    file = tmp_path / "test-00000-of-00001.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    assert f"{file}: cannot be read" in problems(saved(tmp_path, split="test"))[0]


def test_an_image_folder_is_a_folder(tmp_path: Path):
    assert "no such folder" in problems(FolderSpec(kind="folder", path=str(tmp_path / "x")))[0]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("text", "reason"), [
    ("", "is empty"), (" \t", "is empty"), ("\u200b", "is empty"),
    ("a\x01b", r"control character U\+0001"), ("caf\x82", r"control character U\+0082"),
])  # fmt: skip
def test_one_rule_for_captions_of_every_form(tmp_path: Path, form: str, text: str, reason: str):
    train = write(form, tmp_path / "set", FOUR, ["a", "b", text, "d"])
    with pytest.raises(InputError, match=reason):
        open_training_set(train).samples([2])


@pytest.mark.parametrize("form", FORMS)
def test_what_lies_beside_the_samples_is_counted(tmp_path: Path, form: str):
    """Breaks when a reader passes over files in silence: a suffix that it does not know looks like no data."""
    train = write(form, tmp_path / "set", FOUR, list("abcd"))
    assert not open_training_set(train).left_out
    names = ["x.avif", "y.AVIF", "z.mask.png", ".DS_Store", "LICENSE"]
    if form.endswith("shards"):
        with tarfile.open(tmp_path / "set/set-001.tar", "a") as archive:
            for name in names:
                archive.addfile(tarfile.TarInfo(name))
    else:
        for name in names if form not in ("text", "csv", "jsonl") else [n for n in names if "mask" not in n]:
            (tmp_path / "set" / name).write_bytes(b"")
    data = open_training_set(train)
    mask = {} if form in ("text", "csv", "jsonl") else {".mask.png": 1}
    assert data.left_out == {".avif": 2, "hidden": 1, ".": 1} | mask
    assert data.samples([0])[0].captions == ("a",)
    line = left_out_line(data)
    assert line is not None
    assert line.startswith(f"{4 + len(mask)} files are of no sample: 2 .avif")
    assert "1 hidden" in line
    assert "1 without a suffix" in line
