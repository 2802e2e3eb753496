"""On whose arithmetic a run's rows were computed: what last bits depend on besides R and dtype.

A run may be continued anywhere. What that does to its numbers falls into three kinds:

* another instruction set, graphics card or version of adpur: the run goes on, and is marked;
* another kind of device, precision or release of torch: refused, unless `--mixed`; then marked;
* another R or dtype: another run.

Measured on 768 predictions of a digits run, between instruction sets: none differs; margins differ
by 1e-5, once by .14 where an attack had followed BPDA's gradient to another point.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRICT = ("arithmetic.dtype",)
"""What makes another run of it, as another R does."""
FORBIDDEN = (
    "arithmetic.device", "arithmetic.matmul", "arithmetic.cudnn_tf32",
    "arithmetic.cudnn_deterministic", "arithmetic.cudnn_benchmark", "arithmetic.deterministic",
    "arithmetic.compiled", "versions.torch",
)  # fmt: skip
"""What no session of a run may change without `--mixed`."""
LEVELS = ("SSE41", "AVX", "AVX2", "AVX512")
"""Instruction sets that change how oneDNN computes fp32, each within the next."""
UNKNOWN = "not recorded"
WORDS = {2: "two", 3: "three", 4: "four"}


def in_use(device: torch.device, nets: Iterable[nn.Module]) -> dict[str, Any]:
    """The arithmetic of this process: of its device, under torch's flags as they are now set."""
    told = {
        "dtype": "float32",
        "device": device.type,
        "matmul": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "compiled": any(_compiled(part) for net in nets for part in net.modules()),
    }
    return told | (_of_processor() if device.type == "cpu" else _of_card(device))


def forbidden(
    before: Mapping[str, Any], now: Mapping[str, Any], paths: Iterable[str] = FORBIDDEN
) -> Iterator[str]:
    """What a session may not change, as `device: cpu -> cuda`; what is not recorded is let pass.

    Args:
        before: `arithmetic` and `versions` of the run.
        now: of the session.
        paths: where to look.
    """
    for path in paths:
        part, _, key = path.partition(".")
        old, new = (told.get(part, {}) for told in (before, now))
        if key in old and key in new and old[key] != new[key]:
            yield f"{key}: {old[key]} -> {new[key]}"


class Computed(NamedTuple):
    """How many images each arithmetic computed, and what a reader must be told of it.

    An image some of whose columns were computed here and some there counts in both.

    Attributes:
        images: by the name of the arithmetic, `AVX2` or `cuda NVIDIA H100`.
        marks: sentences; none where all was computed alike.
        mixed: whether devices, precisions or releases of torch differ, not last bits alone.
    """

    images: dict[str, int]
    marks: tuple[str, ...] = ()
    mixed: bool = False

    @classmethod
    def of(cls, sessions: list[tuple[dict[str, Any], set[int]]]) -> "Computed":
        """Of sessions, each what it said of itself and the images it computed."""
        told = [session for session, _ in sessions]
        known = [session.get("arithmetic") for session in told]
        images = _count(sessions, _names(known))
        marks = [_sentence(images, known)] if len(images) > 1 else []
        for package, hint in HINTS.items():
            by = _count(sessions, [s.get("versions", {}).get(package, UNKNOWN) for s in told])
            if len(by) > 1:
                listed = " and ".join(f"{package} {v} ({n} images)" for v, n in by.items())
                marks.append(f"rows were computed by {listed}: see {hint}")
        mixed = any(any(forbidden(one, two)) for one in told for two in told)
        return cls(images, tuple(marks), mixed)

    def __str__(self) -> str:
        return "; ".join(f"{name}: {count} images" for name, count in self.images.items())


HINTS = {
    "torch": "its release notes; last bits differ",
    "adpur": "Numbers in its CHANGELOG",
}


def _sentence(images: Mapping[str, int], told: list[dict[str, Any] | None]) -> str:
    """What it means that more than one arithmetic computed a run."""
    many = WORDS.get(len(images), str(len(images)))
    listed = "; ".join(f"{name}: {count} images" for name, count in images.items())
    known = [{"arithmetic": one} for one in told if one is not None]
    means = "decisions are equal up to ties, last bits are not"
    if any(any(forbidden(one, two)) for one in known for two in known):
        what = f"on {many} kinds of device or precision"
        means = "decisions near a tie and all last bits differ between them"
    elif None in told:
        what = "on machines of which not all were recorded"
        means = "decisions are equal up to ties, last bits perhaps not"
    elif all(one["arithmetic"]["device"] != "cpu" for one in known):
        what = f"on {many} kinds of card"
    elif len({_name(one) for one in told}) == 1:
        what = f"on {many} makes of processor"
    else:
        what = f"under {many} instruction sets"
    return f"rows were computed {what} ({listed}): {means}"


