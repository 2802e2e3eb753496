"""How images are chosen, ordered, changed and brought: functions of keys, not of who asks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from adpur import ConfigError, Digits, First, Folder, Noise, Random, Stratified, Stream
from adpur.cli.run import parse
from adpur.keyed.noise import ALL, Source
from adpur.lit.data.augment import Augment
from adpur.lit.data.base import Batch, ImageData
from adpur.lit.data.images import Pixels, gather
from adpur.lit.data.loaders import ResumableLoader
from adpur.shipped import resolve_config

BOTH = Augment(flip=True, crop=4)


class Slow(Dataset[Batch]):
    """A user's own data set, which answers one image at a time."""

    def __init__(self, held: Dataset[Batch]) -> None:
        self.held = held

    def __len__(self) -> int:
        return len(self.held)  # type: ignore[arg-type]

    def __getitem__(self, i: int) -> Batch:
        return self.held[i]


@pytest.fixture(scope="module")
def pixels() -> Pixels:
    gen = torch.Generator().manual_seed(1)
    held = torch.randint(0, 256, (90, 3, 12, 10), dtype=torch.uint8, generator=gen)
    return Pixels(held, torch.arange(90) % 4, 1000 + torch.arange(90))


@pytest.fixture
def files(tmp_path: Path) -> Folder:
    """Forty JPEGs of two classes, for a fit and an evaluation with workers."""
    random = np.random.default_rng(2)
    for k in range(40):
        file = tmp_path / ("train", "test")[k % 2] / f"{k // 2 % 2}" / f"{k}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(file)
    return Folder(str(tmp_path), batch_size=4, flip=True, crop=2)


def equal(one: list[Batch], two: list[Batch]) -> bool:
    parts = [(a, b) for x, y in zip(one, two, strict=True) for a, b in zip(x, y, strict=True)]
    return all(torch.equal(a, b) for a, b in parts)


def images_of(batches: list[Batch]) -> dict[int, Tensor]:
    return {int(i): image for x, _, index in batches for image, i in zip(x, index, strict=True)}


def keys(index: Tensor, epoch: int = 0) -> Noise:
    return Noise(index, 7, Source.TRAIN, iteration=epoch)


def test_limit_abbreviates_a_random_subset() -> None:
    order = torch.randperm(360, generator=torch.Generator().manual_seed(3))
    expected = sorted(order[:50].tolist())
    assert Digits(limit=50, subset_seed=3).subset == expected
    assert Digits(subset=Random(50, 3)).subset == expected != Digits(subset=Random(50)).subset
    assert Digits(subset=First(5)).subset == [0, 1, 2, 3, 4]
    assert Digits().subset == list(range(360))
    rows = Digits().stacked("test")[2]
    assert torch.equal(Digits(limit=50, subset_seed=3).first(4), rows[expected[:4]])
    assert Digits().first(0).tolist() == []  # an evaluation without a gallery


