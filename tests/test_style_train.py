"""`regraft style train` as a person uses it, and the tasks that train style networks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from conftest import Shell
from hostile_pictures import scene
from regraft.core.types import Batch
from regraft.style import perceptual
from regraft.style.networks.arbitrary_net import ArbitraryNet
from regraft.style.networks.model_file import load_style_model
from regraft.style.networks.perceptual import sprig_net
from regraft.style.networks.transfer_net import StudentNet, TeacherNet
from regraft.style.training.batch_losses import StyleTerms
from regraft.style.training.task import (
    MOST_FIDELITY,
    NOISE,
    ArbitraryTask,
    StudentTask,
    TeacherTask,
    fidelity_weight,
    noisy,
    style_targets,
    unit,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """painting.png and photos/, nine of them and a broken one."""
    rng = np.random.default_rng(0)
    Image.fromarray((scene(rng) // 2).astype(np.uint8)).save(tmp_path / "painting.png")
    (tmp_path / "photos").mkdir()
    for number in range(11):
        Image.fromarray(np.roll(scene(rng), 11 * number, axis=1)).save(tmp_path / "photos" / f"{number}.jpg")
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    return tmp_path


def quick(*more: str) -> tuple[str, ...]:
    return ("style", "train", "--style", "painting.png", "--content", "photos", "--name", "mine", "--steps", "3",
            "--student-steps", "3", "--side", "64", "--batch", "2", *more)  # fmt: skip


def test_a_painting_becomes_a_fast_style(files: Path, shell: Shell) -> None:
    code, out, err = shell(*quick("--json"))
    assert code == 0, err
    found = json.loads(out)
    assert Path(found["model"]) == Path("styles/mine.safetensors")
    assert found["parameters"]["teacher"] > 10 * found["parameters"]["student"]
    assert found["n_content"] + found["n_held_out"] == 11 and found["n_held_out"] == 1
    assert set(found["style_term"]) == {"unstylised", "teacher", "student"}
    model = load_style_model(files / "styles" / "mine.safetensors")
    assert model.kind == "student" and model.styles == ("mine",)
    assert model.card["style_term"] == found["style_term"]
    code, _, err = shell("style", "photos/1.jpg", "--style", "mine", "-o", "out.png")
    assert code == 0, err
    code, _, err = shell(*quick())
    assert code == 2 and "--force" in err


def test_a_training_is_taken_up_again(files: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted after the teacher, the same command gives the model of an uninterrupted one."""
    from regraft.recipes.style import train as style_train

    assert shell(*quick("--folder", "whole", "--fresh"))[0] == 0
    true_start = style_train.begun_student

    def interrupted(start: str) -> StudentNet:
        raise KeyboardInterrupt

    monkeypatch.setattr(style_train, "begun_student", interrupted)
    assert shell(*quick("--folder", "parts", "--fresh"))[0] == 130
    monkeypatch.setattr(style_train, "begun_student", true_start)
    code, _, err = shell(*quick("--folder", "parts"))
    assert code == 0 and "Taking up" in err
    nets = [load_style_model(files / folder / "mine.safetensors").net.state_dict() for folder in ("whole", "parts")]
    assert all(torch.equal(nets[0][key], nets[1][key]) for key in nets[0])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--name", "../evil"), "name"),
        (("--start", "nothing"), "packaged or scratch"),
        (("--content", "nowhere"), "nowhere"),
        (("--style", "photos/broken.jpg"), "broken.jpg"),
    ],
)
def test_mistakes_are_a_sentence(files: Path, shell: Shell, arguments: tuple[str, ...], words: str) -> None:
    code, _, err = shell(*quick(*arguments))
    assert code != 0 and words in err.replace("\n", " ") and "Unexpected" not in err


