"""Known checkpoints, fetched when asked for: from Hugging Face, or from an address that is given.

A folder appears whole or not at all: files are checked and loaded beside it before it is named.
"""

import json
import os
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from adpur.errors import ConfigError
from adpur.models.checkpoints.catalogue import UNKNOWN, Checkpoint, sha256
from adpur.models.checkpoints.convert import Said, convert
from adpur.models.checkpoints.json_file import write_json
from adpur.models.checkpoints.zoo import load_classifier, load_denoiser

RECORD = "fetched.json"
"""What a fetched folder says of its origin: repository and commit or address, and sha256."""
PIECE = 2**20


@dataclass(frozen=True)
class Asked:
    """What the caller says beside the name.

    Attributes:
        url: an address to fetch the file from, instead of Hugging Face.
        sha256: the file must have it.
        revision: a branch, tag or commit on Hugging Face.
    """

    url: str | None = None
    sha256: str | None = None
    revision: str | None = None


def fetch(known: Checkpoint, folder: Path, asked: Asked = Asked()) -> Iterator[str]:
    """Fetch a checkpoint into a folder that adpur loads, saying what is done.

    Raises:
        ConfigError: where it cannot be reached, or is not what it should be; no folder is left.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        yield f"{known.name} is there: {folder}"
        return
    yield f"{known.name}: {known.source}"
    yield f"licence: {known.licence}"
    if not (asked.url or known.repo):
        raise ConfigError(
            f"{known.name} is not on Hugging Face; find {known.file} at {known.source}, and write "
            f"adpur fetch {known.name} --url ADDRESS"
        )
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield from (_from_url if asked.url else _from_hub)(known, part, asked)
        yield from _loads(part)
        folder.parent.mkdir(parents=True, exist_ok=True)
        part.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    yield f"ready: {folder}"


def _from_hub(known: Checkpoint, part: Path, asked: Asked) -> Iterator[str]:
    """The files of one commit; huggingface_hub caches them and goes on where it was cut off."""
    commit, sums = _commit(known, asked.revision or known.revision)
    yield f"revision: {commit}"
    record = {"repo": known.repo, "revision": commit}
    for name in known.files:
        place = _downloaded(known.repo, name, commit)
        digest = sha256(place)
        wanted = sums.get(name) if name != known.file else _wanted(known, asked, sums.get(name))
        _check(f"{known.repo}/{name}", digest, wanted)
        shutil.copyfile(place, part / name)
        record[name] = digest
        yield f"{name}: sha256 {digest}{'' if wanted else ' (nothing to compare it with)'}"
    if known.config:
        write_json(part / "config.json", json.loads(known.config))
    write_json(part / RECORD, record)


def _commit(known: Checkpoint, revision: str) -> tuple[str, dict[str, str]]:
    """The commit a revision stands for now, and sha256 of its large files; offline, as cached."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    kept = _cache() / known.repo.replace("/", "--") / f"{revision.replace('/', '--')}.txt"
    if offline():
        return (kept.read_text().strip() if kept.is_file() else revision), {}
    try:
        info = HfApi(endpoint=_endpoint()).model_info(
            known.repo, revision=revision, files_metadata=True, timeout=30
        )
    except (HfHubHTTPError, HFValidationError, OSError, ValueError, RuntimeError) as error:
        raise _unreachable(known.repo, error) from error
    except Exception as error:  # the http library's own, which is not ours to name
        raise _unreachable(known.repo, error) from error
    large = {s.rfilename: s.lfs.sha256 for s in info.siblings or [] if s.lfs is not None}
    commit = info.sha or revision
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(commit)
    return commit, large


