"""Put trained style networks into the package, in half precision, each with what is known of it.

    python bench/embedded/package_styles.py --runs runs --shared ../shared [--before earlier-runs --share 0.75]

Reads RUNS/arbitrary/arbitrary.safetensors, RUNS/attention/attention.safetensors, RUNS/teacher/teacher.safetensors and
RUNS/student-STYLE/student.safetensors, whichever are there, as `train_styles.py` wrote them; students need the teacher.
With --before, `adain` and `adaattn` are averages of their weights there, in that share, and in RUNS, which went on from
there (Wortsman et al. 2022, "Model soups", arXiv:2203.05482): between strokes and what noise costs.
A student's card tells the style term on photographs that no training saw (`style/content`), untouched, by the teacher
and by the student.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from train_styles import STYLES

from regraft.images.picture import read_picture
from regraft.style import perceptual
from regraft.style.figures.evaluation import centre_square
from regraft.style.networks.arbitrary_net import ArbitraryNet
from regraft.style.networks.model_file import StyleModel, save_style_model
from regraft.style.networks.perceptual import sprig_net
from regraft.style.networks.transfer_net import StudentNet, TeacherNet
from regraft.style.training.batch_losses import StyleTerms, select
from regraft.style.training.task import style_targets

PACKAGED = Path(__file__).parents[2] / "src/regraft/weights"
SIDE_PX = 256


def trained(folder: Path) -> dict[str, Any]:
    """Steps and seconds of each stretch, from the log."""
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    ends = [a for a, b in zip(rows, [*rows[1:], {"step": 0}], strict=True) if b["step"] < a["step"]]
    return {"steps": [row["step"] for row in ends], "seconds": [row["elapsed_s"] for row in ends]}


@torch.no_grad()
def style_terms(teacher: TeacherNet, student: StudentNet, style: str, shared: Path) -> dict[str, float]:
    """The mean style term over the photographs: untouched, by the teacher, by the student."""
    folder = shared / "data" / "style"
    photos = torch.stack(
        [centre_square(read_picture(path).pixels, SIDE_PX) for path in sorted((folder / "content").iterdir())]
    )
    paintings = [read_picture(folder / "style" / file).pixels for file in STYLES.values()]
    terms = StyleTerms(perceptual("sprig"))
    shares = torch.eye(len(STYLES))[[list(STYLES).index(style)]]
    targets = select(style_targets(terms, paintings, SIDE_PX), shares)

    def term(result: torch.Tensor) -> float:
        found = terms.network(result.clamp(0, 1), terms.network.style_layers)
        return float(terms.style(terms.moments(found), targets).mean())

    return {"unstylised": term(photos), "teacher": term(teacher(photos, shares.expand(len(photos), -1))),
            "student": term(student(photos))}  # fmt: skip


def averaged(path: Path, before: Path | None, share: float) -> dict[str, torch.Tensor]:
    """The weights of a file, or their average with those of the same name in a folder of earlier runs."""
    found = load_file(path)
    if before is None:
        return found
    earlier = load_file(before / path.parent.name / path.name)
    return {name: torch.lerp(value, earlier[name], share) for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[3] / "shared")
    parser.add_argument("--before", type=Path)
    parser.add_argument("--share", type=float, default=0.75, help="of --before")
    args = parser.parse_args()
    licence = {"licence": "Apache-2.0"}
    for kind, name in (("arbitrary", "adain"), ("attention", "adaattn")):
        path = args.runs / kind / f"{kind}.safetensors"
        if path.is_file():
            net = ArbitraryNet(sprig_net(), attention=kind == "attention")
            net.load_state_dict(averaged(path, args.before, args.share))
            save_style_model(PACKAGED / f"{name}.safetensors",
                             StyleModel("arbitrary", net, (), licence | trained(path.parent)), half=True)  # fmt: skip
    path = args.runs / "teacher" / "teacher.safetensors"
    teacher = TeacherNet(len(STYLES))
    if path.is_file():
        teacher.load_state_dict(load_file(path))
        teacher.eval()
        model = StyleModel("teacher", teacher, tuple(STYLES), licence | trained(path.parent))
        save_style_model(PACKAGED / "teacher.safetensors", model, half=True)
    for style in STYLES if path.is_file() else ():
        path = args.runs / f"student-{style}" / "student.safetensors"
        if path.is_file():
            student = StudentNet()
            student.load_state_dict(load_file(path))
            found = style_terms(teacher, student.eval(), style, args.shared)
            kept = (found["unstylised"] - found["student"]) / (found["unstylised"] - found["teacher"])
            card = licence | trained(path.parent) | {"style_term": found, "kept_share": kept}
            save_style_model(
                PACKAGED / f"style-{style}.safetensors", StyleModel("student", student, (style,), card), half=True
            )
            print(style, {key: round(value, 3) for key, value in found.items()}, f"keeps {kept:.1%}")
    for path in sorted(PACKAGED.glob("*.safetensors")):
        print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
