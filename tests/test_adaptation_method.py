"""Methods as they are typed, and their variations."""

from __future__ import annotations

import pytest

from regraft.adaptation.base import losses
from regraft.adaptation.training.method import is_method, parse_method, variations
from regraft.core.errors import UsageError


def test_options_reach_the_loss_with_their_types() -> None:
    method = parse_method("DANN:spectral_norm=true:hidden=32:gradient_penalty=2.5:weight=0.3:length=2")
    assert method.options == {"spectral_norm": True, "hidden": 32, "gradient_penalty": 2.5}
    assert (method.weight, method.length, method.kind) == (0.3, 2.0, losses.get("DANN"))
    loss = method.build(8, 3)
    assert any("parametrizations" in name for name, _ in loss.named_parameters())
    assert parse_method("DDAN:weight=mean-gap").options == {"weight": "mean-gap"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("DAN:hidden=3", "hidden"),
        ("DANN:hidden=2.5", "whole number"),
        ("DANN:spectral_norm=maybe", "true or false"),
        ("MCC:temperature=hot", "takes a number"),
        ("MCC:weight=-1", "above 0"),
        ("MCC:weight", "name=value"),
        ("MCC:lenght=2", "length"),
        ("MC:weight=2", "MCC"),
    ],
)
def test_a_mistake_is_told(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_method(text)


def test_every_loss_is_a_method_and_its_variations_are_too() -> None:
    for name in losses:
        assert is_method(name)
        for text in variations(name):
            assert parse_method(text).kind is losses.get(name)
    weights, lengths = ("MCC:weight=1", "MCC:weight=9"), ("MCC:weight=3:length=0.333", "MCC:weight=3:length=3")
    assert variations("MCC:weight=3") == weights + lengths
    assert variations("SHOT") == ("SHOT:length=0.333", "SHOT:length=3")
    assert not is_method("CORAL") and not is_method("AdaBN")
