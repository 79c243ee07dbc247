"""The artifact: a trained model as `manifest.json` + `model.safetensors`, loadable with nothing but the package.

No pickle. The manifest carries the hash and size of the weights; a file that was altered or cut off is refused.
`docs/formats.md` documents the fields. Readers accept every earlier version of the format.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from regraft.core.errors import ArtifactError
from regraft.core.files import read_json, replacing, sha256_file, write_json

FORMAT = "regraft.artifact/1"
READABLE = (FORMAT,)
MANIFEST = "manifest.json"
WEIGHTS = "model.safetensors"
REQUIRED = ("format", "backbone", "task", "input_spec", "labels", "files")
MANIFEST_LIMIT_BYTES = 8 << 20
WEIGHTS_LIMIT_BYTES = 32 << 30
COMPANION_LIMIT_BYTES = 64 << 20


def write_artifact(
    folder: Path,
    manifest: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    companions: Mapping[str, bytes] | None = None,
) -> Path:
    """Write weights and companion files first, manifest last, each whole or not at all. Returns the folder.

    companions: small files by plain name that the network cannot be rebuilt without, such as a tokenizer.
    """
    weights = folder / WEIGHTS
    with replacing(weights) as temporary:
        save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, temporary)
    files = {WEIGHTS: {"sha256": sha256_file(weights), "bytes": weights.stat().st_size}}
    for name, content in (companions or {}).items():
        with replacing(folder / name) as temporary:
            temporary.write_bytes(content)
        files[name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    write_json(folder / MANIFEST, {"format": FORMAT, **manifest, "files": files})
    return folder


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an artifact folder. ArtifactError where it is missing, malformed or of an unknown version."""
    path = folder / MANIFEST
    if not path.is_file():
        raise ArtifactError(
            f"{folder} is not an artifact: it has no {MANIFEST}. Give a run directory or its artifact/ folder."
        )
    if path.stat().st_size > MANIFEST_LIMIT_BYTES:
        raise ArtifactError(f"{path} is larger than {MANIFEST_LIMIT_BYTES >> 20} MiB: that is no manifest.")
    try:
        manifest = read_json(path)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is not valid JSON ({error}): copy the artifact again from its run.") from error
    if not isinstance(manifest, dict) or manifest.get("format") not in READABLE:
        found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
        raise ArtifactError(
            f"{path} has format {found!r}; this version reads {', '.join(READABLE)}. A newer Regraft may be needed."
        )
    missing = [key for key in REQUIRED if key not in manifest]
    if missing:
        raise ArtifactError(f"{path} lacks {', '.join(missing)}: copy the artifact again from its run.")
    return manifest


def read_companions(folder: Path, manifest: Mapping[str, Any]) -> dict[str, bytes]:
    """The files beside the weights by name, hash checked. Raises ArtifactError with what is wrong."""
    found: dict[str, bytes] = {}
    for name, described in manifest["files"].items():
        if name == WEIGHTS:
            continue
        path = folder / name
        if Path(name).name != name or name.startswith(".") or not isinstance(described, dict):
            raise ArtifactError(f"{folder / MANIFEST} names a file {name!r}, which no artifact has: copy it again.")
        if not path.is_file():
            raise ArtifactError(f"{folder} has no {name}: copy the whole artifact folder.")
        if path.stat().st_size != described.get("bytes") or path.stat().st_size > COMPANION_LIMIT_BYTES:
            raise ArtifactError(f"{path} is not the file that its manifest describes: copy the artifact again.")
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != described.get("sha256"):
            raise ArtifactError(f"{path} is not the file that its manifest describes: copy the artifact again.")
        found[name] = content
    return found


def read_artifact(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Manifest and weights, hash checked. Raises ArtifactError with what is wrong."""
    manifest = read_manifest(folder)
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise ArtifactError(f"{folder} has no {WEIGHTS}: copy the whole artifact folder.")
    files = manifest["files"]
    described = files.get(WEIGHTS) if isinstance(files, dict) else None
    if not isinstance(described, dict):
        raise ArtifactError(f"{folder / MANIFEST} does not describe {WEIGHTS}: copy the artifact again from its run.")
    size = weights.stat().st_size
    if size != described.get("bytes") or size > WEIGHTS_LIMIT_BYTES or sha256_file(weights) != described.get("sha256"):
        raise ArtifactError(
            f"{weights} is not the file that its manifest describes (altered or cut off): copy the artifact again."
        )
    try:
        return manifest, load_file(weights)
    except (SafetensorError, ValueError) as error:
        raise ArtifactError(f"{weights} is not a safetensors file: {error}.") from error
