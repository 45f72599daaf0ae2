from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from fimaq_deploy.data.listing import Listing, image_files, printable

Save = Callable[..., None]


def names(listing: Listing, root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in listing.files]


def test_images_at_any_depth_in_an_order_of_their_own(tmp_path: Path, save: Save) -> None:
    for name in ("b/2.png", "b/10.png", "a.png", "a/deep/er/1.PNG"):
        save(tmp_path / name, 1)
    assert names(image_files(tmp_path), tmp_path) == ["a/deep/er/1.PNG", "a.png", "b/10.png", "b/2.png"]


@pytest.mark.parametrize("suffix", ["jfif", "jpe", "jp2", "tga", "avif", "webp", "qoi", "ppm", "dib", "TIF"])
def test_every_suffix_that_pillow_opens(tmp_path: Path, suffix: str) -> None:
    known = Image.registered_extensions()
    Image.new("RGB", (8, 8)).save(tmp_path / f"a.{suffix}", format=known[f".{suffix.lower()}"])
    assert len(image_files(tmp_path).files) == 1


@pytest.mark.parametrize("name", ["a", "a.data", "a.0001", "a.jpg_large", "a.png.bak"])
def test_images_without_a_suffix_of_their_own(tmp_path: Path, name: str) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / name, format="JPEG")
    assert names(image_files(tmp_path), tmp_path) == [name]


def test_what_is_left_out_is_counted_with_its_reason(tmp_path: Path, save: Save) -> None:
    save(tmp_path / "a.png", 1)
    save(tmp_path / ".hidden" / "x.png", 1)
    save(tmp_path / "._a.png", 1)
    for name in ("notes.txt", "labels.csv", "more.txt", "README", "figure.eps", "paper.pdf", "header.h"):
        (tmp_path / name).write_text("#define width 8\nno image")
    (tmp_path / "gone.png").symlink_to(tmp_path / "absent.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    os.mkfifo(tmp_path / "pipe.png")
    listing = image_files(tmp_path)
    assert names(listing, tmp_path) == ["a.png"]
    assert listing.summary() == (
        "2 hidden, 7 that Pillow does not open (1 .csv, 1 .eps, 1 .h, 1 .pdf, 2 .txt, 1 no suffix), 2 broken links, "
        "1 pipes or devices"
    )


def test_a_suffix_is_counted_on_one_line(tmp_path: Path) -> None:
    for name in ("0.\n", "a.b\nc"):
        (tmp_path / name).write_text("no image")
    assert image_files(tmp_path).summary() == "2 that Pillow does not open (1 .b�c, 1 .�)"


def test_nothing_left_out_is_nothing_said(tmp_path: Path, save: Save) -> None:
    save(tmp_path / "a.png", 1)
    assert image_files(tmp_path).summary() == ""


def test_linked_folders_and_files_are_followed_once(tmp_path: Path, save: Save) -> None:
    store, root = tmp_path / "store", tmp_path / "root"
    save(store / "day1" / "1.png", 1)
    save(store / "2.png", 1)
    root.mkdir()
    (root / "linked").symlink_to(store / "day1")
    (root / "linked-again").symlink_to(store / "day1")
    (root / "file.png").symlink_to(store / "2.png")
    listing = image_files(root)
    assert [path.name for path in listing.files] == ["file.png", "1.png"]
    assert listing.summary() == "1 folders that were read already, through a link"


def test_loops_of_links_end(tmp_path: Path, save: Save) -> None:
    save(tmp_path / "a" / "1.png", 1)
    save(tmp_path / "b" / "2.png", 1)
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "other").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "other").symlink_to(tmp_path / "a")
    listing = image_files(tmp_path)
    assert sorted(path.name for path in listing.files) == ["1.png", "2.png"]
    assert sum(map(len, listing.left_out.values())) == 4


def test_the_folder_itself_may_be_a_link(tmp_path: Path, save: Save) -> None:
    save(tmp_path / "real" / "1.png", 1)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert len(image_files(tmp_path / "link").files) == 1


def test_deep_folders(tmp_path: Path, save: Save) -> None:
    deep = tmp_path.joinpath(*["d"] * 500)
    deep.mkdir(parents=True)
    save(deep / "1.png", 1)
    assert len(image_files(tmp_path).files) == 1


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path)
    with open(os.path.join(folder, b"a\xff.png"), "wb"):  # noqa: PTH118, PTH123 (bytes)
        pass
    listing = image_files(tmp_path)
    assert [printable(path.relative_to(tmp_path)) for path in listing.files] == ["a\ufffd.png"]