def fell(task: torch.nn.Module, batches: dict[str, Batch], steps: int) -> tuple[float, float]:
    """The loss at the first and over the last of some steps on the same batch."""
    torch.manual_seed(0)
    optimizer = torch.optim.Adam([p for p in task.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for step in range(steps):
        torch.manual_seed(step % 2)  # what is drawn inside is the same every second step
        loss = task(batches, step / steps).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return float(np.mean(losses[:2])), float(np.mean(losses[-2:]))


def test_every_task_lowers_its_loss() -> None:
    network = perceptual("sprig")
    content = Batch((drawn(2, 3, 64, 64) * 255).byte())
    styles = [drawn(3, 70, 64, seed=1) ** 3, drawn(3, 64, 80, seed=2) * torch.tensor([1.0, 0.2, 0.1]).view(3, 1, 1)]
    teacher = TeacherNet(2, width=16, blocks=1)
    first, last = fell(TeacherTask(teacher, network, styles, short_px=64), {"content": content}, 16)
    assert last < 0.9 * first
    lesson = StudentTask(StudentNet((4, 8, 16), (8,)), teacher, torch.tensor([0.5, 0.5]), network, styles, short_px=64)
    first, last = fell(lesson, {"content": content}, 16)
    assert last < 0.9 * first
    task = ArbitraryTask(ArbitraryNet(sprig_net()), network)
    style = Batch((drawn(2, 3, 64, 64, seed=3) ** 3 * 255).byte())
    first, last = fell(task, {"content": content, "style": style}, 16)
    assert last < 0.9 * first


def test_the_teacher_is_not_changed_by_its_student() -> None:
    teacher = TeacherNet(1, width=16, blocks=1)
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    lesson = StudentTask(
        StudentNet((4, 8, 16), (8,)), teacher, torch.ones(1), perceptual("sprig"), [drawn(3, 64, 64)], short_px=64
    )
    lesson.train()
    fell(lesson, {"content": Batch(drawn(2, 3, 64, 64))}, 2)
    assert all(torch.equal(before[key], value) for key, value in teacher.state_dict().items())


def test_fidelity_grows_evenly_in_its_logarithm() -> None:
    weights = fidelity_weight(torch.tensor([0.0, 0.5, 1.0]))
    assert float(weights[1] / weights[0]) == pytest.approx(MOST_FIDELITY**0.5, rel=1e-4)
    assert float(weights[2] / weights[1]) == pytest.approx(MOST_FIDELITY**0.5, rel=1e-4)
    assert float(weights[2]) == pytest.approx(20.0, rel=1e-4)  # what a picture that hardly changes is worth
    assert torch.equal(unit(torch.tensor([255], dtype=torch.uint8)), torch.ones(1))


def test_a_picture_has_no_style_term_to_itself() -> None:
    terms = StyleTerms(perceptual("sprig"))
    painting = drawn(3, 64, 64)
    targets = style_targets(terms, [painting], 64)
    found = terms(painting[None], painting[None], targets)
    assert float(found["style"]) < 1e-5 and float(found["content"]) < 1e-6


def test_half_of_the_pictures_are_noisy_by_no_more_than_promised() -> None:
    torch.manual_seed(0)
    pictures = torch.full((200, 3, 24, 24), 0.5)
    found = noisy(pictures)
    deviation = (found - pictures).flatten(1).std(dim=1)
    assert 70 < int((deviation == 0).sum()) < 130
    assert 0.8 * NOISE < float(deviation.max()) < 1.1 * NOISE
    assert float(noisy(torch.ones(8, 3, 24, 24)).max()) <= 1


def test_the_student_sees_noise_in_training_alone() -> None:
    torch.manual_seed(0)
    teacher, student = TeacherNet(1), StudentNet((4, 8, 16), (8,))
    seen: list[tuple[str, Tensor]] = []
    for name, net in (("teacher", teacher), ("student", student)):
        net.register_forward_pre_hook(lambda _, given, name=name: seen.append((name, given[0])))
    lesson = StudentTask(student, teacher, torch.ones(1), perceptual("sprig"), [torch.rand(3, 64, 64)], short_px=64)
    x = torch.randint(0, 256, (6, 3, 64, 64), dtype=torch.uint8)
    for training in (True, False):
        seen.clear()
        lesson.train(training)({"content": Batch(x, None)}, 0.5)
        views = dict(seen)
        assert torch.equal(views["teacher"], unit(x))
        assert torch.equal(views["student"], unit(x)) is not training
