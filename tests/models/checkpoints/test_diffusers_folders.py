"""U-Nets as diffusers saves them, today's and older ones: read as diffusers reads them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file

from adpur import ConfigError, load_denoiser, pretrained, save_denoiser
from adpur.cli import main

FILE = "diffusion_pytorch_model.safetensors"
SMALL: dict[str, Any] = {
    "sample_size": 16, "in_channels": 3, "out_channels": 3, "layers_per_block": 1,
    "block_out_channels": (8, 16), "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"), "norm_num_groups": 4,
}  # fmt: skip
CIFAR = {  # what google/ddpm-cifar10-32 says
    "attention_head_dim": None, "downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1,
    "norm_eps": 1e-6,
}  # fmt: skip
GUIDED = {
    "attention_head_dim": 8, "attn_norm_num_groups": 4, "downsample_type": "resnet",
    "upsample_type": "resnet", "resnet_time_scale_shift": "scale_shift",
    "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "ResnetUpsampleBlock2D"), "out_channels": 6,
}  # fmt: skip
OLD = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}


def net(**changes: Any) -> UNet2DModel:
    torch.manual_seed(4)
    return UNet2DModel(**SMALL | changes)


def bare(folder: Path, **changes: Any) -> Path:
    net(**changes).save_pretrained(folder)
    DDPMScheduler().save_config(folder)
    return folder


def edit(file: Path, drop: tuple[str, ...] = (), **changes: Any) -> None:
    content = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({k: v for k, v in content.items() if k not in drop}))


def pipeline(folder: Path) -> Path:
    DDPMPipeline(net(), DDPMScheduler()).save_pretrained(folder)
    return folder / "unet"


def renamed(folder: Path) -> Path:
    state = load_file(bare(folder, **CIFAR) / FILE)
    for new, old in OLD.items():
        state = {name.replace(new, old): value for name, value in state.items()}
    assert any(".proj_attn." in name for name in state)
    save_file(state, folder / FILE)
    return folder


def extra_keys(folder: Path) -> Path:
    edit(bare(folder) / "config.json", decay=0.9999, note=None, _name_or_path="x", of={"a": []})
    return folder


def ema(folder: Path) -> Path:
    made = net()
    average = EMAModel(made.parameters(), model_cls=UNet2DModel, model_config=made.config)
    with torch.no_grad():
        for shadow in average.shadow_params:
            shadow.mul_(0.9)
    average.save_pretrained(folder / "unet_ema")
    DDPMScheduler().save_config(folder / "scheduler")
    return folder / "unet_ema"


def sharded(folder: Path) -> Path:
    net(block_out_channels=(16, 16)).save_pretrained(folder, max_shard_size="30KB")
    DDPMScheduler().save_config(folder)
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


def variant(folder: Path) -> Path:
    net().half().save_pretrained(folder, variant="fp16")
    DDPMScheduler().save_config(folder)
    return folder


def sharded_variant(folder: Path) -> Path:
    net().half().save_pretrained(folder, variant="fp16", max_shard_size="30KB")
    DDPMScheduler().save_config(folder)
    assert not (folder / FILE).exists()
    return folder


def half(folder: Path) -> Path:
    net().half().save_pretrained(folder)
    DDPMScheduler().save_config(folder)
    return folder


def few_keys(folder: Path) -> Path:
    """Whatever a config leaves out is the class's default."""
    left_out = ("in_channels", "out_channels", "norm_eps", "act_fn", "freq_shift", "add_attention")
    edit(bare(folder) / "config.json", (*left_out, "flip_sin_to_cos", "dropout", "mid_block_type"))
    return folder


FOLDERS: dict[str, Callable[[Path], Path]] = {
    "a pipeline": pipeline,
    "a bare folder": bare,
    "names of 2022": renamed,
    "keys it does not know": extra_keys,
    "EMA": ema,
    "shards": sharded,
    "a variant": variant,
    "a variant in shards": sharded_variant,
    "half precision": half,
    "few keys": few_keys,
    "not square": lambda folder: bare(folder, sample_size=(16, 8)),
    "one value in a list": lambda folder: bare(folder, sample_size=[8, 8], attention_head_dim=4),
    "guided-diffusion's blocks": lambda folder: bare(folder, **GUIDED),
    "no attention": lambda folder: bare(folder, add_attention=False, mid_block_type=None),
}


@pytest.mark.parametrize("made", FOLDERS.values(), ids=FOLDERS)
def test_eps_is_what_diffusers_computes(made: Callable[[Path], Path], tmp_path: Path) -> None:
    folder = made(tmp_path / "m")
    told = {"variant": "fp16"} if "fp16" in str(list(folder.iterdir())) else {}
    theirs = UNet2DModel.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False, **told
    ).float()
    ours = load_denoiser(folder).eval()
    x, t = torch.randn(2, *ours.shape), torch.tensor([100, 7])
    with torch.no_grad():
        want = theirs(x, t - 1).sample[:, :3]
        assert torch.allclose(ours.eps(x, t), want, atol=1e-5) and want.std() > 0.01
    if made is pipeline:
        assert torch.equal(load_denoiser(folder.parent).eval().eps(x, t), ours.eps(x, t))


@pytest.mark.parametrize("left_out", [False, True])
def test_an_open_image_size_is_the_classifiers_or_asked_for(left_out: bool, tmp_path: Path) -> None:
    bare(tmp_path, in_channels=1, out_channels=1)
    edit(tmp_path / "config.json", ("sample_size",) if left_out else (), **{} if left_out else {"sample_size": None})  # fmt: skip
    with pytest.raises(ConfigError, match=r'config\.json: sample_size is open.*"sample_size": 32'):
        load_denoiser(tmp_path)
    assert pretrained("digits/classifier", str(tmp_path)).denoiser.shape == (1, 8, 8)
    save_denoiser(load_denoiser(tmp_path, (8, 4)), tmp_path / "again")
    assert load_denoiser(tmp_path / "again").shape == (1, 8, 4)


