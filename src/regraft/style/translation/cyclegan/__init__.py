"""Translation between two sets of pictures without pairs: CycleGAN, its watch, its artifact."""

from regraft.style.translation.cyclegan.discriminator import DiscriminatorSettings
from regraft.style.translation.cyclegan.generator import UPSAMPLINGS, GeneratorSettings
from regraft.style.translation.cyclegan.task import DIRECTIONS, CycleGAN, CycleWeights
from regraft.style.translation.cyclegan.translator import Translator, load_translator, pack_translator
from regraft.style.translation.cyclegan.watch import Evaluation, Sign, all_signs, signs

__all__ = [
    "DIRECTIONS",
    "UPSAMPLINGS",
    "CycleGAN",
    "CycleWeights",
    "DiscriminatorSettings",
    "Evaluation",
    "GeneratorSettings",
    "Sign",
    "Translator",
    "all_signs",
    "load_translator",
    "pack_translator",
    "signs",
]
