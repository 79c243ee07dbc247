"""`regraft style`: photos and paintings in, stylised files out, each with its figures where they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regraft.core.errors import UsageError
from regraft.core.hardware import find_device
from regraft.core.listener import Listener
from regraft.core.memory import keep_freed_memory
from regraft.deploy.style.runtime import COMPILED, preparation
from regraft.images.inputs import expand_inputs
from regraft.images.picture import Picture, check_writable, read_picture, write_picture
from regraft.images.picture_files import output_paths, read_each
from regraft.recipes.style.options import StyleConfig
from regraft.style import perceptual
from regraft.style.base import Styler, StyleSettings, StyleStep, fit_long_side, methods, resize
from regraft.style.figures.dial import blend, front, search
from regraft.style.figures.evaluation import Costs, Evaluator, Figures, measure_costs, to_json, yardstick
from regraft.style.figures.similarity import SSIM_SETTINGS
from regraft.style.methods.colour_preservation import luminance, stylize_keeping_colour
from regraft.style.networks.model_file import StyleModel
from regraft.style.networks.shipped import fixed_style

#: A method that takes longer than this for one picture is run once: neither timed again nor on noisy input.
REPEATED_BELOW_S = 5.0
_REPEATS = 5
#: From so many pictures on a compiled runtime has made good the time that its preparation takes.
COMPILED_FROM = 16


@dataclass(frozen=True)
class Styled:
    """One picture's outcome. strength: the stylised picture's share. figures: as `evaluation.to_json`; empty unless
    asked for. error: why this file was left out, else None."""

    content: Path
    output: Path | None = None
    report: Path | None = None
    strength: float = 1.0
    figures: dict[str, Any] | None = None
    error: str | None = None


def run_stylize(config: StyleConfig, *, listener: Listener | None = None) -> list[Styled]:
    """Every content picture with the styles. One that cannot be read is named in its outcome; the others go on.

    Raises UsageError for options that cannot mean anything, UnreadableError for a style or a mask, before any work.
    """
    listener = listener or Listener()
    inputs = expand_inputs(config.content)
    outputs = output_paths(inputs, config.output)
    for path in outputs:
        check_writable(path, force=config.force)
        if config.report:
            _check_page(path.with_suffix(".html"), config.force)
    device = find_device(config.device)
    if device.type == "cpu":
        keep_freed_memory()
    torch.manual_seed(config.seed or 0)
    styler = build_styler(config, device=device, count=len(inputs))
    easel = _Easel(config, styler, read_styles(config, styler, device), read_masks(config), device, listener)
    outcomes = []
    for (source, picture), target in zip(read_each(inputs, listener), outputs, strict=True):
        if isinstance(picture, str):
            outcomes.append(Styled(source, error=picture))
            continue
        outcomes.append(easel.paint(source, target, picture))
    return outcomes


def build_styler(config: StyleConfig, *, device: torch.device | None = None, count: int = 1) -> Styler:
    """The method with its settings, for that many pictures. Raises UsageError for an unknown name or a setting that it
    does not use."""
    name = config.chosen_method
    kind = methods.get(name)
    values = config.settings()
    if config.ssim is not None and "ssim" in kind.heeded:
        values["ssim"] = config.ssim
    if config.perceptual is not None:
        if "perceptual" not in kind.heeded:
            raise UsageError(f"The style method {name} uses no perceptual network: leave --perceptual out.")
        values["perceptual"] = perceptual(config.perceptual, config.perceptual_weights)
    if config.kept is not None:
        values["kept"] = mask_picture(config.kept)
    runtime = chosen_runtime(config, kind, device or torch.device("cpu"), count)
    if runtime != "eager":
        values["prepare"] = preparation(runtime)
    return kind(StyleSettings(**values))


def chosen_runtime(config: StyleConfig, kind: type[Styler], device: torch.device, count: int) -> str:
    """What runs fixed styles: on a processor and for many pictures a compiled runtime, which takes a while to prepare.

    Raises UsageError where one was asked for that cannot run here.
    """
    if config.runtime not in (None, "auto"):
        if "prepare" not in kind.heeded:
            raise UsageError(f"The style method {config.chosen_method} runs in PyTorch alone: leave --runtime out.")
        if config.runtime != "eager" and device.type != "cpu":
            raise UsageError(f"--runtime {config.runtime} runs on the processor: add --device cpu, or take eager.")
        return str(config.runtime)
    pays = "prepare" in kind.heeded and device.type == "cpu" and count >= COMPILED_FROM and config.max_memory is None
    installed = [name for name in reversed(COMPILED) if find_spec(name) and find_spec("onnx")]
    return installed[0] if pays and installed else "eager"


def read_styles(config: StyleConfig, styler: Styler, device: torch.device) -> list[tuple[Any, float]]:
    """Each style as the method takes it, with its weight."""
    if styler.takes is StyleModel:
        return [(fixed_style(str(path)), weight) for path, weight in config.styles]
    return [(read_picture(path).pixels.to(device), weight) for path, weight in config.styles]


def read_masks(config: StyleConfig) -> list[Tensor | None] | None:
    """Per style its mask (1, H, W), white where it goes (through transparent places it does not); None without any."""
    if not config.masks:
        return None
    given: dict[Path, Tensor] = {}
    for path, style in config.masks:
        if style in given:
            raise UsageError(f"{style} has two masks: lay them together in one file.")
        given[style] = mask_picture(path)
    return [given.get(path) for path, _ in config.styles]


def mask_picture(path: Path) -> Tensor:
    """A mask (1, H, W) in [0, 1] from a picture: its luminance, and nothing where it is transparent."""
    picture = read_picture(path)
    found = luminance(picture.pixels)
    return found if picture.alpha is None else found * picture.alpha


@dataclass(frozen=True)
class _Easel:
    """What every picture of a run is painted with. masks: per style, or None."""

    config: StyleConfig
    styler: Styler
    styles: list[tuple[Any, float]]
    masks: list[Tensor | None] | None
    device: torch.device
    listener: Listener

    def paint(self, source: Path, target: Path, picture: Picture) -> Styled:
        """One picture, written, and with `report` or `measure` its figures."""
        config = self.config
        size = self._size(source, picture)
        content = resize(picture.pixels, size).to(self.device)
        run = self._painter(source, target)
        measured = config.report or config.measure
        stylised, costs = measure_costs(run, content, repeats=1, noise=False)
        if measured and costs.latency_ms[0] < 1000 * REPEATED_BELOW_S:
            _, costs = measure_costs(run, content, repeats=_REPEATS, noise=True, seed=config.seed or 0)
        if config.ssim is not None:
            dialled = search(content, stylised, config.ssim)
            image, strength = dialled.image, dialled.strength
            self.listener.say(f"{source.name}: SSIM {dialled.ssim:.4f} with {strength:.0%} of the stylised picture.")
        else:
            image, strength = blend(content, stylised, config.strength), config.strength
        alpha = None if picture.alpha is None else resize(picture.alpha, size)
        write_picture(replace(picture, pixels=image.cpu(), alpha=alpha), target, force=config.force)
        outcome = Styled(source, target, strength=strength)
        return self._measured(outcome, content, stylised, costs) if measured else outcome

    def _size(self, source: Path, picture: Picture) -> tuple[int, int]:
        long_px = self.config.size or min(max(picture.size_px), self.styler.default_long_px or max(picture.size_px))
        size = fit_long_side(picture.size_px, long_px)
        if size != picture.size_px:
            self.listener.say(
                f"{source.name}: {picture.size_px[1]} × {picture.size_px[0]} px, worked on and written at "
                f"{size[1]} × {size[0]} px" + ("." if self.config.size else "; --size sets another longer side.")
            )
        return size

    def _painter(self, source: Path, target: Path) -> Callable[[Tensor], Tensor]:
        config, masks = self.config, self.masks
        placed = None if masks is None else [None if mask is None else mask.to(self.device) for mask in masks]
        shown = _shower(config, target, source, self.listener)

        def run(pixels: Tensor) -> Tensor:
            if config.keep_colour is not None:
                return stylize_keeping_colour(
                    self.styler, pixels, self.styles, config.keep_colour, masks=placed, on_step=shown
                )
            return self.styler.stylize(pixels, self.styles, masks=placed, on_step=shown)

        return run

    def _measured(self, outcome: Styled, content: Tensor, stylised: Tensor, costs: Costs) -> Styled:
        """The outcome with its figures, of the file as it was written, and with `report` the page."""
        config, target = self.config, outcome.output
        assert target is not None
        evaluator = Evaluator(
            content, self.styles if self.styler.takes is Tensor else [], yardstick(config.evaluation_weights)
        )
        written = read_picture(target).pixels.to(self.device)
        figures = described(evaluator, evaluator.figures(written), costs)
        figures["strength"] = outcome.strength
        page = None
        if config.report:
            from regraft.style.figures.page import StylePage, render_style

            styles = [
                (path.name, weight, picture if isinstance(picture, Tensor) else None)
                for (path, weight), (picture, _) in zip(config.styles, self.styles, strict=True)
            ]
            page = render_style(
                target.with_suffix(".html"),
                StylePage(
                    content=content, result=written, styles=styles, figures=figures,
                    front=front(content, stylised, evaluator.gram_cosine), method=config.chosen_method,
                    name=outcome.content.name, asked_ssim=config.ssim,
                ),
            )  # fmt: skip
        return replace(outcome, figures=figures, report=page)


def described(evaluator: Evaluator, figures: Figures, costs: Costs) -> dict[str, Any]:
    """The printed figures with both baselines, and what they were measured with."""
    baselines = {name: to_json(found, Costs()) for name, found in evaluator.baselines().items()}
    kept = ("ssim", "gram_cosine", "lift", "content_distance", "perceptual_distance")
    return {
        **to_json(figures, costs),
        "baselines": {name: {key: found[key] for key in kept} for name, found in baselines.items()},
        "measured_with": evaluator.yardstick.described,
        "ssim_settings": dict(SSIM_SETTINGS),
        "runs": len(costs.latency_ms),
    }


def _shower(config: StyleConfig, target: Path, source: Path, listener: Listener) -> Callable[[StyleStep], None]:
    """Progress, and with --every the picture of every so many steps, in a folder beside the result."""
    folder = target.with_name(f"{target.stem}-steps")

    def show(step: StyleStep) -> None:
        listener.progress(f"{source.name}, {step.scale_px} px", step.step, step.total, rate=f"loss {step.loss:.3f}")
        if config.every is not None and (step.step % config.every == 0 or step.step == step.total):
            path = folder / f"{step.step:06d}.png"
            write_picture(Picture(step.image.cpu()), path, force=config.force)

    return show


def _check_page(path: Path, force: bool) -> None:
    if path.exists() and not force:
        raise UsageError(f"{path} is there already: pass --force to replace it.")