@pytest.mark.parametrize("count", [1, 10, 128, 297])
def test_a_stratified_subset_has_as_many_of_each_class(count: int) -> None:
    data = Digits(subset=Stratified(count, 1))
    labels = data.stacked("test")[1][data.subset].bincount(minlength=10)
    assert len(set(data.subset)) == count == labels.sum() and labels.max() - labels.min() <= 1
    assert data.subset == sorted(data.subset) == Digits(subset=Stratified(count, 1)).subset
    assert Digits(subset=Stratified(count, 2)).subset != data.subset
    assert set(Digits(subset=Stratified(count // 2 or 1, 1)).subset) <= set(data.subset)


def test_a_limit_lowers_the_count_of_a_subset() -> None:
    assert Digits(subset=First(9), limit=4).subset == Digits(subset=First(4)).subset
    assert Digits(subset=First(3), limit=4).subset == Digits(subset=First(3)).subset
    assert Digits(limit=4).subset == Digits(subset=Random(4)).subset


def test_a_choice_that_cannot_be_made_is_refused() -> None:
    with pytest.raises(ConfigError, match="Stratified: 359 images need 37 of each class, and one"):
        assert Digits(subset=Stratified(359)).subset
    with pytest.raises(ConfigError, match="limit=361 is more than the 360 images of test"):
        assert Digits(subset=First(361)).subset
    with pytest.raises(ConfigError, match="expected a positive count, got 0"):
        assert Digits(subset=Random(0)).subset
    with pytest.raises(ConfigError, match="289 is more than the 288 images of validation"):
        Digits(validation=First(289)).val_dataloader()


def test_subsets_and_augmentation_are_yaml() -> None:
    chosen = "{class_path: adpur.Stratified, init_args: {count: 20}}"
    cli = parse(
        "fit",
        ["-c", resolve_config("classifier_digits"), f"--data.subset={chosen}",
         "--data.validation=adpur.First", "--data.validation.init_args.count=7",
         "--data.flip=true", "--data.crop=1", "--trainer.logger=false"],
    )  # fmt: skip
    data: ImageData = cli.datamodule
    assert data.choice == Stratified(20) and data.augment == Augment(True, 1)
    assert [len(x) for x, _, _ in data.val_dataloader()] == [7]


def test_a_flip_mirrors_half_of_the_images(pixels: Pixels) -> None:
    x, _, index = pixels.batch(range(90))
    moved = Augment(flip=True)(x, keys(index))
    same = (moved == x).flatten(1).all(1)
    assert torch.equal(moved[~same], x[~same].flip(3)) and 25 < same.sum() < 65
    assert Augment()(x, keys(index)) is x


def test_a_crop_is_any_window_of_the_padded_image() -> None:
    x = torch.arange(1, 97).view(1, 1, 12, 8).float().repeat(2000, 1, 1, 1)
    moved = Augment(crop=2)(x, keys(torch.arange(2000)))
    padded = torch.nn.functional.pad(x[0], [2] * 4)
    windows = [padded[:, a : a + 12, b : b + 8] for a in range(5) for b in range(5)]
    seen = torch.tensor([[bool((w == image).all()) for w in windows] for image in moved])
    assert seen.sum(1).eq(1).all()
    assert seen.sum(0).min() > 40 and seen.sum(0).max() < 130  # 80 expected, sd 9


def test_a_draw_belongs_to_seed_epoch_and_image(pixels: Pixels) -> None:
    x, _, index = pixels.batch(range(90))
    before = torch.get_rng_state()
    moved = BOTH(x, keys(index))
    part = torch.tensor([70, 3, 41])
    assert torch.equal(BOTH(x[part], keys(index[part])), moved[part])
    assert not torch.equal(BOTH(x, keys(index, epoch=1)), moved)
    assert not torch.equal(BOTH(x, keys(index).fold(seed=8)), moved)
    assert torch.equal(torch.get_rng_state(), before)
    assert Stream.AUGMENT not in ALL  # no attacker knows, and no purifier draws it
    with pytest.raises(ConfigError, match="crop: expected pixels of padding such as 4, got -1"):
        Augment(crop=-1)


def test_one_indexing_equals_a_loop_over_images(pixels: Pixels) -> None:
    for data in (pixels, Digits().split("test")):
        assert equal([gather(data, [5, 0, 77])], [gather(Slow(data), [5, 0, 77])])
        fast, slow = (list(ResumableLoader(d, 8, 3, augment=BOTH)) for d in (data, Slow(data)))
        assert equal(fast, slow)


def test_the_order_of_an_unchanged_fit_is_kept(pixels: Pixels) -> None:
    """As it was before augmentation and workers."""
    order = torch.randperm(90, generator=torch.Generator().manual_seed(3 * 1_000_003 + 1))
    found = list(ResumableLoader(pixels, 8, seed=3, epoch=1))
    assert torch.cat([index for _, _, index in found]).tolist() == (1000 + order[:88]).tolist()
    x, y, index = found[2]
    assert torch.equal(x, pixels.held[index - 1000].float() / 255) and y[0] == index[0] % 4


@pytest.mark.parametrize("given", [1, 10, 12])
def test_a_resume_repeats_the_draws(pixels: Pixels, given: int) -> None:
    loader = ResumableLoader(pixels, 8, seed=3, augment=BOTH)
    straight = [batch for _ in range(2) for batch in loader]
    later = ResumableLoader(pixels, 8, seed=3, given=given, augment=BOTH)
    resumed = [batch for _ in range(2) for batch in later]
    assert equal(resumed[: len(straight) - given], straight[given:])


def test_processes_together_see_what_one_sees(pixels: Pixels) -> None:
    loader = ResumableLoader(pixels, 10, seed=3, augment=BOTH)
    whole, later = images_of(list(loader)), images_of(list(loader))
    assert any(not torch.equal(whole[i], later[i]) for i in whole.keys() & later.keys())
    places = [ResumableLoader(pixels, 5, 3, rank, 2, augment=BOTH) for rank in (0, 1)]
    parts = [images_of(list(loader)) for loader in places]
    assert not parts[0].keys() & parts[1].keys()
    both = parts[0] | parts[1]
    assert both.keys() == whole.keys() and all(torch.equal(both[i], whole[i]) for i in whole)


def test_a_data_module_resumes_in_the_middle_of_an_epoch(files: Folder) -> None:
    files.seed = 5
    straight = list(files.train_dataloader())
    assert len(straight) == 4
    files.load_state_dict({"epoch": 0, "given": 3})
    assert equal(list(files.train_dataloader()), straight[3:])
    files.augment = Augment()
    assert not equal(list(files.train_dataloader()), straight[3:])  # it was flipped and moved


def test_workers_change_no_bit(files: Folder) -> None:
    def everything(workers: int) -> list[Batch]:
        files.workers = workers
        loaders = (files.train_dataloader(), files.val_dataloader(), files.test_dataloader())
        return [batch for loader in loaders for batch in loader]

    before = torch.get_rng_state()
    assert equal(everything(2), everything(0)) and len(everything(1)) == 4 + 1 + 5
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(ConfigError, match=r"workers: expected 0 \(none\) or more"):
        Digits(workers=-1)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_workers_error_is_one_line(files: Folder, workers: int) -> None:
    files.workers = workers
    Path(files.parts["test"].files[6]).write_bytes(b"no image")
    loader = files.test_dataloader()
    with pytest.raises(ConfigError, match=r"^/.*jpg cannot be decoded .*; copy it again$"):
        list(loader)
