"""What a network will not see of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from regraft.core.types import Backbone
from regraft.data.facts import Facts
from regraft.images.look import PictureFacts
from regraft.images.spec import ImageSpec

#: A crop that leaves as much of the short side is not worth a word.
NEARLY_ALL: Final = 0.95


def unseen_edges(facts: Sequence[Facts], backbone: Backbone) -> str | None:
    """A sentence where pictures of one size, as one device takes them, lose their edges to the weights' own crop."""
    spec = backbone.input_spec
    seen = float(spec.crop_pct) if isinstance(spec, ImageSpec) else 1.0
    sizes = {(fact.width, fact.height) for fact in facts if isinstance(fact, PictureFacts)}
    if seen >= NEARLY_ALL or "crop_pct" in backbone.recipe.get("options", {}) or len(sizes) != 1:
        return None
    ((width, height),) = sizes
    name = str(backbone.recipe["name"])
    return (
        f"All pictures are {width} × {height} px, as one device takes them, and the preprocessing of these weights "
        f"cuts {(1 - seen) / 2:.0%} of the short side off each edge. Where the edge may matter: "
        f"--backbone {name}{',' if ':' in name else ':'}crop_pct=1.0 shows all of it."
    )
