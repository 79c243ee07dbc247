"""Train the style networks that come with the package: the teacher of all styles, its students, and any style.

    python bench/embedded/train_styles.py arbitrary --data ../shared/data --out runs/arbitrary
    python bench/embedded/train_styles.py teacher --data ../shared/data --out runs/teacher
    python bench/embedded/train_styles.py attention --data ../shared/data --out runs/attention --init ARBITRARY
    python bench/embedded/train_styles.py student --data ../shared/data --out runs/student --teacher FILE --style wave

Content pictures: `pacs/photo` and `hymenoptera/train`. Paintings of `arbitrary`: `pacs/art_painting` and
`photo2painting/trainB`, so that the ten of `style` are new to it. The teacher's five styles are public-domain paintings
of `style`; no painting is copied into the weights' file. `attention` and a student begin from the others' files. A
training has one stretch or two, small crops and then large ones; the same command resumes. Losses go to OUT/log.jsonl,
weights to OUT/KIND.safetensors.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from regraft.core.types import Rule, Stream, Task
from regraft.engine import StepRecord, launch
from regraft.images.picture import read_picture
from regraft.style import perceptual
from regraft.style.networks.arbitrary_net import ArbitraryNet
from regraft.style.networks.perceptual import sprig_net
from regraft.style.networks.transfer_net import StudentNet, TeacherNet
from regraft.style.training.steps import STUDENT_RULES, Course, TrainingSize, crops, train, training_pictures
from regraft.style.training.task import ArbitraryTask, StudentTask, TeacherTask

STYLES = {"starry-night": "starry_night_google.jpg", "wave": "wave.jpg", "scream": "the_scream.jpg",
          "shipwreck": "shipwreck.jpg", "composition": "composition_vii.jpg"}  # fmt: skip
STRETCHES = {"arbitrary": "9000x128x4", "attention": "300x160x4", "teacher": "3200x128x4",
             "student": "900x128x4,150x224x4"}  # fmt: skip
RATES = {"arbitrary": 1e-3, "attention": 6e-4, "teacher": 1e-3, "student": 3e-3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("arbitrary", "attention", "teacher", "student"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--perceptual", default="sprig")
    parser.add_argument("--perceptual-weights", type=Path)
    parser.add_argument("--teacher", type=Path)
    parser.add_argument("--init", type=Path)
    parser.add_argument("--style", choices=sorted(STYLES))
    parser.add_argument("--stretches", help="STEPSxSIDExBATCH, in order; those of the packaged networks unless told")
    parser.add_argument("--lr", type=float, help="those of the packaged networks unless told")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", default="auto", help="auto is bf16 where the processor has it, else fp32")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    stretches, lr = args.stretches or STRETCHES[args.kind], args.lr or RATES[args.kind]
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    machine = launch(device="cpu", precision=args.precision, seed=args.seed)
    network = perceptual(args.perceptual, args.perceptual_weights)
    photos, _ = training_pictures([args.data / "pacs" / "photo", args.data / "hymenoptera" / "train"])
    paintings, _ = training_pictures([args.data / "pacs" / "art_painting", args.data / "photo2painting" / "trainB"])
    styles = {name: read_picture(args.data / "style" / "style" / file).pixels for name, file in STYLES.items()}
    log = (args.out / "log.jsonl").open("a")

    def tell(record: StepRecord) -> None:
        if record.step % 20 == 0:
            row = {"step": record.step, "steps": record.steps, "loss": round(record.loss, 4),
                   "per_s": round(record.rate, 2), "elapsed_s": round(record.elapsed_s)}  # fmt: skip
            log.write(json.dumps(row | {k: round(v, 4) for k, v in record.logs.items()}) + "\n")
            log.flush()

    net: torch.nn.Module
    if args.kind in ("arbitrary", "attention"):
        encoder = sprig_net(args.perceptual_weights)
        net = ArbitraryNet(encoder, attention=args.kind == "attention")
    elif args.kind == "teacher":
        net = TeacherNet(len(STYLES))
        net.begin_with_colours(list(styles.values()))
    else:
        net = StudentNet()
        net.begin_with_colours(styles[args.style])
    if args.init:
        print(net.load_state_dict(load_file(args.init), strict=args.kind != "attention"))
    for number, text in enumerate(stretches.split(",")):
        size = TrainingSize(*map(int, text.split("x")))
        streams: dict[str, Stream] = {"content": crops(photos, size, args.seed)}
        task: Task
        if isinstance(net, ArbitraryNet):
            task = ArbitraryTask(net, network)
            streams["style"] = crops(paintings, size, args.seed + 1)
        elif isinstance(net, TeacherNet):
            task = TeacherTask(net, network, list(styles.values()), short_px=size.side_px)
        else:
            teacher = TeacherNet(len(STYLES))
            teacher.load_state_dict(load_file(args.teacher))
            shares = torch.eye(len(STYLES))[list(STYLES).index(args.style)]
            assert isinstance(net, StudentNet)
            task = StudentTask(net, teacher, shares, network, [*styles.values()], short_px=size.side_px)
        rules = STUDENT_RULES if isinstance(net, StudentNet) else (Rule(".*", 1.0),)
        result = train(
            task, streams, Course(size.steps, lr if number == 0 else lr / 2, args.seed + number, rules), machine,
            checkpoints=args.out / f"checkpoints{number}", on_step=tell,
        )  # fmt: skip
        save_file({k: v.contiguous() for k, v in net.state_dict().items()}, args.out / f"{args.kind}.safetensors")
        print(text, result, flush=True)


if __name__ == "__main__":
    main()
