"""Where shipped files are; no torch."""

import os
from importlib import resources
from pathlib import Path

from adpur.errors import ConfigError


def shipped_configs() -> Path:
    """The folder of shipped configs, in a checkout as in an installed wheel."""
    return Path(str(resources.files("adpur"))) / "configs"


def shipped_papers() -> Path:
    """The folder of the papers' tables, one config each, with the values they expect."""
    return shipped_configs() / "papers"


def resolve_config(value: str) -> str:
    """The file a config name means: in the working folder, $ADPUR_CONFIG_PATH, or shipped.

    Text that is YAML itself, standard input and absolute paths pass unchanged.
    """
    if "\n" in value or value == "-" or os.path.isabs(value):
        return value
    extra = filter(None, os.environ.get("ADPUR_CONFIG_PATH", "").split(os.pathsep))
    shipped = (shipped_configs(), shipped_papers())
    for base in (Path.cwd(), *map(Path, extra), *shipped):
        for file in (base / value, base / f"{value}.yaml"):
            if file.is_file():
                return str(file)
    import difflib

    names = [file.stem for folder in shipped for file in sorted(folder.glob("*.yaml"))]
    near = difflib.get_close_matches(value.removesuffix(".yaml"), names) or names
    raise ConfigError(f"no config {value!r}; nearest: {', '.join(near)} (adpur configs lists all)")
