"""The site and the README: every command and every piece of code on them, run page by page.

A block is told apart by its language: `sh` is commands, `python` runs in one namespace a page,
`yaml` is read. One whose first line is `# NAME.py` or `# NAME.yaml` is that file. A comment just
before a block says how the test keeps it short, and nothing else does:

    <!-- test: --data.limit=4 -->   words added to every adpur command of the block
    <!-- test: parse -->            needs weights, a cluster or hours: it is only read
"""

import argparse
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from cifar import tiny_cifar_weights
from tables import parts, stand_in
from torch import Tensor

import adpur
from adpur import CifarResNet
from adpur.attacks.attack import changed
from adpur.cli import main
from adpur.cli.entry import MODULES
from adpur.models.checkpoints.files import find_weights
from adpur.papers import analyse, reproduce
from adpur.shipped import resolve_config
from adpur.trust.finding import Level
from adpur.trust.report import probes, reviews

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"(?:^<!-- test: ([^\n]+) -->\n)?^(`{3,})(\S*)[^\n]*\n(.*?)^\2$", re.M | re.S)
DIRECTIVES = {"{eval-rst}", "{toctree}", "{include}"}
QUIET = ["--trainer.logger=false", "--trainer.enable_progress_bar=false"]
STAGES = ("fit", "validate", "test")
VARIABLES = ("ADPUR_CIFAR10", "ADPUR_CIFAR10_CLASSIFIER", "ADPUR_WEIGHTS_PATH")


class Block(NamedTuple):
    """A fenced block: its language, its text, what the comment before it says."""

    kind: str
    text: str
    told: str = ""

    @property
    def file(self) -> str | None:
        """The file it is."""
        found = re.match(r"# ([\w.-]+\.(?:py|yaml))\n", self.text)
        return found[1] if found else None


class Page:
    """Where a page's blocks run: a folder, the names of its Python, the variables it sets."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.patch, self.names, self.told = patch, {"__name__": "page"}, ""

    def run(self, block: Block) -> None:
        """Run one block, or fail where nobody knows how."""
        self.told = block.told
        if block.file:
            Path(block.file).write_text(block.text)
            sys.modules.pop(Path(block.file).stem, None)
        kinds = {"sh": self.shell, "python": self.python, "yaml": self.yaml, "text": self.output}
        assert block.kind in kinds, f"no way to test a block of {block.kind or 'no language'}"
        kinds[block.kind](block)

    def python(self, block: Block) -> None:
        if not block.file:
            with self.patch.context() as patch:
                patch.syspath_prepend(Path.cwd())
                exec(compile(block.text, "page", "exec"), self.names)

    def yaml(self, block: Block) -> None:
        for part in parts(yaml.safe_load(block.text)):
            path = str(part.get("class_path", ""))
            if path.startswith("adpur."):
                assert hasattr(adpur, path.removeprefix("adpur.")), path

    def output(self, block: Block) -> None:
        words = [line.split()[0] for line in block.text.splitlines() if line.strip()]
        assert not set(words) & set(self.words), "a command stands in a block of output"

    def shell(self, block: Block) -> None:
        for words in commands(block.text):
            self.command(words)

    def command(self, words: list[str]) -> None:
        if words[0] == "export":
            words = words[1:]
        while words and (found := re.fullmatch(r"(\w+)=(.*)", words[0])):
            if found[1] == "PYTHONPATH":
                self.patch.syspath_prepend(Path.cwd() / found[2])
            elif not (self.told == "parse" and found[1] in VARIABLES):  # stand-ins have theirs
                self.patch.setenv(found[1], found[2])
            words = words[1:]
        if words:
            assert words[0] in self.words, f"no way to test {shlex.join(words)}"
            self.words[words[0]](words[1:])

    @property
    def words(self) -> dict[str, Callable[[list[str]], None]]:
        """What a command may begin with."""
        return {
            "adpur": self.adpur, "python": self.run_python, "make": make, "pip": pip,
            "docker": files, "sbatch": self.sbatch, "bash": files, "cp": copy,
        }  # fmt: skip

    def adpur(self, words: list[str]) -> None:
        if self.told == "parse":
            return self.read(words)
        assert main([*words, *added(words), *self.told.split()]) == 0, shlex.join(words)

    def read(self, words: list[str]) -> None:
        """Parse a command whose weights, data or time are not here."""
        if words[0] in STAGES:
            parsed(words[0], words[1:])
        elif words[0] == "reproduce":
            table = reproduce.find(words[1])
            for name in table.networks:
                if not Path(name).exists():
                    stand_in(name, Path(name))
            parsed(table.stage, ["-c", str(table.file), *words[2:]])
        elif words[0] == "analyse":
            with self.patch.context() as patch:
                patch.setattr(analyse, "subjects", only_subjects)
                with pytest.raises(Parsed):
                    main(words)
        else:
            with self.patch.context() as patch:
                patch.setattr(argparse.ArgumentParser, "parse_args", only_parse)
                with pytest.raises(Parsed):
                    main(words)

    def run_python(self, words: list[str]) -> None:
        if words[0] == "-m" and words[1] == "adpur":
            self.patch.syspath_prepend(Path.cwd())  # as `python -m` does
            return self.adpur(words[2:])
        if words[:2] == ["-m", "venv"]:
            return None
        with self.patch.context() as patch:
            patch.setattr(sys, "argv", words[1:] if words[0] == "-m" else words)
            for name in (words[1], f"{words[1]}.__main__") if words[0] == "-m" else ():
                patch.delitem(sys.modules, name, raising=False)  # imported by another test
            if self.told == "parse":
                patch.setattr(argparse.ArgumentParser, "parse_args", only_parse)
                with pytest.raises(Parsed):
                    runpy.run_module(words[1], run_name="__main__", alter_sys=True)
            elif words[0] == "-m":
                patch.setattr(sys, "argv", [*words[1:], *self.told.split()])
                runpy.run_module(words[1], run_name="__main__", alter_sys=True)
            else:
                runpy.run_path(words[0], run_name="__main__")

    def sbatch(self, words: list[str]) -> None:
        """The script is there, and its stage takes what follows it."""
        (at,) = (n for n, word in enumerate(words) if word.endswith(".sbatch"))
        assert (ROOT / words[at]).is_file(), words[at]
        stage = "fit" if Path(words[at]).stem == "fit" else "test"
        parsed(stage, words[at + 1 :])


class Parsed(Exception):
    """A command line was read to its end."""


def only_parse(parser: argparse.ArgumentParser, argv: list[str] | None = None) -> None:
    parser.parse_known_args(sys.argv[1:] if argv is None else argv)
    raise Parsed


def only_subjects(config: str, flags: Sequence[str], limit: int, tell: object) -> None:
    parsed("test", ["-c", config, *flags])
    raise Parsed


def parsed(stage: str, words: list[str]) -> None:
    from adpur.cli.run import parse

    with torch.device("meta") if stage == "fit" else torch.device("cpu"):
        parse(stage, [*words, *QUIET, "--trainer.accelerator=cpu"])


def added(words: list[str]) -> list[str]:
    """A stage says nothing beside its table."""
    return QUIET if words[0] in STAGES else []


def make(words: list[str]) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    assert set(words) <= set(targets), words


def pip(words: list[str]) -> None:
    """Extras it names exist; nothing is installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert words[0] == "install"
    for extras in re.findall(r"\[([\w,]+)\]", " ".join(words)):
        assert set(extras.split(",")) <= set(project["optional-dependencies"])