def _count(sessions: list[tuple[dict[str, Any], set[int]]], names: Sequence[str]) -> dict[str, int]:
    """How many images the sessions of each name computed."""
    groups: dict[str, set[int]] = {}
    for name, (_, images) in zip(names, sessions, strict=True):
        groups.setdefault(name, set()).update(images)
    return {name: len(images) for name, images in groups.items()}


def _names(told: list[dict[str, Any] | None]) -> list[str]:
    """A name for each arithmetic, with the digits of its probe where others share the name."""
    bits: dict[str, set[str]] = {}
    for one in told:
        bits.setdefault(_name(one), set()).add((one or {}).get("bits", ""))
    return [
        f"{_name(one)} (bits {one['bits']})" if one and len(bits[_name(one)]) > 1 else _name(one)
        for one in told
    ]


def _name(told: Mapping[str, Any] | None) -> str:
    """What a person calls an arithmetic: AVX2, or cuda NVIDIA H100 with TF32."""
    if told is None:
        return UNKNOWN
    if told["device"] == "cpu":
        name, also = told["instructions"], told["onednn"]
        name += f" with oneDNN at {also}" if also not in (name, None) else ""
    else:
        name = f"{told['device']} {told['card']}"
    extras = [f"matmul {told['matmul']}"] if told["matmul"] != "highest" else []
    extras += [word for key, word in EXTRAS.items() if told.get(key)]
    return " ".join([name, f"({', '.join(extras)})"]) if extras else str(name)


EXTRAS = {
    "cudnn_tf32": "TF32 convolutions",
    "cudnn_benchmark": "cuDNN's choice by time",
    "cudnn_deterministic": "deterministic cuDNN",
    "deterministic": "deterministic",
    "compiled": "compiled",
}
"""Settings that are named where they are on."""


def _compiled(module: nn.Module) -> bool:
    """Whether torch.compile has been asked for a module, in place or around it."""
    in_place = getattr(module, "_compiled_call_impl", None) is not None
    return in_place or type(module).__name__ == "OptimizedModule"


def _of_card(device: torch.device) -> dict[str, Any]:
    """An accelerator, and cuDNN's flags where it is NVIDIA's."""
    if device.type != "cuda":
        return {"card": device.type}
    cudnn = torch.backends.cudnn
    return {
        "card": torch.cuda.get_device_name(device),
        "cudnn_tf32": cudnn.allow_tf32,
        "cudnn_deterministic": cudnn.deterministic,
        "cudnn_benchmark": cudnn.benchmark,
    }


def _of_processor() -> dict[str, Any]:
    """The instruction sets in use, of which `bits` is the proof."""
    return {
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "onednn": _onednn(),
        "bits": probe(),
    }


def _onednn() -> str | None:
    """The most that oneDNN uses: what the processor has, unless ONEDNN_MAX_CPU_ISA says less."""
    has: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    available = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not available or has.get("architecture") != "x86_64":
        return None
    found = (True, has.get("avx"), has.get("avx2"), _avx512(has))
    asked = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or "ALL"
    # AVX2_VNNI, AVX512_CORE_BF16 and AVX10 add to AVX2 and AVX512 nothing that fp32 uses
    asked = asked.upper().replace("AVX10", "AVX512")
    allowed = [k for k, level in enumerate(LEVELS) if asked.startswith(level)] or [len(LEVELS) - 1]
    return LEVELS[min(allowed[-1], max(k for k, one in enumerate(found) if one))]


def _avx512(has: Mapping[str, Any]) -> bool:
    """All of it that oneDNN's AVX512_CORE wants."""
    return all(has.get(f"avx512_{part}") for part in ("f", "bw", "vl", "dq"))


def probe() -> str:
    """Eight digits of what this processor makes of the operations that networks are made of.

    Two processors of one instruction set may still differ, by the kernels that MKL and oneDNN
    choose for their make and caches. Inputs are exact; one thread, as their number may not matter.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            results = _operations()
    finally:
        torch.set_num_threads(threads)
    digest = hashlib.sha256()
    for result in results:
        digest.update(result.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()[:8]


def _operations() -> tuple[Tensor, ...]:
    """A small network, and the gradient of its input."""
    x, conv, dense = _exact(16, 8, 8, 8), _exact(16, 8, 3, 3), _exact(10, 1024)
    x.requires_grad_(True)
    hidden = F.silu(F.group_norm(F.conv2d(x, conv, padding=1), 4))
    logits = F.linear(hidden.flatten(1), dense)
    loss = F.cross_entropy(logits, torch.arange(16) % 10)
    (gradient,) = torch.autograd.grad(loss, x)
    return hidden, logits, loss, gradient


def _exact(*shape: int) -> Tensor:
    """Numbers in [-1, 1) that fp32 holds exactly, whatever computes them."""
    count = torch.Size(shape).numel()
    return ((torch.arange(count) * 7919) % 1021 / 512 - 1).view(shape).float()
