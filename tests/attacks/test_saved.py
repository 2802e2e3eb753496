"""Stored adversarial images, scored again."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from attack_cases import NORMS, oracle
from problems import images
from safetensors.torch import save_file
from torch import Tensor

from adpur import ConfigError, Norm, Saved
from adpur.attacks.attack import changed
from adpur.judging.records import describe


def store(file: Path, index: list[int], adversarial: Tensor) -> Path:
    file.parent.mkdir(exist_ok=True)
    held = {"index": torch.tensor(index), "adversarial": adversarial.contiguous()}
    save_file(held, file)
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six images of dataset rows 0 .. 5, in two shards and another order."""
    found = 1 - images(6)
    store(tmp_path / "set" / "b.safetensors", [4, 0, 2], found[[4, 0, 2]])
    store(tmp_path / "set" / "a.safetensors", [5, 1, 3], found[[5, 1, 3]])
    return tmp_path / "set"


def test_each_image_has_its_own_by_dataset_row(folder: Path) -> None:
    x, base = images(6), oracle()
    found = Saved(str(folder), 1.0).run(base, x)
    assert torch.equal(found, 1 - x)
    rows = torch.tensor([3, 0])
    assert torch.equal(Saved(str(folder), 1.0).run(base.at(rows), x[rows]), found[rows])
    one = store(folder.parent / "one.safetensors", list(range(6)), 1 - x)
    assert torch.equal(Saved(str(one), 1.0).run(base, x), found)


@pytest.mark.parametrize("norm", NORMS, ids=repr)
@pytest.mark.parametrize("eps", [0.0, 1 / 255, 0.3, 5.0])
def test_what_is_stored_is_projected(folder: Path, norm: Norm, eps: float) -> None:
    x = images(6)
    found = Saved(str(folder), eps, norm).run(oracle(), x)
    assert norm.size(found - x).max() <= eps + 1e-9
    assert found.min() >= 0 and found.max() <= 1


def test_a_run_is_known_by_what_the_files_hold(folder: Path, tmp_path: Path) -> None:
    attack = Saved(str(folder))
    moved = Saved(str(folder.rename(tmp_path / "elsewhere")))
    assert describe(moved) == describe(attack)
    assert "path" not in describe(attack) and attack == moved
    assert describe(replace(moved, eps=0.1))["sha256"] == attack.sha256
    store(tmp_path / "elsewhere" / "c.safetensors", [6], images(1))
    assert Saved(str(tmp_path / "elsewhere")) != attack


def test_what_is_missing_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="found none at"):
        Saved(str(tmp_path / "nothing"))
    (folder / "a.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"lacks 3 of the 6 images .* dataset rows 1, 3, 5;"):
        Saved(str(folder)).run(oracle(), images(6))
    small = store(tmp_path / "small.safetensors", list(range(6)), images(6)[..., :3])
    with pytest.raises(
        ConfigError, match=r"expected floating-point images \(1, 4, 4\), got .* 3\)"
    ):
        Saved(str(small)).run(oracle(), images(6))
    save_file({"index": torch.arange(6)}, folder / "b.safetensors")
    with pytest.raises(ConfigError, match="not a safetensors file with index and adversarial"):
        Saved(str(folder)).run(oracle(), images(6))


def test_two_attacks_on_one_image_are_refused(folder: Path) -> None:
    """A run's own folder holds the columns of all its attacks: the last file must not win."""
    again = images(6)[[5]]
    store(folder / "c.safetensors", [5], 1 - again)
    Saved(str(folder)).run(oracle(), images(6))
    store(folder / "c.safetensors", [5], again)
    with pytest.raises(ConfigError, match="different images of dataset row 5"):
        Saved(str(folder)).run(oracle(), images(6))


def test_its_budget_can_be_changed(folder: Path) -> None:
    """The trust report tries every attack at eps 0."""
    attack = Saved(str(folder), 0.5)
    assert changed(attack, eps=lambda eps: 0.0) == replace(attack, eps=0.0)
