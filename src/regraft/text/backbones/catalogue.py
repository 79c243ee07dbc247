"""From what a person types to a text backbone.

`path/to/folder` of the transformers layout (config.json, tokenizer.json, model.safetensors), or `owner/name` on the
Hugging Face hub; options after a colon: `folder:layer=4` reads the mean of that layer and leaves the deeper ones out,
`folder:tokens=128` cuts texts earlier.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from regraft.core.errors import UsageError, WeightsError
from regraft.core.files import sha256_file
from regraft.text.backbones.transformer import (
    CONFIG,
    TOKENIZER,
    TextBackbone,
    bare_net,
    cut_after,
    library,
    longest_input,
    without_pooler,
)
from regraft.text.spec import TextSpec

WEIGHTS: Final = "model.safetensors"
#: Tokens after which texts are cut unless told: attention costs their square, and most texts are shorter.
USUAL_TOKENS: Final = 256
OPTIONS: Final = ("layer", "tokens")
_MOST_BYTES: Final = 64 << 20


def parse(name: str) -> tuple[str, dict[str, int]]:
    """ "folder:layer=4" → (folder, options). Raises UsageError for what is no such option."""
    head, colon, tail = name.rpartition(":")
    if not colon or "=" not in tail:
        return name, {}
    options: dict[str, int] = {}
    for item in tail.split(","):
        key, _, value = item.partition("=")
        if key not in OPTIONS or not value.isdigit() or int(value) < 1:
            raise UsageError(
                f"A text backbone takes layer=N and tokens=N after a colon, whole numbers from 1, as {head}:layer=4; "
                f"got {item!r}."
            )
        options[key] = int(value)
    return head, options


def check(name: str, weights: Path | None) -> None:
    """UsageError for a name that cannot be a text backbone."""
    where, _ = parse(name)
    if weights is not None:
        raise UsageError("Texts take their weights from the backbone's own folder: leave --weights out.")
    if Path(where).is_dir():
        missing = [file for file in (CONFIG, TOKENIZER) if not (Path(where) / file).is_file()]
        if missing:
            raise UsageError(
                f"{where} has no {' and no '.join(missing)}: a text backbone is a folder of the transformers layout, "
                f"with {CONFIG}, {TOKENIZER} and {WEIGHTS}."
            )
    elif not _on_hub(where):
        raise UsageError(
            f"There is no folder {where}. Texts need --backbone FOLDER of the transformers layout ({CONFIG}, "
            f"{TOKENIZER}, {WEIGHTS}), or, where there is a network, a name on the Hugging Face hub, such as "
            "sentence-transformers/all-MiniLM-L6-v2."
        )


def label(name: str) -> str:
    """A folder's own name, else the name as it is; without options."""
    where, _ = parse(name)
    return Path(where).resolve().name if Path(where).is_dir() else where


def create(name: str, *, pretrained: bool = True) -> TextBackbone:
    """The backbone of that name; pretrained=False has the same network with random weights."""
    check(name, None)
    where, options = parse(name)
    folder = Path(where) if Path(where).is_dir() else _downloaded(where)
    config, tokenizer = _json(folder / CONFIG), _bytes(folder / TOKENIZER)
    if config.get("auto_map"):
        raise WeightsError(f"{where} brings code of its own (auto_map in {CONFIG}), which is not run.")
    net = _loaded(folder, where) if pretrained else bare_net(config)
    if "layer" in options:
        config = cut_after(net, config, options["layer"])
    longest = longest_input(config)
    if options.get("tokens", 1) > longest:
        raise UsageError(f"{where} has positions for {longest} tokens; got tokens={options['tokens']}.")
    tokens = options.get("tokens", min(longest, USUAL_TOKENS))
    spec = TextSpec(max_tokens=tokens, pad_id=int(config.get("pad_token_id") or 0))
    backbone = TextBackbone(net, config, tokenizer, spec)
    called = label(name)
    backbone.recipe = {"name": called, "family": "transformers", "model": called, "options": dict(options)}
    backbone.pretrained = pretrained
    if pretrained:
        backbone.provenance = {
            "source": "folder" if Path(where).is_dir() else "hub",
            "file": f"{called}/{WEIGHTS}",
            "sha256": sha256_file(folder / WEIGHTS) if (folder / WEIGHTS).is_file() else None,
            "licence": _licence(folder),
        }
    return backbone


def build(recipe: Mapping[str, Any], spec: TextSpec, companions: Mapping[str, bytes]) -> TextBackbone:
    """The network of an artifact, with random weights: its config and tokenizer are the artifact's own files."""
    missing = [name for name in (CONFIG, TOKENIZER) if name not in companions]
    if missing:
        raise WeightsError(f"The artifact has no {' and no '.join(missing)}: copy the whole artifact folder.")
    config = json.loads(companions[CONFIG])
    backbone = TextBackbone(bare_net(config), config, companions[TOKENIZER], spec)
    backbone.recipe = dict(recipe)
    return backbone


def _loaded(folder: Path, name: str) -> Any:
    """The encoder with its weights as float32, from safetensors alone."""
    try:
        net = library().AutoModel.from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True, trust_remote_code=False, dtype="float32"
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise WeightsError(f"The weights of {name} cannot be read as {WEIGHTS}: {first}") from error
    return without_pooler(net)


def _on_hub(name: str) -> bool:
    parts = name.split("/")
    return len(parts) == 2 and all(parts) and not name.startswith((".", "/", "~"))


def _downloaded(name: str) -> Path:
    """A hub repository's safetensors, config and tokenizer, from the cache or the network."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=[CONFIG, TOKENIZER, "*.safetensors", "README.md"]))
    except Exception as error:  # the client raises its own, its transport's and the system's errors
        cause = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        raise WeightsError(
            f"{name} is no folder here, and could not be fetched from the Hugging Face hub ({cause}). On a machine "
            f"with a network download it, copy the folder with {CONFIG}, {TOKENIZER} and {WEIGHTS}, and give its path."
        ) from error


def _bytes(path: Path) -> bytes:
    if not path.is_file():
        raise WeightsError(f"There is no {path}.")
    if path.stat().st_size > _MOST_BYTES:
        raise WeightsError(f"{path} has more than {_MOST_BYTES >> 20} MiB, which no artifact can carry.")
    return path.read_bytes()


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(_bytes(path))
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(found, dict):
        raise WeightsError(f"{path} is no configuration of a network.")
    return found


def _licence(folder: Path) -> str | None:
    """What the model card's header says of the licence; None where it says nothing."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    for line in card.read_text(encoding="utf-8", errors="replace").splitlines()[:40]:
        if line.startswith("license:"):
            return line.partition(":")[2].strip().strip("'\"") or None
    return None
