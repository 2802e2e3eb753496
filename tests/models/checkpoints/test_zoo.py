"""Weights on disk: round trips, diffusers folders, and everything that can be wrong with them."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel
from unet import UNET

from adpur import (
    CifarResNet,
    Classifier,
    ConfigError,
    Defense,
    DiscreteVP,
    EpsDenoiser,
    Networks,
    ddpm,
    load_classifier,
    load_denoiser,
    pretrained,
    reference,
    save_classifier,
    save_denoiser,
)
from adpur.diffusion.adapters import DiffusersNet
from adpur.models.checkpoints.files import find_weights
from adpur.models.checkpoints.fingerprint import fingerprint
from adpur.models.checkpoints.zoo import build_unet


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(3)
    save_denoiser(EpsDenoiser(DiffusersNet(build_unet(UNET)), DiscreteVP(), (1, 8, 8)), tmp_path)
    return tmp_path


def test_the_shipped_weights_load_and_weigh_little() -> None:
    nets = pretrained("digits/classifier", "digits/diffusion")
    assert nets.shape == (1, 8, 8)
    assert not any(p.requires_grad for p in nets.parameters())
    assert not any(m.training for m in nets.train().modules())
    files = find_weights("digits/classifier").parent.rglob("*.safetensors")
    assert sum(f.stat().st_size for f in files) <= 2.5e6
    assert reference("digits/diffusion", 20, 5).scorer == fingerprint(nets.denoiser)
    hardened = pretrained("digits/classifier", "digits/addt").denoiser
    assert reference("digits/addt", 20, 5).scorer == fingerprint(hardened)


def test_a_classifier_comes_back(tmp_path: Path) -> None:
    made = Classifier(CifarResNet(1, in_channels=1), (1, 8, 8), (0.5,), (0.25,)).eval()
    save_classifier(made, {"blocks": 1, "in_channels": 1}, tmp_path)
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(load_classifier(tmp_path).eval()(x), made(x))


def test_diffusers_reads_what_adpur_writes_and_back(folder: Path, tmp_path: Path) -> None:
    unet = UNet2DModel.from_pretrained(
        folder / "unet", local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False
    )
    scheduler = DDPMScheduler.from_pretrained(folder / "scheduler", local_files_only=True)
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([100, 7])
    ours = load_denoiser(folder).eval()
    eps = unet(x, t - 1, return_dict=False)[0]
    abar = scheduler.alphas_cumprod[t - 1].view(-1, 1, 1, 1)
    assert torch.allclose(ours(x, t), (x - (1 - abar).sqrt() * eps) / abar.sqrt(), atol=1e-5)


def test_a_bare_unet_folder_and_other_schedules(folder: Path) -> None:
    file = folder / "scheduler" / "scheduler_config.json"
    DDPMScheduler(500, beta_schedule="squaredcos_cap_v2").save_config(file.parent)
    schedule = load_denoiser(folder).schedule
    want = DDPMScheduler(500, beta_schedule="squaredcos_cap_v2").alphas_cumprod
    assert schedule.end == 500 == load_denoiser(folder / "unet").schedule.end
    assert torch.allclose(schedule.alpha(torch.arange(1, 501)) ** 2, want.double(), atol=1e-6)
    save_denoiser(load_denoiser(folder), folder / "again")
    again = load_denoiser(folder / "again").schedule
    assert torch.equal(again.alpha(torch.arange(501)), schedule.alpha(torch.arange(501)))


def test_a_schedule_is_never_guessed(folder: Path) -> None:
    shutil.rmtree(folder / "scheduler")
    with pytest.raises(
        ConfigError, match=r"no scheduler_config\.json says what its time steps mean"
    ):
        load_denoiser(folder)
    DDPMScheduler(300).save_config(folder)
    assert load_denoiser(folder).schedule.end == 300


class Payload:
    def __reduce__(self):
        return (Path.touch, (Path("pwned"),))


def test_a_pickle_is_refused_and_never_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    evil = tmp_path / "evil.pth"
    evil.write_bytes(pickle.dumps(Payload()))
    with pytest.raises(ConfigError, match="never from a pickle"):
        load_classifier(evil)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    shutil.copy(evil, folder / "unet" / "diffusion_pytorch_model.bin")
    weights.unlink()
    with pytest.raises(ConfigError, match=r"missing; diffusion_pytorch_model\.bin is a pickle"):
        load_denoiser(folder)
    shutil.copy(evil, weights)
    with pytest.raises(ConfigError, match="not a complete safetensors file"):
        load_denoiser(folder)
    assert not Path("pwned").exists()


def test_wrong_files_name_the_path_and_both_sides(folder: Path) -> None:
    config = folder / "unet" / "config.json"
    plain = json.loads(config.read_text())
    config.write_text(json.dumps(plain | {"in_channels": 3}))
    with pytest.raises(ConfigError, match=r"conv_in\.weight expected \(8, 3, 3, 3\), found \(8, 1"):
        load_denoiser(folder)
    config.write_text(json.dumps(plain | {"_class_name": "UNet2DConditionModel"}))
    with pytest.raises(ConfigError, match="expected a diffusers UNet2DModel"):
        load_denoiser(folder)
    config.write_text("{")
    with pytest.raises(ConfigError, match=r"config\.json: not valid JSON"):
        load_denoiser(folder)
    config.unlink()
    with pytest.raises(ConfigError, match=r"expected a config\.json, found none"):
        load_denoiser(folder)


def test_truncated_weights(folder: Path) -> None:
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ConfigError, match="not a complete safetensors file"):
        load_denoiser(folder)


def test_missing_names_list_what_ships() -> None:
    with pytest.raises(
        ConfigError, match=r"shipped: digits/addt, digits/classifier, digits/diffusion$"
    ):
        find_weights("digits/difusion")
    with pytest.raises(
        ConfigError, match=r"saved: \(20, 1\), \(20, 5\), \(20, 20\).*adpur calibrate"
    ):
        reference("digits/diffusion", 20, 7)


def test_networks_of_different_shapes_are_refused(folder: Path) -> None:
    wrong = Classifier(CifarResNet(1), (3, 32, 32))
    with pytest.raises(ConfigError, match=r"of \(1, 8, 8\) .*, not \(3, 32, 32\)"):
        Defense(ddpm(), Networks(wrong, load_denoiser(folder)))


def test_score_norms_of_other_weights_are_refused(folder: Path) -> None:
    from adpur import ssni_n

    purifier = ssni_n("digits/diffusion", levels=5)
    nets = Networks(load_classifier("digits/classifier"), load_denoiser(folder))
    with pytest.raises(ConfigError, match="measured with another diffusion model"):
        Defense(purifier, nets)


def test_a_fingerprint_sees_what_a_weights_file_does_not() -> None:
    net = build_unet(UNET)
    plain = EpsDenoiser(DiffusersNet(net), DiscreteVP(), (1, 8, 8))
    other = EpsDenoiser(DiffusersNet(net), DiscreteVP((0.1,) * 1000), (1, 8, 8))
    assert fingerprint(plain) == fingerprint(plain) != fingerprint(other)
    body = CifarResNet(1)
    assert fingerprint(Classifier(body, (3, 8, 8), (0.5,))) != fingerprint(
        Classifier(body, (3, 8, 8))
    )
    before = fingerprint(body)
    with torch.no_grad():
        body.linear.bias[0] += 1e-3
    assert fingerprint(body) != before


def test_option_a_shortcuts_have_no_parameters() -> None:
    """He et al. (2016), Table 6: 0.27, 0.46, 0.66, 0.85 million parameters."""
    for blocks, millions in ((3, 0.27), (5, 0.46), (7, 0.66), (9, 0.85)):
        count = sum(p.numel() for p in CifarResNet(blocks).parameters())
        assert round(count / 1e6, 2) == millions