def _downloaded(repo: str, name: str, commit: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(
            hf_hub_download(
                repo, name, revision=commit, endpoint=_endpoint(), local_files_only=offline()
            )
        )
    except Exception as error:  # likewise
        raise _unreachable(f"{repo}/{name}", error) from error


def offline() -> bool:
    """Whether $HF_HUB_OFFLINE forbids to ask the network."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _endpoint() -> str | None:
    """$HF_ENDPOINT, a mirror of the hub; None for its own address."""
    return os.environ.get("HF_ENDPOINT") or None


def _unreachable(what: str, error: Exception) -> ConfigError:
    told = " ".join(str(error).split())[:160]
    why = "HF_HUB_OFFLINE is set, and it is not in the cache" if offline() else told
    return ConfigError(f"{what}: cannot be fetched ({type(error).__name__}: {why})")


def _from_url(known: Checkpoint, part: Path, asked: Asked) -> Iterator[str]:
    """One file, kept in the cache, as a folder."""
    assert asked.url is not None
    if not re.match(r"https?://", asked.url):
        raise ConfigError(f"url: expected http:// or https://, got {asked.url!r:.80}")
    file = _cached(asked.url, known.file)
    digest = sha256(file)
    wanted = _wanted(known, asked, None)
    try:
        _check(asked.url, digest, wanted)
    except ConfigError:
        file.unlink()  # so that the next try fetches it again
        raise
    yield f"{known.file}: sha256 {digest}{'' if wanted else ' (nothing to compare it with)'}"
    if known.config:
        shutil.copyfile(file, part / known.file)
        write_json(part / "config.json", json.loads(known.config))
    else:
        yield from convert(file, part, None, Said(mean=known.mean, std=known.std)).notes
    write_json(part / RECORD, {"url": asked.url, known.file: digest})


def _cached(url: str, name: str) -> Path:
    """The file at an address, fetched once; what was cut off goes on at its end."""
    from hashlib import sha256 as of

    file = _cache() / of(url.encode()).hexdigest()[:16] / name
    if file.is_file():
        return file
    if offline():
        raise ConfigError(f"{url}: HF_HUB_OFFLINE is set, and it is not in the cache")
    file.parent.mkdir(parents=True, exist_ok=True)
    begun = file.with_name(name + ".part")
    try:
        _download(url, begun)
    except (OSError, ValueError) as error:
        told = " ".join(str(error).split())[:160]
        raise ConfigError(
            f"{url}: cannot be fetched ({told}); the same command goes on where it stopped"
        ) from error
    return begun.replace(file)


def _cache() -> Path:
    """What adpur keeps of fetched files; Hugging Face's own files are in its cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "adpur"


def _download(url: str, begun: Path) -> None:
    """Append to `begun` what it lacks, or write it anew where the server cannot go on."""
    have = begun.stat().st_size if begun.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:  # 416: there is nothing after what we have
            raise
        return
    with answer, begun.open("ab" if answer.status == 206 else "wb") as out:
        length = answer.headers.get("Content-Length")
        start = out.tell()
        shutil.copyfileobj(answer, out, PIECE)
        if length is not None and out.tell() - start != int(length):
            raise OSError(f"{out.tell() - start:,} of {int(length):,} bytes came")


def _wanted(known: Checkpoint, asked: Asked, told: str | None) -> str | None:
    """The sha256 a checkpoint's file must have: the caller's, adpur's, or the publisher's."""
    return asked.sha256 or (known.sha256 if known.sha256 != UNKNOWN else told)


def _check(what: str, digest: str, wanted: str | None) -> None:
    if wanted is not None and digest != wanted.lower():
        raise ConfigError(
            f"{what}: expected sha256 {wanted}, got {digest}; it is not the published file, and "
            "nothing of it was kept"
        )


def _loads(part: Path) -> Iterator[str]:
    """Load what was fetched: nothing else says that it is whole."""
    from adpur.models.checkpoints.json_file import read_json

    classifier = "architecture" in read_json(part / "config.json")
    net = load_classifier(part) if classifier else load_denoiser(part)
    count = sum(p.numel() for p in net.parameters())
    yield f"{count:,} parameters, images of {net.shape} (C, H, W)"
