"""Files that anybody may have written: one line that names the file, bounded memory and time."""

import json
import math
import os
import pickle
import resource
import shutil
import struct
import time
import zipfile
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel
from safetensors.torch import load_file, save_file
from unet import UNET

from adpur import CifarResNet, ConfigError, load_classifier
from adpur.cli import main
from adpur.models.checkpoints.convert import Said, convert
from adpur.models.checkpoints.files import find_weights

DEEP = "[" * 100_000 + "]" * 100_000
TEXTS = {
    "null": b"null", "list": b"[]", "number": b"5", "text": b'"x"', "true": b"true", "empty": b"",
    "not UTF-8": b'{"a": "\xe9"}', "digits": b'{"a": ' + b"9" * 10_000 + b"}",
    "fewer digits": b'{"a": ' + b"9" * 4000 + b"}", "deep": DEEP.encode(),
    "deep inside": b'{"a": ' + DEEP.encode() + b"}", "NaN": b'{"a": [1, {"b": NaN}]}',
    "infinite": b'{"a": 1e999}', "binary": bytes(range(256)), "UTF-16": "{}".encode("utf-16"),
}  # fmt: skip
FILES = {
    "classifier": "config.json", "diffusion": "config.json", "scheduler": "scheduler_config.json",
    "pipeline": "model_index.json",
}  # fmt: skip


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    shutil.copytree(find_weights("digits/classifier"), tmp_path / "classifier")
    torch.manual_seed(0)
    UNet2DModel(**UNET).save_pretrained(tmp_path / "diffusion")
    DDPMScheduler().save_config(tmp_path / "diffusion")
    for name in ("scheduler", "pipeline"):
        shutil.copytree(tmp_path / "diffusion", tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("kind", FILES)
def test_a_config_of_another_form(
    kind: str, text: bytes, folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folders / kind / FILES[kind]).write_bytes(text)
    assert main(["weights", str(folders / kind)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and err.startswith("adpur: error: ") and len(err) < 500
    assert f"{kind}/{FILES[kind]}" in err


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mean", [math.nan]), ("mean", "x"), ("mean", []), ("mean", [0.1, 0.2]), ("mean", [[0.5]]),
        ("mean", 0.5), ("std", [0]), ("std", [-1.0]), ("std", [None]), ("shape", [1, 8]),
        ("shape", [1, 8, 0]), ("shape", [1, 8, 8.5]), ("shape", "8x8"), ("shape", [True, 8, 8]),
        ("architecture", 5), ("architecture", ["CifarResNet"]), ("init_args", []), ("init_args", None),
    ],
    ids=str,
)  # fmt: skip
def test_a_classifiers_config_of_wrong_values(key: str, value: object, folders: Path) -> None:
    file = folders / "classifier" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    with pytest.raises(ConfigError, match=rf"config\.json: .*{key}"):
        load_classifier(folders / "classifier")


@pytest.mark.parametrize(
    "asked", [{"checkpoint_path": "x.pth"}, {"pretrained": True}, {"pretrained_cfg": {"file": "x"}},
              {"pretrained_cfg_overlay": {"url": "x"}}, {"cache_dir": "x"}], ids=repr
)  # fmt: skip
def test_a_config_cannot_ask_for_other_files(asked: dict, tmp_path: Path) -> None:
    config = {"architecture": "resnet18", "init_args": {"num_classes": 10} | asked}
    config |= {"shape": [3, 32, 32], "mean": [0.5], "std": [0.5]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=rf"without `{next(iter(asked))}`"):
        load_classifier(tmp_path)


@pytest.mark.parametrize(
    "init_args",
    [{"blocks": 10**9}, {"blocks": "x"}, {"width": 2**40}, {"width": 10**6}, {"nothing": 1},
     {"width": -4}, {"blocks": []}],
    ids=repr,
)  # fmt: skip
def test_a_classifier_that_claims_anything(init_args: dict, folders: Path) -> None:
    file = folders / "classifier" / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"init_args": config["init_args"] | init_args}))
    started = time.monotonic()
    with pytest.raises(ConfigError) as told:
        load_classifier(folders / "classifier")
    assert "\n" not in str(told.value) and time.monotonic() - started < 60


