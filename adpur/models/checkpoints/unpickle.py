"""Other people's checkpoints, read without ever running what they hold.

A pickle is a program that names functions and calls them. Here a name is looked up in a list of
this module; everything a network of EDM needs besides is an inert `Record`, and any other name is
refused. Source code that EDM stores beside its weights is left unread.
"""

import io
import pickle
import pickletools
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adpur.errors import ConfigError

INERT = re.compile(
    r"torch\.nn\.modules\.\w+|torch\.(device|dtype|Size|float\w+|bfloat16|u?int\d+)|"
    r"numpy(\.core|\._core)?\.(multiarray\.)?(scalar|dtype|ndarray|_reconstruct)|"
    r"(training|torch_utils|dnnlib)\.\w+|builtins\.object"
)
"""Names (module.name, class name cut off for torch.nn) that become records, whatever is called."""

MEMO = {"PUT", "BINPUT", "LONG_BINPUT"}
NESTED, TENSORS = 20, 50_000
"""Of modules in one another, and of tensors in a network; EDM's have 4 and under 1,000."""


class Record:
    """What a pickle says of an object: its class's name and its state, nothing that acts."""

    kind = ""
    state: Any = None

    def __new__(cls, *args: Any, **kwargs: Any) -> "Record":
        """Take any arguments and ignore them."""
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        """Keep it as it is."""
        self.state = state

    def part(self, name: str) -> dict[str, Any]:
        """A dictionary in the state of a module, such as `_modules`; empty if it has none."""
        found = self.state.get(name) if isinstance(self.state, dict) else None
        return found if isinstance(found, dict) else {}

    def tensors(self, prefix: str = "", above: tuple["Record", ...] = ()) -> dict[str, Tensor]:
        """Every parameter and buffer below, by the name a state dict would give it.

        Raises:
            ValueError: for modules nested deeper, or tensors more, than any network's: a record may
                stand in many places, itself inside itself included.
        """
        if len(above) > NESTED or any(self is record for record in above):
            raise ValueError(f"modules nested more than {NESTED} deep, or in themselves")
        found = {
            prefix + name: value
            for name, value in (self.part("_parameters") | self.part("_buffers")).items()
            if isinstance(value, Tensor)
        }
        for name, child in self.part("_modules").items():
            if isinstance(child, Record):
                found |= child.tensors(f"{prefix}{name}.", (*above, self))
            if len(found) > TENSORS:
                raise ValueError(f"more than {TENSORS} tensors")
        return found


class Restricted(pickle.Unpickler):
    """An unpickler that can build tensors, dictionaries and records, and can call nothing else."""

    def __init__(self, stream: Any, where: str) -> None:
        super().__init__(stream)
        self.where = where

    def find_class(self, module: str, name: str) -> Any:
        """What a global name means here; a fresh object, so that no pickle can alter ours."""
        full = f"{module}.{name}"
        if full in CALLED:
            return partial(CALLED[full])
        if full in ("collections.OrderedDict", "dnnlib.util.EasyDict"):
            return OrderedDict if module == "collections" else type(name, (dict,), {})
        if INERT.fullmatch(full) or INERT.fullmatch(module):
            return type(name, (Record,), {"kind": full})
        raise ConfigError(
            f"{self.where}: refused, it would call {full}, which no network needs; expected an "
            "EDM network pickle, and nothing of this file was run"
        )

    def persistent_load(self, pid: Any) -> Any:
        """Refuse storages kept outside the pickle: EDM has none."""
        raise ConfigError(f"{self.where}: not an EDM network pickle (external object {pid!r:.40})")


def read_pickle(file: Path) -> Any:
    """The content of an EDM `.pkl`; networks are `Record`s, weights tensors on the CPU."""
    try:
        with file.open("rb") as stream, mmap(stream.fileno(), 0, access=ACCESS_READ) as code:
            _bounded(code)
            code.seek(0)
            return Restricted(code, str(file)).load()
    except ConfigError:
        raise
    except Exception as error:  # a broken pickle can fail in any way
        raise ConfigError(
            f"{file}: not a complete EDM pickle ({_line(error)}); fetch it again"
        ) from error


def _bounded(code: mmap) -> None:
    """Refuse a pickle whose instructions claim more memory than they bring.

    Python's unpickler allocates what a length or a memo index says before it looks for content: 9
    bytes can take gigabytes. Pickles number their memos one by one, so an index above the count of
    instructions is no pickler's. `genops` reads arguments without acting on them, and raises
    ValueError where the file holds fewer bytes than an instruction claims.
    """
    for count, (instruction, given, _) in enumerate(pickletools.genops(code)):  # type: ignore[arg-type]
        argument: Any = given
        if instruction.name in MEMO and argument > count:
            raise ValueError(f"a memo index of {argument} after {count} instructions")
        if instruction.name == "FRAME" and argument > len(code):
            raise ValueError(f"a frame of {argument} bytes in a file of {len(code)}")


def read_torch(file: Path) -> Any:
    """The content of a `torch.save` file of tensors and plain containers, on the CPU."""
    _unpacks(file)
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # likewise
        raise ConfigError(
            f"{file}: refused, expected a torch checkpoint of tensors and plain containers, and "
            f"nothing of this file was run ({_line(error)})"
        ) from error


def _unpacks(file: Path) -> None:
    """Refuse a compressed archive: torch stores tensors as they are, and a bomb would not."""
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as archive:
        whole = sum(entry.file_size for entry in archive.infolist())
    if whole > 2 * file.stat().st_size + 2**20:
        raise ConfigError(
            f"{file}: refused, {file.stat().st_size:,} bytes whose archive unpacks to {whole:,}; "
            "torch.save never compresses"
        )


def check_storage(state: Mapping[str, Any], where: str) -> None:
    """Refuse tensors with more elements than their storage holds: copies of them could be endless.

    Raises:
        ConfigError: naming the first.
    """
    for name, value in state.items():
        if isinstance(value, Tensor) and value.layout == torch.strided:
            held = value.untyped_storage().nbytes()
            if value.numel() * value.element_size() > held:
                raise ConfigError(
                    f"{where}: {name} of {tuple(value.shape)} repeats the {held} bytes of its "
                    "storage; no network's weights do"
                )
        elif isinstance(value, Tensor):
            raise ConfigError(f"{where}: {name} expected a dense tensor, found {value.layout}")


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def _persistent(meta: Any) -> Record:
    """EDM's persistent object: class name and state; the module's source stays unread."""
    fields = meta if isinstance(meta, dict) else {}
    record = type("Persistent", (Record,), {"kind": str(fields.get("class_name"))})()
    record.state = fields.get("state")
    return record


def _storage(content: bytes) -> Any:
    """A storage inside a pickle is a torch file of its own."""
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _empty(kind: Any, *args: Any) -> Any:
    """`copyreg._reconstructor`, of records only."""
    if not (isinstance(kind, type) and issubclass(kind, Record)):
        raise TypeError(f"expected a class, got {kind!r:.40}")
    return kind()


CALLED: dict[str, Callable[..., Any]] = {
    "torch_utils.persistence._reconstruct_persistent_obj": _persistent,
    "torch.storage._load_from_bytes": _storage,
    "torch._utils._rebuild_tensor_v2": torch._utils._rebuild_tensor_v2,
    "torch._utils._rebuild_parameter": torch._utils._rebuild_parameter,
    "copyreg._reconstructor": _empty,
    "builtins.set": set,
}
"""The functions a pickle may call; those of torch are on its own list of safe ones."""
