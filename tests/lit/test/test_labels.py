"""Labels are compared with the classifier, before the run and after it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from toy import trainer

from adpur import ConfigError, Evaluation, Folder, Given, Identity, Networks, Row
from adpur.judging.scoreboard import Column
from adpur.lit.test.row import check_labels


class Perfect(nn.Module):
    """Knows class k by its grey 20 k."""

    def __init__(self, classes: int = 12) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, x: Tensor) -> Tensor:
        number = x.mean((1, 2, 3)) * 255 / 20
        return -10 * (number[:, None] - torch.arange(float(self.classes))) ** 2


def photos(root: Path, names: dict[str, int]) -> str:
    for name, number in names.items():
        (root / name).mkdir(parents=True)
        Image.fromarray(np.full((8, 8, 3), 20 * number, np.uint8)).save(root / name / "a.png")
    return str(root)


def clean(tmp_path: Path, data: object, net: nn.Module | None = None) -> float:
    nets = {"default": Networks(net or Perfect())}
    module = Evaluation(nets, {"d": Row(Identity())}, draws=1, rows=4, trust="none", gallery=0)
    trainer(tmp_path / "run", []).test(module, data, verbose=False)
    return float(module.outcomes[Column("d")].correct.mean())


def test_numbers_are_respected(tmp_path: Path) -> None:
    data = Folder(photos(tmp_path / "x", {str(k): k for k in range(12)}))
    assert data.labels["10"] == 10 and data.labels["2"] == 2
    assert clean(tmp_path, data) == 1
    told = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert told["about"]["labels"] == {str(k): k for k in range(12)}  # the map is in the record


def test_a_subset_keeps_its_numbers_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    data = Folder(photos(tmp_path / "x", {f"{k:02}": k for k in range(5, 10)}))
    assert clean(tmp_path, data) == 1
    said = capsys.readouterr().out
    assert "labels: 5 of the classifier's 12 classes have a folder: 05 is 5, 06 is 6" in said


def test_names_are_places_only_where_all_are_there(tmp_path: Path) -> None:
    names = {"cat": 3, "dog": 0, "owl": 7}
    root = photos(tmp_path / "x", names)
    with pytest.raises(
        ConfigError, match=r"row 'd': the classifier has 12 classes, and 3 have a fo.*names"
    ):
        clean(tmp_path, Folder(root))
    order = [next((n for n, k in names.items() if k == i), f"other {i}") for i in range(12)]
    assert clean(tmp_path, Folder(root, names=order)) == 1
    (tmp_path / "names.txt").write_text("\n".join(order) + "\n")
    (tmp_path / "names.json").write_text(json.dumps(order))
    for file in ("names.txt", "names.json"):
        assert Folder(root, names=str(tmp_path / file)).labels == names
    with pytest.raises(ConfigError, match="class folder owl is none of the 2 names"):
        Folder(root, names=["cat", "dog"])
    (tmp_path / "names.txt").write_text("cat\ncat\n")
    with pytest.raises(ConfigError, match="lists cat twice"):
        Folder(root, names=str(tmp_path / "names.txt"))


def test_folders_that_count_from_one_are_told(tmp_path: Path) -> None:
    data = Folder(photos(tmp_path / "x", {str(k + 1): k for k in range(12)}))
    with pytest.raises(ConfigError, match="has 12 classes, the data 13: folder 12 is class 12"):
        check_labels(12, data)


def test_two_folders_of_one_number_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two class folders have one number"):
        Folder(photos(tmp_path / "x", {"1": 1, "01": 1}))


@pytest.mark.parametrize("offset", [0, 1])
def test_accuracy_at_chance_is_a_failure(
    offset: int, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    number = np.arange(24) % 11
    x = np.broadcast_to((20 * number / 255)[:, None, None, None], (24, 3, 8, 8))
    np.savez(tmp_path / "x.npz", x=x.astype(np.float32), y=number + offset)
    found = clean(tmp_path, Given(str(tmp_path / "x.npz")))
    said = capsys.readouterr().out
    assert found == 1 - offset
    assert ("fail: row 'd': clean accuracy is 0.0% of 24 images, chance among 12" in said) == offset
    assert ("fail" in said or "warn" in said) == offset