@pytest.mark.parametrize(
    "damage",
    [b"", b"\x00" * 7, struct.pack("<Q", 2**60) + b"{}", struct.pack("<Q", 2) + b"[]",
     struct.pack("<Q", 4) + b"null", os.urandom(2000)],
    ids=["empty", "short", "claims", "list", "null", "random"],
)  # fmt: skip
def test_damaged_safetensors(damage: bytes, folders: Path) -> None:
    file = folders / "classifier" / "model.safetensors"
    file.write_bytes(damage)
    with pytest.raises(ConfigError, match=r"model\.safetensors: not a complete safetensors file"):
        load_classifier(folders / "classifier")


def test_a_tensor_of_another_kind(folders: Path) -> None:
    file = folders / "classifier" / "model.safetensors"
    state = load_file(file)
    name = next(k for k, v in state.items() if v.is_floating_point())
    save_file(state | {name: state[name].to(torch.int32)}, file)
    with pytest.raises(ConfigError, match=rf"{name} expected torch\.float32, found torch\.int32"):
        load_classifier(folders / "classifier")


def grown() -> float:
    """GiB that this process has ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


PICKLES = {
    "memo": b"\x80\x02}r" + struct.pack("<I", 2**27) + b".",
    "memo in words": b"}p134217728\n.",
    "bytes": b"\x80\x03B" + struct.pack("<I", 2**31 + 5) + b"x.",
    "bytes of 8": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.",
    "text of 8": b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"x.",
    "bytearray": b"\x80\x05\x96" + struct.pack("<Q", 2**33) + b"x.",
    "frame": b"\x80\x04\x95" + struct.pack("<Q", 2**33) + b"}.",
    "number": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"x.",
    "cut": b"\x80\x02}q",
    "nothing": b"",
}


@pytest.mark.parametrize("code", PICKLES.values(), ids=PICKLES)
def test_a_pickle_that_claims_gigabytes(code: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(code)
    before, started = grown(), time.monotonic()
    with pytest.raises(ConfigError, match=r"x\.pkl") as told:
        convert(tmp_path / "x.pkl", tmp_path / "out")
    assert grown() - before < 0.3 and time.monotonic() - started < 30
    assert "\n" not in str(told.value)


def test_a_network_that_holds_itself_a_billion_times(tmp_path: Path) -> None:
    """Thirty modules, each the two children of the one above."""
    persistent = b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n"
    code = b"(dS'_modules'\n(ds."
    inner = code[:-1]
    for level in range(30):
        inner = (b"(dS'_modules'\n(dS'a'\n" + persistent + b"((dS'class_name'\nS'N'\nsS'state'\n"
                 + inner + b"stRp" + str(level).encode() + b"\nsS'b'\ng" + str(level).encode()
                 + b"\nss")  # fmt: skip
    (tmp_path / "x.pkl").write_bytes(b"(dS'ema'\n" + persistent + b"((dS'class_name'\nS'EDMPrecond'\n"
                                     + b"sS'state'\n" + inner + b"stRs.")  # fmt: skip
    with pytest.raises(ConfigError, match=r"x\.pkl"):
        convert(tmp_path / "x.pkl", tmp_path / "out")


def test_a_tensor_larger_than_its_storage(tmp_path: Path) -> None:
    state = CifarResNet(blocks=1).state_dict()
    state["linear.weight"] = torch.zeros(1).expand(2**20, 2**20)
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(ConfigError, match=r"x\.pt: linear\.weight .*repeats"):
        convert(tmp_path / "x.pt", tmp_path / "out", said=Said(mean=[0], std=[1]))


def test_a_zip_that_unpacks_to_gigabytes(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(4)}, tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(tmp_path / "x.pt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for entry in plain.infolist():
            content = plain.read(entry)
            bomb.writestr(
                entry.filename, b"\x00" * 2**28 if "/data/" in entry.filename else content
            )
    before = grown()
    with pytest.raises(ConfigError, match=r"x\.pt: .*unpacks to"):
        convert(tmp_path / "x.pt", tmp_path / "out", said=Said(mean=[0], std=[1]))
    assert grown() - before < 0.2


def test_lists_nested_deep_in_a_pickle(tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(b"(" * 5 + b"]" * 100_000 + b"a" * 99_999 + b".")
    with pytest.raises(ConfigError, match=r"x\.pkl"):
        convert(tmp_path / "x.pkl", tmp_path / "out")
    (tmp_path / "y.pkl").write_bytes(pickle.dumps({"ema": {"a": 1}}))
    with pytest.raises(ConfigError, match=r"expected EDM's"):
        convert(tmp_path / "y.pkl", tmp_path / "out")
