"""What is shipped: the wheel elsewhere, the two install files."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import adpur

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    subprocess.run([*command, str(ROOT)], check=True, capture_output=True)
    (file,) = out.glob("*.whl")
    zipfile.ZipFile(file).extractall(out / "site")
    return out / "site"


def test_the_wheel_works_from_any_folder(wheel: Path, tmp_path: Path) -> None:
    script = (
        "import adpur, sys; from adpur.cli import main; from adpur.shipped import resolve_config; "
        "from adpur.models.checkpoints.files import find_weights; "
        "print(adpur.__file__); print(resolve_config('ssni_digits')); "
        "print(resolve_config('ssni-table4')); "
        "print(find_weights('digits/diffusion') / 'unet')"
    )
    out = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(wheel)!r}); {script}"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for line in out.stdout.splitlines():
        assert line.startswith(str(wheel)) and Path(line).exists()


def test_the_wheel_holds_no_tests(wheel: Path) -> None:
    assert {p.name for p in wheel.iterdir() if not p.name.endswith(".dist-info")} == {"adpur"}
    assert (wheel / "adpur" / "py.typed").exists()


def test_every_dependency_is_pinned_without_addresses() -> None:
    pins = (ROOT / "constraints.txt").read_text()
    names = {line.split("==")[0].lower().replace("_", "-") for line in pins.split()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]
    for requirement in wanted:
        assert re.split(r"[>=\[]", requirement)[0].lower().replace("_", "-") in names
    assert "://" not in pins and "@" not in pins


def test_a_public_name_means_one_thing() -> None:
    names = [name for home in adpur._HOMES.values() for name in home]
    assert sorted(names) == adpur.__all__