@pytest.mark.parametrize("size", ["32", 0, -8, [8], [8, 8, 8], [8, "8"], 8.5, {"a": 1}, True])
def test_other_image_sizes_are_refused(size: object, tmp_path: Path) -> None:
    edit(bare(tmp_path) / "config.json", sample_size=size)
    with pytest.raises(ConfigError, match="expected sample_size H or") as told:
        load_denoiser(tmp_path)
    assert str(tmp_path) in str(told.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"center_input_sample": True}, "center_input_sample"),
        ({"time_embedding_type": "fourier"}, "time_embedding_type 'positional', found 'fourier'"),
        ({"time_embedding_type": "learned", "num_train_timesteps": 9}, "found 'learned'"),
        ({"num_class_embeds": 10}, "found class labels"),
        ({"class_embed_type": "timestep"}, "found class labels"),
        ({"out_channels": 5}, "expected out_channels 3, or 6 .*, found 5"),
    ],
)
def test_networks_of_other_inputs_are_refused(changes: dict, told: str, tmp_path: Path) -> None:
    bare(tmp_path, **changes)
    with pytest.raises(ConfigError, match=told):
        load_denoiser(tmp_path)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("vqvae", "VQModel"), ("vae", "AutoencoderKL"), ("movq", "VQModel"), ("first", "AutoencoderTiny"),
     ("text_encoder", "CLIPTextModel")],
)  # fmt: skip
def test_latent_and_text_models_are_refused(name: str, kind: str, tmp_path: Path) -> None:
    unet = pipeline(tmp_path / "m")
    edit(tmp_path / "m" / "model_index.json", **{name: ["diffusers", kind]})
    for folder in (unet.parent, unet):
        with pytest.raises(ConfigError, match=rf"model_index\.json: .* found `{name}` \({kind}\)"):
            load_denoiser(folder)
    edit(tmp_path / "m" / "model_index.json", **{name: [None, None]})
    load_denoiser(unet.parent)


def test_damaged_shards_are_named(tmp_path: Path) -> None:
    folder = sharded(tmp_path)
    index = folder / f"{FILE}.index.json"
    plain = json.loads(index.read_text())
    first = sorted(set(plain["weight_map"].values()))[0]
    for mapping in (None, [], {}, "x"):
        index.write_text(json.dumps(plain | {"weight_map": mapping}))
        with pytest.raises(ConfigError, match=r"index\.json: expected an index with `weight_map`"):
            load_denoiser(folder)
    for name in ("../x.safetensors", "/etc/passwd", "x.bin", 5):
        index.write_text(json.dumps({"weight_map": {"a": name}}))
        with pytest.raises(ConfigError, match=r"index\.json: expected shards"):
            load_denoiser(folder)
    index.write_text(json.dumps(plain))
    shard = folder / first
    kept = shard.read_bytes()
    shard.write_bytes(kept[:-5])
    with pytest.raises(ConfigError, match=rf"{first}: not a complete safetensors file"):
        load_denoiser(folder)
    shard.unlink()
    with pytest.raises(ConfigError, match=rf"its shard {first} is missing"):
        load_denoiser(folder)


def test_other_weights_than_a_precision_are_never_taken_unasked(tmp_path: Path) -> None:
    bare(tmp_path)
    (tmp_path / FILE).rename(tmp_path / "diffusion_pytorch_model.non_ema.safetensors")
    with pytest.raises(ConfigError, match=r"missing; there is .*non_ema\.safetensors: rename"):
        load_denoiser(tmp_path)


def test_a_network_beside_another_set_of_weights_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ema(tmp_path).parent
    net().save_pretrained(run / "unet")
    assert main(["weights", str(run)]) == 0
    assert "unet; unet_ema is there too" in capsys.readouterr().out
    assert main(["weights", str(run / "unet_ema")]) == 0
    assert "is there too" not in capsys.readouterr().out


def test_tensors_of_other_kinds_and_nan_are_refused(tmp_path: Path) -> None:
    state = load_file(bare(tmp_path) / FILE)
    for value, told in ((torch.int64, "expected torch.float32, found torch.int64"), (None, "NaN")):
        bias = state["conv_in.bias"]
        odd = bias.to(value) if value else bias / 0 * 0
        save_file(state | {"conv_in.bias": odd}, tmp_path / FILE)
        with pytest.raises(ConfigError, match=rf"{FILE}: conv_in\.bias .*{told}"):
            load_denoiser(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"block_out_channels": [2**40, 2**41]},
        {"block_out_channels": [400_000, 400_000], "norm_num_groups": 8},
        {"layers_per_block": 10**9},
        {"layers_per_block": -1},
        {"block_out_channels": None},
        {"block_out_channels": ["a", "b"]},
        {"norm_num_groups": 0},
        {"down_block_types": ["Nothing", "At all"]},
        {"down_block_types": 7},
        {"act_fn": []},
        {"in_channels": "3"},
        {"in_channels": -3},
        {"norm_eps": "x"},
        {"attention_head_dim": 0},
    ],
    ids=repr,
)
def test_configs_that_ask_for_anything_cost_one_line(changes: dict, tmp_path: Path) -> None:
    edit(bare(tmp_path) / "config.json", **changes)
    with pytest.raises(ConfigError) as told:
        load_denoiser(tmp_path)
    assert str(tmp_path) in str(told.value) and "\n" not in str(told.value)
