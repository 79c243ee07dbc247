"""`regraft style evaluate`: how much style a finished picture has, whoever made it."""

from __future__ import annotations

from typing import Any

from regraft.images.picture import read_picture
from regraft.recipes.style.job import described
from regraft.recipes.style.model_options import StyleEvaluateConfig
from regraft.style.base import StyleSettings, methods, resize
from regraft.style.figures.evaluation import Costs, Evaluator, measure_costs, yardstick


def run_evaluate_style(options: StyleEvaluateConfig) -> dict[str, Any]:
    """Figures of a file, both baselines beside it. The content is brought to the result's size.

    method: one that is run on the content to measure its latency, the cost of noise and its memory; without one these
    are None, since a file does not say what made it.
    """
    found = read_picture(options.result).pixels
    photo = resize(read_picture(options.content).pixels, found.shape[-2:])
    pictures = [(read_picture(path).pixels, weight) for path, weight in options.styles]
    evaluator = Evaluator(photo, pictures, yardstick(options.evaluation_weights))
    costs = Costs()
    if options.method is not None:
        styler = methods.get(options.method)(StyleSettings())
        _, costs = measure_costs(
            lambda pixels: styler.stylize(pixels, pictures), photo, repeats=options.repeats, noise=True
        )
    return described(evaluator, evaluator.figures(found), costs)
