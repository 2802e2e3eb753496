"""`adpur fetch` against a small server on this machine: pinned, checked, resumed, cached, loaded."""

import dataclasses
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel
from huggingface_hub import constants
from unet import UNET

from adpur import CifarResNet, load_classifier, load_denoiser
from adpur.cli import main
from adpur.models.checkpoints import catalogue

COMMIT = "a" * 40
Capture = pytest.CaptureFixture[str]


class Hub(BaseHTTPRequestHandler):
    """What of the hub's interface is asked; `cut` breaks the first answer to a plain file."""

    files: dict[str, bytes]
    asked: list[tuple[str, str, str | None]]
    cut: int = 0

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        path, begin = self.path.partition("?")[0], self.headers.get("Range")
        self.asked.append((self.command, path, begin))
        known = [f"/api/models/our/net/revision/{name}" for name in ("main", COMMIT)]
        if path in known:
            self.send(json.dumps(self.info()).encode(), body, "application/json")
        elif (name := path.removeprefix(f"/our/net/resolve/{COMMIT}/")) in self.files:
            self.send(self.files[name], body, start=begin)
        elif (name := path.removeprefix("/plain/")) in self.files:
            self.send(self.files[name], body, start=begin, cut=True)
        else:
            self.send_error(404)

    def info(self) -> dict[str, Any]:
        """The second file is large: the hub knows its sha256."""
        siblings: list[dict[str, Any]] = []
        for name, content in self.files.items():
            lfs = {"sha256": digest(content), "size": len(content), "pointerSize": 1}
            large = {"lfs": lfs} if name.endswith("safetensors") else {}
            siblings.append({"rfilename": name, "size": len(content), "blobId": "b"} | large)
        return {"id": "our/net", "sha": COMMIT, "siblings": siblings}

    def send(
        self, content: bytes, body: bool, kind: str = "x/y", start: str | None = None,
        cut: bool = False,
    ) -> None:  # fmt: skip
        first = int(start.removeprefix("bytes=").partition("-")[0]) if start else 0
        part = content[first:]
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("ETag", f'"{digest(content)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body and cut and Hub.cut:
            part, Hub.cut = part[: Hub.cut], 0
            self.close_connection = True
        if body:
            self.wfile.write(part)

    def log_message(self, *_: object) -> None:
        pass


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    torch.manual_seed(0)
    UNet2DModel(**UNET).save_pretrained(tmp_path / "made")
    DDPMScheduler().save_config(tmp_path / "made")
    torch.save(CifarResNet(1, width=4).state_dict(), tmp_path / "made" / "net.th")
    Hub.files = {p.name: p.read_bytes() for p in (tmp_path / "made").iterdir()}
    Hub.asked, Hub.cut = [], 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("ADPUR_WEIGHTS_PATH", raising=False)
    monkeypatch.chdir(tmp_path)
    files = ("config.json", "scheduler_config.json", "diffusion_pytorch_model.safetensors")
    plain = catalogue.KNOWN[0]
    known = (
        dataclasses.replace(plain, name="mine", repo="our/net", files=files, licence="a licence"),
        dataclasses.replace(
            plain, name="res", repo="", files=(), file="net.th", sha256=digest(Hub.files["net.th"]),
            mean=(0.5,), std=(0.2,),
        ),
    )  # fmt: skip
    monkeypatch.setattr(catalogue, "KNOWN", known)
    yield address
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_folder_of_the_hub_pinned_checked_and_ready(hub: str, capsys: Capture) -> None:
    assert main(["fetch", "mine"]) == 0
    out = capsys.readouterr().out
    weights = "diffusion_pytorch_model.safetensors"
    assert "licence: a licence" in out and f"revision: {COMMIT}" in out
    assert f"{weights}: sha256 {digest(Hub.files[weights])}\n" in out
    assert "config.json: sha256" in out and "(nothing to compare it with)" in out
    record = json.loads(Path("runs/weights/mine/fetched.json").read_text())
    assert record["revision"] == COMMIT and record[weights] == digest(Hub.files[weights])
    x, t = torch.randn(1, 1, 8, 8), torch.tensor([9])
    assert torch.equal(load_denoiser("mine").eval()(x, t), load_denoiser("made").eval()(x, t))
    Hub.asked.clear()
    assert main(["fetch", "mine"]) == 0 and not Hub.asked
    assert "mine is there" in capsys.readouterr().out


def test_what_was_fetched_once_is_there_offline(hub: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:  # fmt: skip
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["fetch", "mine"]) == 2
    err = capsys.readouterr().err
    assert "HF_HUB_OFFLINE is set, and it is not in the cache" in err and err.count("\n") == 1
    assert main(["fetch", "res", "--url", f"{hub}/plain/net.th"]) == 2
    assert not Hub.asked and not Path("runs/weights/mine").exists()
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert main(["fetch", "mine", "first"]) == 0
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    Hub.asked.clear()
    assert main(["fetch", "mine", "second"]) == 0 and not Hub.asked  # the same commit
    assert main(["fetch", "mine", "third", "--revision", COMMIT]) == 0 and not Hub.asked
    load_denoiser("second")


def test_other_bytes_than_the_published_leave_nothing(hub: str, capsys: Capture) -> None:
    assert main(["fetch", "mine", "--sha256", "0" * 64]) == 2
    err = capsys.readouterr().err
    assert f"expected sha256 {'0' * 64}, got" in err and "our/net/diffusion_pytorch" in err
    Hub.files["net.th"] += b"x"
    assert main(["fetch", "res", "--url", f"{hub}/plain/net.th"]) == 2
    assert "it is not the published file" in capsys.readouterr().err
    assert not list(Path().rglob("runs/weights/*"))
    Hub.files["net.th"] = Hub.files["net.th"][:-1]
    assert main(["fetch", "res", "--url", f"{hub}/plain/net.th"]) == 0


def test_a_file_by_its_address_is_resumed_cached_and_converted(hub: str, capsys: Capture) -> None:
    url = f"{hub}/plain/net.th"
    Hub.cut = 5000
    assert main(["fetch", "res", "--url", url]) == 2
    assert "the same command goes on where it stopped" in capsys.readouterr().err
    assert main(["fetch", "res", "--url", url]) == 0
    assert Hub.asked[-1] == ("GET", "/plain/net.th", "bytes=5000-")
    assert "CifarResNet with" in capsys.readouterr().out
    found = load_classifier("res")
    assert found.mean.item() == 0.5 and found.net.conv1.weight.shape[0] == 4
    Hub.asked.clear()
    assert main(["fetch", "res", "again", "--url", url]) == 0 and not Hub.asked


def test_what_cannot_be_fetched_is_one_line(hub: str, capsys: Capture) -> None:
    for argv, told in (
        (["res"], "is not on Hugging Face; find net.th at"),
        (["res", "--url", "file:///etc/passwd"], "expected http:// or https://"),
        (["res", "--url", f"{hub}/plain/none"], "404"),
        (["mine", "--revision", "a b"], "our/net: cannot be fetched"),
        (["minee"], "neither a checkpoint nor a config; nearest: mine"),
    ):
        assert main(["fetch", *argv]) == 2, argv
        err = capsys.readouterr().err
        assert told in err and err.count("\n") == 1, err
    del Hub.files["scheduler_config.json"]
    assert main(["fetch", "mine"]) == 2
    assert "our/net/scheduler_config.json: cannot be fetched" in capsys.readouterr().err
    assert not list(Path().rglob("runs/weights/*"))


def test_a_config_says_what_it_misses_and_fetch_mends_it(hub: str, capsys: Capture) -> None:
    Path("c.yaml").write_text(
        "model:\n  networks:\n    default:\n      class_path: adpur.pretrained\n"
        "      init_args: {classifier: res, denoiser: mine, scorer: runs/weights/fitted}\n"
    )
    from adpur import ConfigError, pretrained

    with pytest.raises(
        ConfigError, match=r"'res', 'mine' not found as folders; adpur fetch res and"
    ):
        pretrained("res", "mine")
    with pytest.raises(ConfigError, match="'mine' not found as a folder; adpur fetch mine gets it"):
        pretrained("digits/classifier", "mine")
    assert main(["fetch", "c.yaml"]) == 2
    out = capsys.readouterr().out
    assert "ready: runs/weights/mine" in out and "adpur fetch res --url ADDRESS" in out
    assert "runs/weights/fitted: no published checkpoint is called so" in out
    assert main(["fetch", "ssni_digits"]) == 0
    assert "all of its networks are there" in capsys.readouterr().out
