"""An encoder of the transformers library as a backbone: the mean of a layer's token vectors.

The network is built from its config by the library's own classes; a config that asks for code of its own is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from regraft.core.errors import MissingExtraError, UsageError, WeightsError
from regraft.core.types import Backbone, Features
from regraft.text.spec import TextSpec

#: Model types whose positions begin after the padding's number, as RoBERTa's do.
_SHIFTED = {"roberta", "xlm-roberta", "camembert", "mpnet", "xlm-roberta-xl", "longformer", "bigbird"}
CONFIG, TOKENIZER = "config.json", "tokenizer.json"


class TextBackbone(Backbone):
    """{"input_ids", "attention_mask"} int64 (N, T) → pooled (N, D), the mean over the tokens that are no padding; maps
    (N, T, D) of the embeddings and of every layer, shallow → deep, padding included.
    """

    input_spec: TextSpec

    def __init__(self, net: nn.Module, config: Mapping[str, Any], tokenizer: bytes, spec: TextSpec) -> None:
        super().__init__(spec, int(config_of(config).hidden_size))
        self.net = net
        self.config, self.tokenizer = dict(config), tokenizer

    def forward(self, x: Mapping[str, Tensor]) -> Features:
        mask = x["attention_mask"]
        found = self.net(input_ids=x["input_ids"], attention_mask=mask, output_hidden_states=True)
        last: Tensor = found.last_hidden_state
        weight = mask.unsqueeze(-1).to(last.dtype)
        pooled = (last * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)
        return Features(pooled, tuple(found.hidden_states))

    def layer_groups(self) -> dict[str, list[str]]:
        """ "embeddings", "layer0", "layer1", …, and "final" for what follows the last layer."""
        path, layers = layers_of(self.net, self.config)
        groups: dict[str, list[str]] = {
            "embeddings": [], **{f"layer{i}": [] for i in range(len(layers))}, "final": []
        }  # fmt: skip
        begun = False
        for name, _ in self.named_parameters():
            if name.startswith(f"net.{path}."):
                begun = True
                groups[f"layer{name.removeprefix(f'net.{path}.').split('.')[0]}"].append(name)
            else:
                groups["final" if begun else "embeddings"].append(name)
        return {name: members for name, members in groups.items() if members}

    def reset_parameters(self) -> None:
        place = next(self.net.parameters())
        self.net = bare_net(self.config).to(device=place.device, dtype=place.dtype)

    def companions(self) -> dict[str, bytes]:
        config = json.dumps(self.config, indent=2, sort_keys=True, ensure_ascii=False).encode()
        return {CONFIG: config, TOKENIZER: self.tokenizer}


def library() -> Any:
    """The transformers library, told to keep its advice to itself. Raises MissingExtraError."""
    try:
        transformers: Any = import_module("transformers")
    except ImportError as error:
        raise MissingExtraError("Texts", "text") from error
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


def config_of(config: Mapping[str, Any]) -> Any:
    """The library's own object for a `config.json`. Raises WeightsError for one that it does not know."""
    if config.get("auto_map"):
        raise WeightsError("This network brings code of its own (auto_map in config.json), which is not run.")
    kind = config.get("model_type")
    try:
        return library().AutoConfig.for_model(**{k: v for k, v in config.items() if k != "auto_map"})
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"The config.json is of model type {kind!r}, which transformers does not know.") from error


def bare_net(config: Mapping[str, Any]) -> nn.Module:
    """The encoder with random weights, as its library initialises it, without a pooler over its first token."""
    found: nn.Module = library().AutoModel.from_config(config_of(config), dtype=torch.float32)
    return without_pooler(found)


def without_pooler(net: nn.Module) -> nn.Module:
    """The same network without the layer that only its pretraining had a use for: it would get no gradient."""
    if isinstance(getattr(net, "pooler", None), nn.Module):
        net.pooler = None  # type: ignore[assignment]
    return net


def layers_of(net: nn.Module, config: Mapping[str, Any]) -> tuple[str, nn.ModuleList]:
    """Where the encoder's layers are, as a dotted path, and the layers. Raises UsageError where they cannot be told."""
    count = int(config_of(config).num_hidden_layers)
    for path, module in net.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return path, module
    raise UsageError(f"{type(net).__name__} has no list of {count} layers: it cannot be used as a backbone.")


def cut_after(net: nn.Module, config: Mapping[str, Any], layer: int) -> dict[str, Any]:
    """Leave out what follows layer number `layer` (1 is the first); returns the config of what is left."""
    path, layers = layers_of(net, config)
    if not 1 <= layer <= len(layers):
        raise UsageError(f"layer is a number from 1 to {len(layers)}, as in FOLDER:layer=1; got {layer}.")
    parent, _, name = path.rpartition(".")
    setattr(net.get_submodule(parent), name, nn.ModuleList(list(layers)[:layer]))
    own = config_of(config)
    known = "num_hidden_layers" if "num_hidden_layers" in config else own.attribute_map.get("num_hidden_layers")
    cut = {**config, known or "num_hidden_layers": layer}
    net.config = config_of(cut)
    return cut


def longest_input(config: Mapping[str, Any]) -> int:
    """Tokens that the network has positions for."""
    own = config_of(config)
    positions = getattr(own, "max_position_embeddings", None) or 512
    if config.get("model_type") in _SHIFTED:
        positions -= (own.pad_token_id or 0) + 1
    return int(positions)