def files(words: list[str]) -> None:
    """Of a script or a Dockerfile: it is in the repository."""
    named = [word for word in words if "/" in word and "=" not in word]
    assert named and all((ROOT / name).is_file() for name in named), words


def copy(words: list[str]) -> None:
    subprocess.run(["cp", *words], check=True)


def commands(text: str) -> Iterator[list[str]]:
    """Each command's words, without comments; `\\` continues a line, `&&` ends a command."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words:
            end = words.index("&&") if "&&" in words else len(words)
            yield words[:end]
            words = words[end + 1 :]


def blocks(text: str) -> list[Block]:
    found = (Block(kind, body, told or "") for told, _, kind, body in FENCE.findall(text))
    return [block for block in found if block.kind not in DIRECTIVES]


def prose(text: str) -> str:
    """What is outside of blocks."""
    return FENCE.sub("", text)


def brief(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """An attack of two steps and two copies: what is tested is that the page works."""

    def briefly(attack: adpur.Attack, *asked: Any) -> Tensor:
        few = changed(attack, steps=lambda n: min(n, 2), eot=lambda n: min(n, 2))
        return run(few, *asked)

    return briefly


@pytest.fixture
def page(away: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    """A folder with stand-ins for the networks that hours of a GPU would leave."""
    monkeypatch.setenv("WANDB_MODE", "disabled")
    for kind in (adpur.PGD, adpur.APGD, adpur.Square):
        monkeypatch.setattr(kind, "run", brief(kind.run))
    held, path = set(sys.modules), list(sys.path)
    yield Page(monkeypatch)
    for name in set(sys.modules) - held:
        if getattr(sys.modules[name], "__file__", None) in map(str, away.glob("*.py")):
            del sys.modules[name]
    sys.path[:] = path


def stand_ins(away: Path, patch: pytest.MonkeyPatch) -> None:
    for name in ("cifar10", "cifar10_full"):
        tiny_cifar_weights(away / "runs/weights" / name)
    torch.save({"state_dict": CifarResNet(blocks=1).state_dict()}, away / "net.th")
    patch.setenv("ADPUR_CIFAR10", "unread")
    patch.setenv("ADPUR_CIFAR10_CLASSIFIER", str(away / "net.th"))
    for name in ("clean-0", "clean-1", "addt-1"):
        shutil.copytree(find_weights("digits/diffusion"), away / "runs/weights/digits" / name)


NAMED = [pytest.param(file, id=str(file.relative_to(ROOT))) for file in PAGES]


@pytest.mark.parametrize("file", [p for p in NAMED if blocks(p.values[0].read_text())])
def test_a_page_does_what_it_says(
    file: Path, page: Page, away: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = blocks(file.read_text())
    if any(block.told == "parse" for block in found):
        stand_ins(away, monkeypatch)
    for block in found:
        page.run(block)


@pytest.mark.parametrize("file", NAMED)
def test_nothing_is_hidden_from_the_tests(file: Path) -> None:
    """No command outside of a block that is run, no comment that belongs to no block."""
    rest = prose(file.read_text())
    assert not re.findall(r"^(?: {4,}|\t| *\$ ).*", rest, re.M)
    assert "```" not in rest and "<!-- test" not in rest and "~~~" not in rest
    for command in re.findall(r"`(adpur [^`]+)`", rest):
        words = shlex.split(command)
        assert words[1] in {*STAGES, *MODULES, "configs", "--help"} or words[1].isupper(), command
        if words[1] == "reproduce" and words[2:]:
            assert reproduce.find(words[2])
        if words[1] == "analyse" and words[2:] and not words[2].isupper():
            assert analyse.find(words[2])
        for flag, name in pairwise(words):
            if flag == "-c" and not name.isupper() and not name.startswith("mine"):
                assert resolve_config(name)
    for target in re.findall(r"`make ([a-z-]+)`", rest):
        make([target])


def test_the_readmes_links_lead_somewhere() -> None:
    """The site's own are the build's affair."""
    links = re.findall(r"\]\(([^)#]+)", (ROOT / "README.md").read_text())
    assert len(links) > 10
    for link in links:
        assert (ROOT / link).is_file(), link


def test_the_gallery_shows_every_figure() -> None:
    text = (ROOT / "docs/gallery.md").read_text()
    drawn = re.findall(r"^adpur analyse (\S+)", text, re.M)
    assert {analyse.find(name) for name in drawn} == set(analyse.ANALYSES.values())
    for name, kind in re.findall(r"\((gallery/\S+)\.(png|csv)\)", text):
        assert (ROOT / f"docs/{name}.{kind}").stat().st_size > 100


def test_every_check_of_the_trust_report_has_its_section() -> None:
    text = (ROOT / "docs/trust-report.md").read_text()
    wanted = [f"{c.check} {c.title}" for c in (*probes(Level.FULL), *reviews(Level.FULL))]
    assert sorted(re.findall(r"^### (T.+)$", text, re.M)) == sorted(wanted)


@pytest.mark.parametrize(
    ("block", "said"),
    [
        (Block("sh", "adpur tset -c ssni_digits\n"), "tset"),
        (Block("sh", "adpur report nowhere\n"), "nowhere"),
        (Block("sh", "adpur test -c ssni_digits --data.limt=4\n", "parse"), "limt"),
        (Block("sh", "adpur calibrate --wrong\n", "parse"), ""),
        (Block("sh", "adpur analyse norm-eps -c ssni_digits --epz=1\n", "parse"), "DID NOT RAISE"),
        (Block("sh", "make coffee\n"), "coffee"),
        (Block("sh", "rm -rf runs\n"), "no way to test rm -rf runs"),
        (Block("sh", "sbatch configs/slurm/none.sbatch\n"), "none.sbatch"),
        (Block("python", "import adpur\nadpur.Nothing\n"), "Nothing"),
        (Block("yaml", "a: {class_path: adpur.Nothing}\n"), "Nothing"),
        (Block("console", "adpur configs\n"), "no way to test a block of console"),
        (Block("text", "adpur configs\n"), "block of output"),
    ],
)
def test_what_is_wrong_fails(block: Block, said: str, page: Page) -> None:
    failures = (
        AssertionError,
        AttributeError,
        adpur.ConfigError,
        SystemExit,
        pytest.fail.Exception,
    )
    with pytest.raises(failures) as failed:
        page.run(block)
    assert said in str(failed.value)


def test_what_a_comment_adds_is_given_to_the_command(page: Page) -> None:
    page.run(Block("sh", "adpur calibrate digits/diffusion\n", "parse"))
    page.run(Block("sh", "adpur \\\n  configs # a comment\n"))
    with pytest.raises(SystemExit):
        page.run(Block("sh", "adpur weights digits/diffusion\n", "--no-such-flag"))
