"""Weights from a local file into a backbone: safetensors, or `.pth` read as plain tensors only.

Keys may be those of the whole model (with its classifier) or of the network without it, with or without `module.`
before them. Everything but the classifier must be there and fit; what does not is named.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from regraft.core.errors import WeightsError
from regraft.core.files import sha256_file
from regraft.core.tensor_files import read_tensors
from regraft.images.backbones.base import ImageBackbone, PretrainedHead


def load_weights(backbone: ImageBackbone, path: Path) -> None:
    """Load a file into `backbone.net`; strict but for a classifier. Sets the backbone's provenance."""
    net = backbone.net
    assert isinstance(net, nn.Module)
    tensors = {k.removeprefix("module.").removeprefix("net."): v for k, v in read_tensors(path).items()}
    own = net.state_dict()
    missing = [k for k in own if k not in tensors and not k.endswith("num_batches_tracked")]
    misfit = [
        f"{k} {tuple(tensors[k].shape)} for {tuple(v.shape)}"
        for k, v in own.items()
        if k in tensors and tensors[k].shape != v.shape
    ]
    if missing or misfit:
        what = f"lacks {len(missing)} of {len(own)} tensors (first: {', '.join(missing[:3])})" if missing else ""
        unlike = f"has other shapes ({'; '.join(misfit[:3])})" if misfit else ""
        raise WeightsError(
            f"{path.name} does not fit {backbone.recipe.get('name', 'this backbone')}: it "
            f"{' and '.join(p for p in (what, unlike) if p)}. Its first names are {', '.join(list(tensors)[:3])}: "
            "name the backbone that the file was made for."
        )
    net.load_state_dict({k: tensors[k].to(v.dtype) if k in tensors else v for k, v in own.items()})
    backbone.pretrained_head = _classifier({k: v for k, v in tensors.items() if k not in own}, backbone.feature_dim)
    backbone.pretrained = True
    backbone.provenance = {"source": "file", "file": path.name, "sha256": sha256_file(path)}


def _classifier(rest: dict[str, Tensor], width: int) -> PretrainedHead | None:
    """The one linear layer over pooled features of that width among tensors that the network has no place for.

    With several (distilled transformers have two) none is known to be the classifier.
    """
    found = [
        (weight, rest[name.removesuffix("weight") + "bias"])
        for name, weight in rest.items()
        if name.endswith("weight") and weight.ndim == 2 and weight.shape[1] == width
        and rest.get(name.removesuffix("weight") + "bias", weight).shape == weight.shape[:1]
    ]  # fmt: skip
    if len(found) != 1 or not all(x.isfinite().all() for x in found[0]):
        return None
    return PretrainedHead(found[0][0].float(), found[0][1].float())
