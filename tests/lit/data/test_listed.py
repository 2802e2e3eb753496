"""Subsets by a list of files or of rows, in the forms that others publish."""

import json
from pathlib import Path

import numpy as np
import pytest
from pictures import draw

from adpur import ConfigError, Digits, Folder, Listed


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("n01/v_1.JPEG", "n01/v_2.JPEG", "n02/v_3.JPEG", "n02/v_4.JPEG", "n03/v_1.JPEG"):
        draw(tmp_path / "val" / name, 6, 6)
    return tmp_path


def listed(root: Path, text: str, name: str = "list.txt", **kwargs: object) -> list[int]:
    (root / name).write_text(text)
    chosen = Listed(str(root / name), **kwargs)  # type: ignore[arg-type]
    return Folder(str(root / "val"), subset=chosen).subset


def test_files_are_found_by_the_end_of_their_path(root: Path) -> None:
    robustbench = "n03/v_1.JPEG\nn01/v_2.JPEG\n"
    assert listed(root, robustbench) == [1, 4]
    assert listed(root, "# test images\n\nv_4.JPEG\nv_2.JPEG\n") == [1, 3]
    assert listed(root, json.dumps(["val/n02/v_3.JPEG"]), "list.json") == [2]
    assert listed(root, "v_4.JPEG\nv_2.JPEG\n", count=1) == [3]
    for text, said in (
        ("v_1.JPEG", "v_1.JPEG of .* fits 2 files"), ("v_9.JPEG", "is no file of the split"),
        ("v_2.JPEG\nn01/v_2.JPEG", "lists v_2.JPEG twice"), ("\n", "expected a list of files"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=said):
            listed(root, text)
    with pytest.raises(ConfigError, match="cannot be read"):
        Listed(str(root / "gone.txt"))
    with pytest.raises(ConfigError, match="lists 1 images, fewer than 2"):
        listed(root, "v_4.JPEG", count=2)


def test_numbers_are_rows_or_positions(tmp_path: Path) -> None:
    rows = Digits().stacked("test")[2]
    np.save(tmp_path / "rows.npy", rows[[7, 3, 11]].numpy())
    assert Digits(subset=Listed(str(tmp_path / "rows.npy"))).subset == [3, 7, 11]
    limited = Digits(subset=Listed(str(tmp_path / "rows.npy")), limit=2)
    assert limited.subset == [3, 7]  # a limit takes the first of the list
    (tmp_path / "places.txt").write_text("5\n2\n")
    assert Digits(subset=Listed(str(tmp_path / "places.txt"), "position")).subset == [2, 5]
    (tmp_path / "places.txt").write_text("100000\n")
    with pytest.raises(ConfigError, match=r"lists row 100000, and there is .*by: position"):
        assert Digits(subset=Listed(str(tmp_path / "places.txt"))).subset
    (tmp_path / "files.txt").write_text("a.png\n")
    with pytest.raises(ConfigError, match="have no files of their own; list dataset rows"):
        assert Digits(subset=Listed(str(tmp_path / "files.txt"))).subset
