"""`regraft style train`: a fast model of one's own painting, begun from the styles that come with the package."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import torch
from torch import Tensor

from regraft.core.errors import UsageError
from regraft.core.files import read_json, write_json
from regraft.core.listener import Listener
from regraft.core.rundir import RunDirectory
from regraft.core.types import Rule
from regraft.engine import Machine, StepRecord
from regraft.engine.telling import step_teller
from regraft.images.decode import decode
from regraft.images.picture import read_picture
from regraft.recipes.frame.job import Brief, Frame, Job, run_job
from regraft.recipes.style.model_options import StyleTrainConfig
from regraft.style import perceptual
from regraft.style.figures.evaluation import centre_square
from regraft.style.networks.model_file import save_style_model, student_model
from regraft.style.networks.shipped import packaged_net
from regraft.style.networks.transfer_net import StudentNet, TeacherNet
from regraft.style.training.batch_losses import StyleTerms
from regraft.style.training.steps import STUDENT_RULES, Course, TrainingSize, crops, train, training_pictures
from regraft.style.training.task import StudentTask, TeacherTask, style_targets

#: Of the content pictures, this share and no more than so many are held out, to say what the training reached.
_HELD_OUT_SHARE: Final = 0.1
_MOST_HELD_OUT: Final = 16
_Net = TypeVar("_Net", TeacherNet, StudentNet)


@dataclass(frozen=True)
class TrainedStyle:
    """model: its file; run: with curves and the summary; figures: as run/style.json."""

    model: Path
    run: Path
    figures: dict[str, Any]


@dataclass(frozen=True)
class Photos:
    """What was read: the painting (3, H, W), photos to learn from, and photos held out to measure on."""

    painting: Tensor
    training: tuple[Path, ...]
    held_out: tuple[Path, ...]


class StyleTrain(Job[StyleTrainConfig, Photos]):
    """`regraft style train`."""

    recipe = "style"

    def check(self, options: StyleTrainConfig) -> None:
        if options.output.exists() and not options.force:
            raise UsageError(f"{options.output} is there already: pass --force to replace it, or another --name.")

    def prepare(self, options: StyleTrainConfig, machine: Machine, listener: Listener) -> Brief[Photos]:
        painting = read_picture(options.style).pixels
        paths, found = training_pictures(options.content)
        for finding in found.findings:
            if finding.left_out:
                listener.say(finding.sentence)
        held = max(1, min(_MOST_HELD_OUT, round(_HELD_OUT_SHARE * len(paths))))
        if len(paths) - held < 1:
            raise UsageError(f"Training a style takes two photos or more; {len(paths)} could be read.")
        order = torch.randperm(len(paths), generator=torch.Generator().manual_seed(options.seed)).tolist()
        kept, training = [paths[i] for i in sorted(order[:held])], [paths[i] for i in sorted(order[held:])]
        split = {"train": [str(path) for path in training], "held_out": [str(path) for path in kept]}
        return Brief(Photos(painting, tuple(training), tuple(kept)), options.name, "student", split)

    def foresee(self, options: StyleTrainConfig, material: Photos, machine: Machine) -> list[str]:
        return [
            f"{len(material.training)} photos to learn from, {len(material.held_out)} held out.",
            f"A teacher for {options.steps} steps, a student for {options.student_steps}, {options.batch} crops of "
            f"{options.side_px} px a step.",
            f"The model would be {options.output}.",
        ]

    def work(self, options: StyleTrainConfig, material: Photos, frame: Frame) -> None:
        trained = _StyleTraining(
            options, frame.machine, frame.run, frame.listener, material.painting, material.training
        ).everything()  # fmt: skip
        held_out = [centre_square(decode(path).float() / 255, options.side_px) for path in material.held_out]
        figures = trained.figures(torch.stack(held_out))
        figures |= {
            "style": options.style.name,
            "n_content": len(material.training),
            "n_held_out": len(material.held_out),
            "seed": options.seed,
        }
        options.output.parent.mkdir(parents=True, exist_ok=True)
        save_style_model(options.output, student_model(trained.student, options.name, dict(figures)), half=True)
        write_json(frame.run.path / "style.json", figures)
        frame.listener.say(str(figures["verdict"]))


def run_style_train(
    config: StyleTrainConfig, *, runs: Path = Path("runs"), fresh: bool = False, listener: Listener | None = None
) -> TrainedStyle:
    """Train a teacher, distil a student from it, measure both on pictures that neither saw, and keep the student.

    An unfinished training of the same options is taken up again. Raises UsageError where the model's file is there
    already, DataError for content that cannot be used.
    """
    run = run_job(StyleTrain(), config, runs=runs, fresh=fresh, listener=listener)
    return TrainedStyle(config.output, run, read_json(run / "style.json"))


@dataclass(frozen=True)
class _Trained:
    teacher: TeacherNet
    student: StudentNet
    terms: StyleTerms
    painting: Tensor
    side_px: int

    @torch.no_grad()
    def figures(self, pictures: Tensor) -> dict[str, Any]:
        """Style terms of held-out pictures (N, 3, H, W) as they are, from the teacher and from the student."""
        targets = style_targets(self.terms, [self.painting], self.side_px)
        shares = torch.ones(len(pictures), 1)

        def term(result: Tensor) -> float:
            features = self.terms.network(result.clamp(0, 1), self.terms.network.style_layers)
            return float(self.terms.style(self.terms.moments(features), targets).mean())

        teacher, student = self.teacher.cpu().eval(), self.student.cpu().eval()
        self.terms.network.cpu()
        untouched, taught, learnt = term(pictures), term(teacher(pictures, shares)), term(student(pictures))
        share = (untouched - learnt) / (untouched - taught) if untouched > taught else float("nan")
        sizes = [sum(p.numel() for p in net.parameters()) for net in (teacher, student)]
        verdict = (
            f"The style term of held-out photos fell from {untouched:.3f} to {learnt:.3f} (teacher {taught:.3f}): the "
            f"student keeps {share:.1%} of what its teacher does, with {sizes[1]:,} of {sizes[0]:,} parameters."
        )
        if learnt >= untouched:
            verdict = (
                f"The training did not help: the style term of held-out photos is {learnt:.3f} after {untouched:.3f}. "
                "Take more --steps or more photos."
            )
        return {
            "style_term": {"unstylised": untouched, "teacher": taught, "student": learnt},
            "kept_share": share if share == share else None,
            "parameters": {"teacher": sizes[0], "student": sizes[1]},
            "verdict": verdict,
        }


@dataclass(frozen=True)
class _StyleTraining:
    config: StyleTrainConfig
    machine: Machine
    run: RunDirectory
    listener: Listener
    painting: Tensor
    training: Sequence[Path]

    def everything(self) -> _Trained:
        config = self.config
        network = perceptual(config.perceptual, config.perceptual_weights)
        content = crops(self.training, TrainingSize(config.steps, config.side_px, config.batch), config.seed)
        teacher = self._begun(begun_teacher)
        teacher.begin_with_colours([self.painting])
        task = TeacherTask(
            teacher, network, [self.painting], short_px=config.side_px, content_weight=config.content_weight
        )
        # A style is mostly in the norms (arXiv:1610.07629, section 3.2): where the body is learnt already they lead.
        body = 1.0 if config.start == "scratch" else 0.2
        rules = [Rule("group:styles", 1.0), Rule(".*", body)]
        train(
            task, {"content": content}, Course(config.steps, config.lr, config.seed, rules), self.machine,
            checkpoints=self.run.path / "work" / "teacher", on_step=self._tell("teacher", config.steps),
        )  # fmt: skip
        student = self._begun(begun_student)
        student.begin_with_colours(self.painting)
        lesson = StudentTask(student, teacher, torch.ones(1), network, [self.painting], short_px=config.side_px)
        train(
            lesson, {"content": content},
            Course(config.student_steps, 3 * config.lr, config.seed + 1, STUDENT_RULES), self.machine,
            checkpoints=self.run.path / "work" / "student",
            on_step=self._tell("student", config.student_steps),
        )  # fmt: skip
        return _Trained(teacher, student, StyleTerms(network), self.painting, config.side_px)

    def _begun(self, begin: Callable[[str], _Net]) -> _Net:
        """A network whose random weights depend on the seed alone, also where a training is taken up again."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            return begin(self.config.start)

    def _tell(self, name: str, steps: int) -> Callable[[StepRecord], None]:
        return step_teller(self.run, self.listener, name, steps)


def begun_teacher(start: str) -> TeacherNet:
    """A teacher of one style: random, or the packaged one's body with the mean of its styles' norms."""
    net = TeacherNet(1)
    if start == "packaged":
        packaged = packaged_net("teacher")
        tensors = {
            key: value.mean(dim=0, keepdim=True) if key.endswith((".scale", ".shift")) else value
            for key, value in packaged.state_dict().items()
        }
        net.load_state_dict(tensors)
    return net


def begun_student(start: str) -> StudentNet:
    """A student: random, or with the weights of a packaged one."""
    return StudentNet() if start == "scratch" else packaged_net("student")
