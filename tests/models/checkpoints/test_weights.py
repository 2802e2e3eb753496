"""What folders predict, and the command that says what a file or folder is."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler

from adpur import ConfigError, DiscreteVP, EpsDenoiser, load_denoiser, save_denoiser
from adpur.cli import main
from adpur.cli.entry import USAGE
from adpur.diffusion.adapters import DiffusersNet, EDMDenoiser, VDenoiser, X0Denoiser
from adpur.models.checkpoints import catalogue
from adpur.models.checkpoints.files import shipped_weights
from adpur.models.checkpoints.zoo import build_unet

UNET = {
    "sample_size": 8, "in_channels": 1, "out_channels": 1, "layers_per_block": 1,
    "block_out_channels": [8, 16], "down_block_types": ["DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D"], "norm_num_groups": 8, "add_attention": False,
}  # fmt: skip
KINDS = {"epsilon": EpsDenoiser, "v_prediction": VDenoiser, "sample": X0Denoiser}


def made(kind: str = "epsilon", betas: DiscreteVP | None = None, **changes) -> EpsDenoiser:
    torch.manual_seed(6)
    return KINDS[kind](DiffusersNet(build_unet(UNET | changes)), betas or DiscreteVP(), (1, 8, 8))


@pytest.mark.oracle
@pytest.mark.parametrize("outputs", [1, 2], ids=["prediction", "and variance"])
@pytest.mark.parametrize("kind", KINDS)
def test_x0_is_what_diffusers_says(kind: str, outputs: int, tmp_path: Path) -> None:
    save_denoiser(made(kind, out_channels=outputs), tmp_path)
    ours = load_denoiser(tmp_path).double().eval()
    assert type(ours) is KINDS[kind]
    scheduler = DDPMScheduler.from_pretrained(tmp_path / "scheduler", local_files_only=True)
    scheduler.alphas_cumprod = ours.schedule.alpha(torch.arange(1, 1001)) ** 2  # its own are fp32
    scheduler.one = scheduler.one.double()
    x = torch.randn(1, 1, 8, 8, dtype=torch.float64)
    for t in (1, 40, 1000):
        with torch.no_grad():
            out = ours.net.unet(x, t - 1).sample
            want = scheduler.step(out, t - 1, x).pred_original_sample
            assert torch.allclose(ours(x, torch.tensor([t])), want, rtol=1e-12, atol=1e-12)


def test_the_head_is_written_for_diffusers(tmp_path: Path) -> None:
    save_denoiser(made("v_prediction", out_channels=2), tmp_path)
    config = json.loads((tmp_path / "scheduler" / "scheduler_config.json").read_text())
    assert (config["prediction_type"], config["variance_type"]) == ("v_prediction", "learned_range")
    save_denoiser(load_denoiser(tmp_path), tmp_path / "again")
    again = (tmp_path / "again" / "scheduler" / "scheduler_config.json").read_text()
    assert json.loads(again) == config
    raw = EDMDenoiser(made().net, (1, 8, 8))
    raw.schedule = DiscreteVP()
    with pytest.raises(ConfigError, match="one of EpsDenoiser, VDenoiser, X0Denoiser to save"):
        save_denoiser(raw, tmp_path / "raw")


def test_other_heads_are_refused(tmp_path: Path) -> None:
    save_denoiser(made(), tmp_path)
    file = tmp_path / "scheduler" / "scheduler_config.json"
    plain = json.loads(file.read_text())
    file.write_text(json.dumps(plain | {"prediction_type": "flow"}))
    with pytest.raises(ConfigError, match=r"one of epsilon, v_prediction, sample, found 'flow'"):
        load_denoiser(tmp_path)
    file.write_text(json.dumps(plain | {"_class_name": "ScoreSdeVeScheduler", "sigma_max": 50}))
    with pytest.raises(ConfigError, match=r"a scheduler with DDPM's betas .*'ScoreSdeVeScheduler'"):
        load_denoiser(tmp_path)
    save_denoiser(made(out_channels=3), tmp_path)
    with pytest.raises(ConfigError, match="expected out_channels 1, or 2 with a learned variance"):
        load_denoiser(tmp_path)
    save_denoiser(made(num_class_embeds=10), tmp_path)
    with pytest.raises(ConfigError, match="expected an unconditional UNet2DModel"):
        load_denoiser(tmp_path)


def test_the_table_lists_known_and_shipped(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights"]) == 0
    out = capsys.readouterr().out
    assert all(entry.name in out and entry.file in out for entry in catalogue.KNOWN)
    assert all(name in out for name in shipped_weights())
    assert "adpur weights digits/diffusion" in USAGE


def test_the_table_is_well_formed() -> None:
    assert len({entry.name for entry in catalogue.KNOWN}) == len(catalogue.KNOWN)
    for entry in catalogue.KNOWN:
        assert entry.sha256 == catalogue.UNKNOWN or len(bytes.fromhex(entry.sha256)) == 32
        text = " ".join(map(str, dataclasses.astuple(entry)))
        assert "://" not in text and ".co/" not in text and ".com" not in text


def test_a_file_is_known_by_its_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "checkpoint_8.pth"
    file.write_bytes(b"not what it is called")
    assert main(["weights", str(file)]) == 0
    out = capsys.readouterr().out
    assert "named like score-sde-cifar10, whose sha256 adpur does not know" in out
    assert f"adpur convert {file} FOLDER" in out
    entry = dataclasses.replace(catalogue.KNOWN[1], name="mine", sha256=catalogue.sha256(file))
    monkeypatch.setattr(catalogue, "KNOWN", (entry,))
    main(["weights", str(file)])
    assert f"{entry.sha256}\n    is      mine: yang-song" in capsys.readouterr().out
    file.write_bytes(b"something else")
    main(["weights", str(file)])
    assert "named like mine, but with another sha256 than" in capsys.readouterr().out
    main(["weights", str(file.rename(tmp_path / "x.bin"))])
    assert "not a known checkpoint" in capsys.readouterr().out


def test_folders_are_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    betas = DiscreteVP(tuple(torch.linspace(1e-4, 0.3, 50, dtype=torch.float64).sqrt().tolist()))
    save_denoiser(made("v_prediction", betas, out_channels=2), tmp_path)
    assert main(["weights", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    count = sum(p.numel() for p in made(out_channels=2).parameters())
    assert "UNet2DModel as VDenoiser, predicts v_prediction" in out and f"{count:,}" in out
    assert "learned; adpur discards it" in out and "DiscreteVP, t from 0 to 50" in out
    assert main(["weights", "digits/classifier"]) == 0
    out = capsys.readouterr().out
    assert "CifarResNet" in out and "(1, 8, 8)" in out and "mean" in out


def test_what_is_wrong_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", str(tmp_path / "none")]) == 2
    assert "shipped: digits/addt, digits/classifier" in capsys.readouterr().err
    (tmp_path / "config.json").write_text("{")
    assert main(["weights", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    save_denoiser(made(), tmp_path / "d")
    weights = tmp_path / "d" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    assert main(["weights", str(tmp_path / "d")]) == 2
    assert "not a complete safetensors file" in capsys.readouterr().err
