"""The command line as a person meets it: config names, one-line answers, exit codes."""

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from cifar import tiny_cifar_weights
from torchvision.io import decode_image, write_png
from toy import in_child

from adpur.cli import main
from adpur.errors import ConfigError
from adpur.models.checkpoints.files import find_weights
from adpur.shipped import resolve_config, shipped_configs

pytestmark = pytest.mark.usefixtures("forks")

FAST = ["--trainer.enable_progress_bar=false", "--trainer.logger=false", "--data.limit=4"]


@pytest.fixture(autouse=True)
def away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    return tmp_path


def answer(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    code = main(argv)
    said = capsys.readouterr()
    return code, (said.err or said.out).strip()


def test_help_and_configs_answer_without_torch() -> None:
    """Within .5 s of a processor; .1 s are spent, and what else the machine does counts nothing."""
    script = (
        "import sys; from adpur.cli import main; main(sys.argv[1:]); print('torch' in sys.modules)"
    )
    for argv in (["--help"], ["configs"]):
        best = min(_seconds(script, argv) for _ in range(3))
        assert best < 0.5


def _seconds(script: str, argv: list[str]) -> float:
    """Of processor time."""
    before = os.times()
    out = subprocess.run([sys.executable, "-c", script, *argv], capture_output=True, text=True)
    after = os.times()
    assert out.returncode == 0 and out.stdout.endswith("False\n")
    return sum(after[2:4]) - sum(before[2:4])


def test_every_config_is_listed_with_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["configs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(
        f.stem for f in shipped_configs().glob("*.yaml")
    )
    assert all(len(line.split()) > 5 for line in lines)


def test_names_resolve_here_then_in_the_path_then_shipped(
    away: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = resolve_config("ssni_digits")
    assert Path(shipped).parent.resolve() == shipped_configs().resolve()
    other = away / "other"
    other.mkdir()
    (other / "ssni_digits.yaml").write_text("")
    monkeypatch.setenv("ADPUR_CONFIG_PATH", str(other))
    assert resolve_config("ssni_digits") == str(other / "ssni_digits.yaml")
    (away / "ssni_digits.yaml").write_text("")
    assert resolve_config("ssni_digits.yaml") == str(away / "ssni_digits.yaml")
    with pytest.raises(ConfigError, match="nearest: diffusion_digits"):
        resolve_config("difusion_digits")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["tset"], "no command 'tset'; nearest: test"),
        (["test"], "adpur test needs a config"),
        (["test", "-c", "nope"], "no config 'nope'; nearest:"),
        (
            ["test", "--trainer.max_epoch=3"],
            "'trainer.max_epoch'; nearest valid: trainer.max_epochs",
        ),
        (
            ["test", "--model.draw=3"],
            "adpur.Evaluation has no setting 'draw'; nearest valid: draws",
        ),
        (["test", "--model.draws=abc"], "model.draws: expected int, got abc"),
        (["test", "--model.draws=0"], "draws and select must be positive, got 0 and 10"),
        (
            ["test", "--model.defenses.diffpure.purifier=adpur.ddmp"],
            "no class or function 'ddmp'; nearest valid: gdmp, ddpm",
        ),
        (
            ["test", "--model.defenses.diffpure.purifier.init_args.stide=9"],
            "adpur.ddpm has no setting 'stide'; nearest valid: stride",
        ),
        (
            ["test", "--model.defenses.diffpure.purifier.init_args.t=110"],
            "t* = 110 is not reachable by Strided(stride=20); the nearest valid t* is 120",
        ),
        (
            ["test", "--model.defenses.diffpure.purifier.init_args.t=1100"],
            "t* = 1100 lies outside the schedule's 0..1000",
        ),
        (
            ["test", "--model.defenses.ssni-n.purifier.init_args.tau=0"],
            "tau must be positive, got 0.0",
        ),
        (
            ["test", "--model.networks.default.init_args.denoiser=lost"],
            "weights 'lost' not found as a folder; shipped: digits/addt, digits/classifier, digits/diffusion",
        ),
        (["test", "--data.limit=5000"], "limit=5000 is more than the 360 images of test"),
        (["test", "--threads=0"], "threads must be a positive integer, got 0"),
        (["test", "--model.seed=-1"], "noise key seed=-1 does not fit in 32 bits"),
        (
            ["test", "--vary={diffpure:{t:[60]}}"],
            "vary: expected dict, got {diffpure:{t:[60]}}; YAML wants a space after each colon",
        ),
        (
            ["test", "--model.defenses.diffpure.purifier=adpur.MSE"],
            "adpur.MSE is no Purifier; valid: ",
        ),
        (["test", "--only=difpure"], "only: no row 'difpure'; nearest: diffpure"),
        (
            ["test", "--vary={undefended: {t: [1]}}"],
            "vary: undefended has no setting 't'; nearest valid: none",
        ),
        (["test", "--vary={diffpure: {t: [60, 60]}}"], "vary: two rows would be named alike"),
        (
            ["test", "--vary={diffpure: {schedule.beta_max: [10]}}"],
            "vary: diffpure.schedule is None and has no 'beta_max'; write its class_path in the row",
        ),
        (
            ["test", "--vary={lost: {t: [1]}}"],
            "vary: no row 'lost'; there is: undefended, diffpure, ssni-n",
        ),
        (
            ["test", "--vary={diffpure: {tt: [1]}}"],
            "vary: diffpure has no setting 'tt'; nearest valid: t",
        ),
        (["test", "--vary={diffpure: {t: 60}}"], "vary: expected list, got 60"),
        (
            ["test", "--vary={diffpure: {t: [60, 70]}}"],
            "t* = 70 is not reachable by Strided(stride=20); the nearest valid t* is 80",
        ),
        (
            ["fit", "-c", "classifier_digits", "--vary={a: {t: [1]}}"],
            "vary belongs to adpur test, not to adpur fit",
        ),
        (
            ["fit", "-c", "classifier_digits", "--mixed"],
            "mixed belongs to adpur test, not to adpur fit",
        ),
        (["test", "--shard=5/4"], "shard: expected k/n with 1 <= k <= n, got 5/4"),
        (["test", "--shard=half"], "shard: expected k/n, such as 1/4 to 4/4, got half"),
        (
            ["test", "-c", "ssni_digits", "--shard", "1/4", "--fresh"],
            "fresh would set aside what other shards are writing",
        ),
        (
            ["validate", "-c", "classifier_digits", "--dry-run"],
            "dry-run belongs to adpur test, not to adpur validate",
        ),
        (["fit", "-c", "ssni_digits"], "adpur fit needs a model of class Training, got Evaluation"),
        (
            ["test", "-c", "classifier_digits"],
            "adpur test needs a model of class Evaluation, got ClassifierTraining",
        ),
        (["validate", "-c", "classifier_digits"], "last.ckpt does not exist: adpur fit"),
        (["report", "nowhere"], "nowhere is not a run folder"),
        (["predict", "nowhere", "out"], "nowhere is not a folder of images"),
        (["calibrate", "digits/diffusion", "--data", "Digts"], "no data set 'Digts'"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_bad_input_is_answered_in_one_line(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if argv[0] == "test" and len(argv) == 2 and argv[1] != "-c":
        argv = ["test", "-c", "ssni_digits", "--trainer.logger=false", argv[1]]
    code, told = answer(capsys, *argv)
    assert code == 2
    assert said in told
    assert told.startswith("adpur: error: ") and "\n" not in told


def test_an_attack_with_a_negative_radius(capsys: pytest.CaptureFixture[str], away: Path) -> None:
    text = Path(resolve_config("ssni_digits")).read_text()
    (away / "bad.yaml").write_text(text.replace("eps: 0.2", "eps: -8/255"))
    code, told = answer(capsys, "test", "-c", "bad")
    assert code == 2 and "PGD eps must be >= 0 (0 is the null attack), got -" in told


def test_a_fraction_is_a_number(away: Path) -> None:
    from adpur.cli.run import parse

    text = Path(resolve_config("ssni_digits")).read_text()
    (away / "frac.yaml").write_text(text.replace("eps: 0.2", "eps: 8/255"))
    cli = parse("test", ["-c", "frac", "--trainer.logger=false"])
    blocks = [c for c in cli.trainer.callbacks if type(c).__name__ == "Robustness"]
    assert [a.eps for b in blocks for a in b.block.attacks] == [8 / 255] * 2


def test_knowledge_is_written_by_its_name_or_its_settings(away: Path) -> None:
    from adpur import Knowledge, Stream
    from adpur.cli.run import parse

    text = Path(resolve_config("replay_digits")).read_text()
    said = "{class_path: adpur.dw_semi, init_args: {k: 8}}"
    assert said in text
    (away / "own.yaml").write_text(text.replace(said, "{pool: 3, streams: [LEVEL]}"))
    for name, last in (("replay_digits", Knowledge(8)), ("own", Knowledge(3, {Stream.LEVEL}))):
        cli = parse("test", ["-c", name, "--trainer.logger=false"])
        known = [
            c.block.knowledge for c in cli.trainer.callbacks if type(c).__name__ == "Robustness"
        ]
        assert known[-1] == last
        assert [k.name for k in known[:3]] == ["white-box", "white-box", "DW-both"]


def test_any_setting_of_a_row_can_be_varied() -> None:
    from adpur.cli.run import parse

    vary = (
        "--vary={ssni-n: {curve.init_args.tau: [1]}, gns: {ensemble.votes: [1, 3]}, "
        "ssni-l: {over.t: [60, 80], levels: [20]}, "
        "gdmp: {guidance: [null, {class_path: adpur.MSE, init_args: {scale: 50}}]}}"
    )
    words = ["-c", "purifiers_digits", "--trainer.logger=false", vary]
    with pytest.raises(ConfigError, match="ssni-n has no setting 'init_args'; nearest valid: tau"):
        parse("test", words)
    rows = parse("test", [*words[:-1], vary.replace("curve.init_args", "curve")]).model.rows
    assert rows["ssni-n tau=1"].purifier.level.curve.tau == 1
    assert rows["gns votes=3"].ensemble.votes == 3 and rows["gns votes=1"].ensemble.votes == 1
    assert rows["ssni-l t=80 levels=20"].purifier.level.base == 80
    assert rows["gdmp guidance=MSE(scale=50, budget=8)"].purifier.rounds[0].guidance.scale == 50
    assert rows["gdmp guidance=None"].purifier.rounds[0].guidance is None


def test_chosen_rows_keep_their_blocks_and_have_a_folder_of_their_own() -> None:
    from adpur.cli.run import parse

    cli = parse("test", ["-c", "purifiers_digits", "--trainer.logger=false", "--only=gns,ddim"])
    assert list(cli.model.rows) == ["gns", "ddim"]
    blocks = {
        c.block.name: c.block.rows
        for c in cli.trainer.callbacks
        if type(c).__name__ == "Robustness"
    }
    assert blocks == {"bpda": None, "pgd": None, "surrogate": ("gns",)}
    assert cli.folder == Path("runs/purifiers_digits-gns,ddim")


def test_a_sweep_becomes_rows_wherever_its_row_is_named() -> None:
    from adpur.cli.run import parse

    vary = "--vary={diffpure: {t: [60, 100], eta: [0, 1]}}"
    cli = parse("test", ["-c", "ssni_digits", "--trainer.logger=false", vary])
    names = [f"diffpure t={t} eta={eta}" for t in (60, 100) for eta in (0, 1)]
    assert list(cli.model.rows) == ["undefended", *names, "ssni-n", "addt"]
    last = cli.model.rows["diffpure t=60 eta=0"].purifier
    assert last.level.t == 60 and last.step.eta == 0
    blocks = {
        c.block.name: c.block for c in cli.trainer.callbacks if type(c).__name__ == "Robustness"
    }
    assert blocks["bpda"].rows == (*names, "ssni-n", "addt")


@pytest.mark.parametrize("file", sorted(shipped_configs().glob("*.yaml")), ids=lambda f: f.stem)
def test_every_shipped_config_instantiates(file: Path, away: Path) -> None:
    """Networks of full size on the meta device, those that are loaded as tiny ones in their place."""
    from adpur.cli.run import parse

    if file.stem == "undefended_cifar10" and "ADPUR_CIFAR10_CLASSIFIER" not in os.environ:
        pytest.skip("ADPUR_CIFAR10_CLASSIFIER is not set")
    for folder in set(re.findall(r"runs/weights/cifar10\w*", file.read_text())):
        tiny_cifar_weights(away / folder)
    for name in re.findall(r"runs/weights/(digits/[\w-]+-\d)", file.read_text()):
        shutil.copytree(find_weights("digits/diffusion"), away / "runs/weights" / name)
    head = file.read_text().splitlines()[0]
    stage = head.removeprefix("# ").split(":")[0]
    with torch.device("meta") if stage == "fit" else torch.device("cpu"):
        cli = parse(stage, ["-c", file.stem, "--trainer.logger=false"])
    assert cli.folder == Path("runs") / file.stem


def tiny(away: Path) -> None:
    """The shipped config without its last row, the attacks cut to two steps."""
    text = Path(resolve_config("ssni_digits")).read_text().replace(", addt]", "]")
    text = re.sub(r"      addt:\n(        .*\n)+", "", text)
    text = text.replace("steps: 20, eot: 5", "steps: 2, eot: 1").replace(
        "draws: 10", "draws: 2\n    trust: none"
    )
    (away / "tiny.yaml").write_text(text)


def test_a_run_prints_its_table_and_again_and_beside_another(
    away: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny(away)
    assert main(["test", "-c", "tiny", *FAST, "--model.rows=4"]) == 0
    said = capsys.readouterr().out
    assert "| ssni-n " in said and "pgd, eps 0.2" in said and "runs/tiny/rows-*.jsonl" in said
    assert "ssni-n / pgd / 0.2: score norms tell attacked from clean with AUC 1.0" in said
    assert sorted(p.name for p in (away / "runs/tiny/figures").iterdir()) == [
        "gallery-diffpure-bpda-0.2.png",
        "gallery-diffpure-pgd-0.2.png",
        "gallery-ssni-n-bpda-0.2.png",
        "gallery-ssni-n-pgd-0.2.png",
        "gallery-undefended-pgd-0.2.png",
        "score_norm-ssni-n.png",
        "t-ssni-n.png",
    ]
    rows = (away / "runs/tiny/rows-0.jsonl").read_text()
    assert main(["test", "-c", "tiny", *FAST, "--model.rows=4"]) == 0
    assert (away / "runs/tiny/rows-0.jsonl").read_text() == rows
    assert "| ssni-n " in capsys.readouterr().out

    code, told = answer(capsys, "test", "-c", "tiny", *FAST, "--model.rows=4", "--model.seed=1")
    assert code == 2 and "seed: 0 -> 1" in told and "--fresh" in told
    assert (away / "runs/tiny/rows-0.jsonl").read_text() == rows
    assert main(["test", "-c", "tiny", *FAST, "--model.rows=4", "--model.seed=1", "--fresh"]) == 0
    assert (away / "runs/tiny.1/rows-0.jsonl").read_text() == rows

    capsys.readouterr()
    assert main(["report", "runs/tiny", "runs/tiny.1", "--out", "both"]) == 0
    said = capsys.readouterr().out
    assert "| tiny: ssni-n " in said and "| tiny.1: ssni-n " in said
    assert len((away / "both/table.csv").read_text().splitlines()) == 1 + 2 * 10
    assert main(["report", "runs/tiny", "--against", "diffpure"]) == 0
    said = capsys.readouterr().out
    assert said.count("| ssni-n - diffpure ") == 4 and said.count("| undefended - diffpure ") == 2


def test_predict_purifies_a_folder(away: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from adpur import Defense, Digits, Noise, ddpm, pretrained

    source = away / "in"
    source.mkdir()
    x, _, _ = Digits().stacked("test")
    pixels = (x[:3] * 255).round().byte()
    names = ["0.png", "1.jpeg.png", "2.png"]
    for k in range(3):
        write_png(pixels[k], str(source / names[k].removesuffix(".jpeg.png")))
    (source / "1").rename(source / "1.jpeg")
    files = sorted(source.iterdir())
    keys = [int(hashlib.sha256(f.read_bytes()).hexdigest()[:8], 16) for f in files]
    assert main(["predict", "-c", "ssni_digits", "in", "out", "--row", "diffpure"]) == 0
    defense = Defense(ddpm(100, 20), pretrained("digits/classifier", "digits/diffusion"))
    with torch.no_grad():
        out = defense(pixels / 255, Noise(torch.tensor(keys)))
    lines = (away / "out" / "predictions.csv").read_text().splitlines()
    found = [line.split(",") for line in lines]
    assert found[0] == ["file", "class", "level"]
    assert found[1:] == [
        [file.name, str(int(out.logits[k].argmax())), "100"] for k, file in enumerate(files)
    ]
    for k in range(3):
        want = (out.image[k].clamp(0, 1) * 255).round().byte()
        assert torch.equal(decode_image(str(away / "out" / names[k])), want)
    capsys.readouterr()

    code, told = answer(capsys, "predict", "in", "in")
    assert code == 2 and "in is the source" in told
    write_png(torch.zeros(1, 9, 9, dtype=torch.uint8), str(source / "big.png"))
    code, told = answer(capsys, "predict", "in", "out")
    assert code == 2 and "big.png: expected an image of (1, 8, 8) (C, H, W), got (1, 9, 9)" in told
    (source / "big.png").write_bytes(b"no image")
    code, told = answer(capsys, "predict", "in", "out")
    assert code == 2 and "big.png cannot be decoded" in told


def test_ctrl_c_exits_130_and_the_same_command_continues(
    away: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from adpur.lit.test.robustness import Robustness

    tiny(away)
    argv = ["test", "-c", "tiny", *FAST, "--model.rows=4", "--data.batch_size=2"]
    plain = Robustness.on_test_batch_end

    def stop(self, trainer, module, outputs, batch, batch_idx, dataloader_idx=0):
        if batch_idx == 1:
            raise KeyboardInterrupt
        plain(self, trainer, module, outputs, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(Robustness, "on_test_batch_end", stop)
        code, told = answer(capsys, *argv)
    assert code == 130 and "the same command continues" in told
    kept = (away / "runs/tiny/rows-0.jsonl").read_text()
    assert kept
    assert main(argv) == 0
    assert (away / "runs/tiny/rows-0.jsonl").read_text().startswith(kept)


def test_shards_of_a_cluster_array_make_one_table(
    away: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shipped batch script, with SLURM's variables and a launcher set by hand."""
    tiny(away)
    script = shipped_configs() / "slurm" / "sweep.sbatch"
    subprocess.run(["bash", "-n", script], check=True)
    launch = away / "launch"  # in place of srun: writes down the words it was given
    launch.write_text('#!/bin/bash\nshift\nprintf "%s\\n" "$@" > words\n')
    launch.chmod(0o755)
    more = ["-c", "tiny", *FAST, "--model.rows=4", "--data.batch_size=2"]
    said = []
    for task in ("4", "5"):
        array = {"ID": task, "COUNT": "2", "MIN": "4"}
        slurm = {f"SLURM_ARRAY_TASK_{k}": v for k, v in array.items()}
        env = os.environ | slurm | {"ADPUR_LAUNCH": str(launch)}
        subprocess.run(["bash", script, *more], env=env, check=True)
        assert main((away / "words").read_text().splitlines()) == 0
        said.append(capsys.readouterr().out)
    rest = f"adpur test {' '.join(more)} --trainer.devices=1"
    assert "shard 1/2 is done, 2 of 4 images are; the table" in said[0]
    assert said[0].strip().endswith(rest) and "| ssni-n " not in said[0]
    assert "| ssni-n " in said[1]
    assert main(["test", *more, "--shard", "3/3"]) == 0
    assert "shard 3/3 has nothing to do" in capsys.readouterr().out


def test_a_dry_run_touches_no_folder(away: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny(away)
    assert main(["test", "-c", "tiny", *FAST, "--model.rows=4", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "4 images, 3 rows, 8 columns; network calls of 4 rows" in said
    assert "\nall  " in said and "An estimate: " in said and "memory: " in said
    assert sorted(p.name for p in away.iterdir()) == ["tiny.yaml"]


def test_a_read_only_folder_stops_with_the_path(
    away: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny(away)
    Path("runs").write_text("a file where a folder should be")
    code, told = answer(capsys, "test", "-c", "tiny", *FAST, "--run", "runs/tiny")
    assert code == 2 and "manifest.json (Not a directory)" in told


def test_python_m_adpur() -> None:
    out = subprocess.run(
        [sys.executable, "-m", "adpur"], capture_output=True, text=True, env=os.environ
    )
    assert out.returncode == 2 and "usage: adpur COMMAND" in out.stdout


TWO = [sys.executable, "-m", "adpur", "test", "-c", "tiny", *FAST, "--model.rows=4",
       "--data.batch_size=2", "--trainer.devices=2", "--trainer.strategy=ddp"]  # fmt: skip


def test_two_processes_end_with_one_table(away: Path) -> None:
    """The real launcher: the second process runs the same command line again."""
    tiny(away)
    done = subprocess.run(TWO, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("| ssni-n ") == 1
    assert len(list((away / "runs" / "tiny").glob("rows-*.jsonl"))) == 2


@pytest.mark.slow  # two more imports of the stack, one after the other
def test_two_processes_refuse_together(away: Path) -> None:
    tiny(away)
    for seed, code in ((0, 0), (1, 2)):
        argv = [*TWO, f"--model.seed={seed}"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=300)
        assert done.returncode == code
    assert "seed: 0 -> 1" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["ddp", "torchrun"])
@pytest.mark.parametrize("victim", ["0", "1"])
def test_a_lost_process_ends_the_others_in_one_line(launcher: str, victim: str, away: Path) -> None:
    """Real launchers, real `kill -9`; the same command then finishes."""
    tiny(away)
    agent = ["-m", "torch.distributed.run", "--nproc_per_node=2"] if launcher != "ddp" else []
    argv = [sys.executable, *agent, "-m", "adpur", "test", "-c", "tiny", *FAST[:2],
            "--data.limit=16", "--data.batch_size=1", "--model.rows=4", "--trainer.devices=2",
            "--trainer.strategy=ddp"]  # fmt: skip
    with (away / "said").open("w") as said:
        run = subprocess.Popen(argv, stdout=said, stderr=said)
    folder = away / "runs/tiny"
    while len(list(folder.glob("rows-*.jsonl"))) < 2:
        assert run.poll() is None
        time.sleep(0.05)
    ranks = processes(run.pid)
    os.kill(ranks[victim], signal.SIGKILL)
    start = time.monotonic()
    assert run.wait(60) != 0
    while any(alive(pid) for pid in ranks.values()):
        assert time.monotonic() - start < 60
        time.sleep(0.1)
    lines = (away / "said").read_text().splitlines()
    assert [line for line in lines if line.startswith("adpur: ")] == [
        f"adpur: error: process {victim} of 2 was lost; the same command continues"
    ]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout.count("| ssni-n ") == 1


def processes(parent: int) -> dict[str, int]:
    """Pids by rank of the processes under and including one."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            pid, above = int(stat.parent.name), int(stat.read_text().rsplit(")", 1)[1].split()[1])
            words = (stat.parent / "cmdline").read_text().split("\0")
            if parent in (pid, above) and "torch.distributed.run" not in words:
                env = (stat.parent / "environ").read_text().split("\0")
                rank = [v.split("=")[1] for v in env if v.startswith("LOCAL_RANK=")]
                if "adpur" in words:
                    found[rank[0] if rank else "0"] = pid
    return found


def alive(pid: int) -> bool:
    """Neither gone nor a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_sigterm_exits_143(away: Path) -> None:
    tiny(away)

    def work() -> None:
        from adpur.lit.test.robustness import Robustness

        plain = Robustness.on_test_batch_end

        def send(self, *args, **kwargs):
            os.kill(os.getpid(), signal.SIGTERM)
            plain(self, *args, **kwargs)

        Robustness.on_test_batch_end = send
        os._exit(main(["test", "-c", "tiny", *FAST, "--model.rows=4"]))

    assert in_child(work) == 143
    rows = (away / "runs/tiny/rows-0.jsonl").read_text().splitlines()
    assert len(rows) == 3 * 4
