"""Steps of a publication, one at a time. A build that is stopped at each of them: tests/pipeline."""

from __future__ import annotations

from pathlib import Path

import pytest

from fimaq_deploy.errors import UserError
from fimaq_deploy.files import folders
from fimaq_deploy.files.lock import locked


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def constructed(place: Path, text: str = "new") -> Path:
    """A finished folder for a place, not yet published."""
    folder = folders.under_construction(place)
    folder.mkdir()
    (folder / folders.MARK).write_text("{}")
    (folder / "model").write_text(text)
    return folder


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def older(place: Path) -> Path:
    place.mkdir()
    (place / "model").write_text("old")
    return place


def test_what_stands_beside_a_place_is_named_after_it(place: Path) -> None:
    assert folders.under_construction(place) == place.parent / "out.partial"
    assert folders.lock_of(place) == place.parent / ".out.lock"
    longest = place.with_name("n" * folders.LONGEST_NAME)
    for beside in (folders.under_construction(longest), folders.lock_of(longest)):
        assert len(beside.name) <= 255


def test_a_folder_is_moved_into_an_empty_place(place: Path) -> None:
    constructed(place)
    folders.publish_folder(place)
    assert (place / "model").read_text() == "new" and names(place.parent) == ["out"]
    folders.tidy_folder(place)
    assert names(place) == ["model"]


def test_an_older_folder_goes_into_the_new_one_until_that_is_tidied(older: Path) -> None:
    constructed(older)
    folders.publish_folder(older)
    assert (older / folders.REPLACED / "model").read_text() == "old"
    (older / "state").mkdir()
    folders.tidy_folder(older, "state")
    assert names(older) == ["model"] and (older / "model").read_text() == "new"


def test_a_folder_without_a_mark_is_not_tidied(older: Path) -> None:
    (older / folders.REPLACED).mkdir()
    folders.tidy_folder(older, "model")
    assert names(older) == ["model", folders.REPLACED]


def test_a_publication_that_fails_leaves_what_stood_there(older: Path) -> None:
    """Nothing can be moved to where something stands already."""
    blocking = constructed(older) / folders.REPLACED
    blocking.mkdir()
    (blocking / "kept").write_text("")
    with pytest.raises(OSError, match="not empty"):
        folders.publish_folder(older)
    assert (older / "model").read_text() == "old" and (blocking / "kept").exists()


@pytest.mark.parametrize("by", [folders.put_back, folders.settle_folder])
def test_what_was_moved_aside_is_put_back(older: Path, by: object) -> None:
    older.rename(constructed(older) / folders.REPLACED)
    assert callable(by)
    by(older)
    by(older)
    assert (older / "model").read_text() == "old" and names(older.parent) == ["out", "out.partial"]


def test_whoever_reads_leaves_a_publication_that_is_under_way_alone(older: Path) -> None:
    older.rename(constructed(older) / folders.REPLACED)
    with locked(folders.lock_of(older), ""):
        folders.settle_folder(older)
        assert not older.exists()
    folders.settle_folder(older)
    assert older.exists()


def test_a_folder_that_only_looks_like_ours_is_left_alone(place: Path) -> None:
    (folders.under_construction(place) / folders.REPLACED).mkdir(parents=True)
    for step in (folders.settle_folder, folders.put_back):
        step(place)
    assert names(place.parent) == ["out.partial"] and names(place.parent / "out.partial") == [folders.REPLACED]


def test_a_construction_is_emptied_and_links_are_not_followed(place: Path, tmp_path: Path) -> None:
    folder = constructed(place)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("mine")
    (folder / "link").symlink_to(tmp_path / "mine")
    (folder / "state" / "deep").mkdir(parents=True)
    folders.empty_construction(place, "state")
    assert names(folder) == [folders.MARK, "state"]
    folders.remove_construction(place)
    assert names(tmp_path) == ["mine"] and (tmp_path / "mine" / "file").read_text() == "mine"


def test_links_are_followed_to_where_a_folder_really_stands(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk/not-yet")
    real = tmp_path.resolve() / "disk" / "not-yet"
    assert folders.real_place(tmp_path / "link") == folders.real_place(tmp_path / "disk" / ".." / "link") == real


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (".", "is or holds the folder that this runs in: name a folder inside it"),
        ("..", "is or holds the folder that this runs in"),
        ("/", "is a mount point"),
        ("loop", "leads back to itself"),
        ("é" * 121, "the name is too long"),
        ("nul\0byte", "no name of a folder"),
    ],
)
def test_a_place_that_cannot_be_replaced_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, reason: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("loop").symlink_to("loop")
    with pytest.raises(UserError, match=reason) as raised:
        folders.real_place(Path(name))
    assert "\n" not in str(raised.value)
