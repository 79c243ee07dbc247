"""Train the embedded backbone `scion`: distil MobileNetV2 into it, stage by stage and then end to end.

    python bench/embedded/train.py --data ../shared/data \
        --teacher ../shared/weights/mobilenetv2_100_timm_same.safetensors --out runs/embedded --hours 12

Recipe. First each stage of the student gets the *teacher's* input of that stage and learns to give the teacher's output
(teacher-forced stages: Koratana et al., LIT, ICML 2019, arXiv:1810.01937), which is a set of short, well-conditioned
regressions; then the stages are joined and trained end to end on the pooled feature, the logits (Hinton et al. 2015,
arXiv:1503.02531) and, with a falling weight, the stage outputs. The teacher sees the same augmented crops (Beyer et
al., "A good teacher is patient and consistent", CVPR 2022, arXiv:2106.05237). No labels are used.

The schedule is by elapsed hours (warm-up, constant, linear fall over the last quarter), so the same command resumes,
and `--hours` may be raised later. Weights are written every five minutes: `student.safetensors` (the running average).
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
from pictures import Pictures, prefetched
from safetensors.torch import load_file, save_file
from timm.models import EfficientNet
from torch import Tensor, nn

from regraft.images.backbones.scion import Scion

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


class Teacher(nn.Module):
    """MobileNetV2 as one function: maps at strides 4, 8, 16, 32, the pooled feature and the logits."""

    def __init__(self, weights: Path) -> None:
        super().__init__()
        net = timm.create_model("mobilenetv2_100", pad_type="same")
        assert isinstance(net, EfficientNet)
        self.net = net
        self.net.load_state_dict(load_file(weights))
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.net.bn1(self.net.conv_stem(x))
        maps = []
        for index, block in enumerate(self.net.blocks):
            x = block(x)
            if index in (1, 2, 4, 6):
                maps.append(x)
        pooled = self.net.bn2(self.net.conv_head(x)).mean(dim=(2, 3))
        return (*maps, pooled, self.net.classifier(pooled))


class FastTeacher:
    """The same through OpenVINO (three times eager PyTorch on a CPU); falls back to PyTorch on another device."""

    def __init__(self, teacher: Teacher, batch: int, device: torch.device) -> None:
        self.teacher, self.batch, self.device = teacher.to(device), batch, device
        self.compiled: dict[int, Callable[[np.ndarray], Mapping[Any, np.ndarray]]] = {}

    def __call__(self, x: Tensor) -> list[Tensor]:
        if self.device.type != "cpu":
            with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16):
                return [t.float() for t in self.teacher(x)]
        import openvino

        size = x.shape[-1]
        if size not in self.compiled:
            model = openvino.convert_model(self.teacher, example_input=x)
            model.reshape([self.batch, 3, size, size])
            self.compiled[size] = openvino.Core().compile_model(
                model, "CPU", {"INFERENCE_NUM_THREADS": torch.get_num_threads()}
            )
        outputs = self.compiled[size](x.numpy())
        return [torch.from_numpy(array.copy()) for array in outputs.values()]


def relative_error(student: Tensor, teacher: Tensor, scale: Tensor) -> Tensor:
    """Squared error over the teacher's variance per channel: 1 for a student that says only the mean."""
    return ((student.float() - teacher).square() / scale.view(1, -1, *[1] * (teacher.dim() - 2))).mean()


class Distillation:
    def __init__(self, student: Scion, classifier: nn.Linear) -> None:
        self.student, self.classifier = student, classifier
        self.scales: list[Tensor] = []

    def calibrate(self, targets: list[Tensor]) -> None:
        """Take the teacher's variance per channel from one batch; floors keep dead channels from dominating."""
        for t in targets[:5]:
            variance = t.var(dim=[0, *range(2, t.dim())])
            self.scales.append(torch.maximum(variance, 0.05 * variance.mean()))

    def ends(self, pooled: Tensor, targets: list[Tensor]) -> Tensor:
        pooled = pooled.float()
        logits = self.classifier(pooled).float()
        agreement = F.kl_div(logits.log_softmax(1), targets[5].log_softmax(1), reduction="batchmean", log_target=True)
        cosine = 1 - F.cosine_similarity(pooled, targets[4]).mean()
        return relative_error(pooled, targets[4], self.scales[4]) + 2 * cosine + 0.5 * agreement

    def forced(self, x: Tensor, targets: list[Tensor]) -> tuple[Tensor, dict[str, float]]:
        s = self.student
        inputs = [s.stem(x), targets[0], targets[1], targets[2]]
        errors = [
            relative_error(stage(given), target, scale)
            for stage, given, target, scale in zip(
                (s.stage1, s.stage2, s.stage3, s.stage4), inputs, targets, self.scales, strict=False
            )
        ]
        head = self.ends(s.pool(targets[3]), targets)
        return sum(errors, head), {f"stage{i + 1}": e.item() for i, e in enumerate(errors)} | {"ends": head.item()}

    def joined(self, x: Tensor, targets: list[Tensor], weight: float) -> tuple[Tensor, dict[str, float]]:
        maps = self.student.forward_maps(x)
        errors = [
            relative_error(m, target, scale) for m, target, scale in zip(maps, targets, self.scales, strict=False)
        ]
        ends = self.ends(self.student.pool(maps[3]), targets)
        return ends + weight * sum(errors), (
            {f"stage{i + 1}": e.item() for i, e in enumerate(errors)} | {"ends": ends.item()}
        )


def plan(progress: float, further: bool = False) -> tuple[str, int, float, float]:
    """Progress in [0, 1] → phase, crop size in px, learning-rate factor, weight of the stage terms.

    further: of a training that begins from distilled weights, with larger crops and a long fall of the rate.
    """
    if further:
        size = 128 if progress < 0.6 else 160 if progress < 0.88 else 192
        factor = min(1.0, progress / 0.02) if progress < 0.3 else max(0.0, (1 - progress) / 0.7)
        return "joined", size, factor, 1.0 - 0.8 * progress
    size = 96 if progress < 0.45 else 128 if progress < 0.85 else 160
    factor = min(1.0, progress / 0.01) if progress < 0.75 else max(0.0, (1 - progress) / 0.25)
    if progress < 0.12:
        return "forced", size, factor, 1.0
    return "joined", size, factor, 1.0 - 0.8 * progress


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--hours", type=float, default=12.0)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true", help="the student in bf16, for processors that have it")
    parser.add_argument("--init", type=Path, help="weights to go on from, with a plan of its own")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    device = torch.device(args.device)
    args.out.mkdir(parents=True, exist_ok=True)
    teacher = Teacher(args.teacher)
    fast = FastTeacher(teacher, args.batch, device)
    student = Scion().to(device).to(memory_format=torch.channels_last)
    if args.init:
        student.load_state_dict({k: v.float() for k, v in load_file(args.init).items()})
    average = torch.optim.swa_utils.AveragedModel(
        student,
        multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.998),  # type: ignore[no-untyped-call]
        use_buffers=True,
    )
    matrices = [p for p in student.parameters() if p.dim() > 1]
    others = [p for p in student.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.02}, {"params": others, "weight_decay": 0.0}], lr=args.lr
    )
    state = {"elapsed_s": 0.0, "crops": 0, "steps": 0}
    checkpoint = args.out / "state.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True, map_location=device)
        student.load_state_dict(saved["student"])
        average.load_state_dict(saved["average"])
        optimizer.load_state_dict(saved["optimizer"])
        state = saved["state"]

    def save(name: str = "state.pt") -> None:
        everything = {
            "student": student.state_dict(),
            "average": average.state_dict(),
            "optimizer": optimizer.state_dict(),
            "state": state,
        }
        torch.save(everything, args.out / "new")
        (args.out / "new").rename(args.out / name)
        weights = {k: v.contiguous() for k, v in average.module.state_dict().items()}
        save_file(weights, args.out / "student.safetensors")

    pictures = Pictures(args.data)
    rng = random.Random(f"{args.seed} {state['steps']}")
    distillation = Distillation(student, teacher.net.classifier)
    norm = (MEAN.to(device), STD.to(device))
    limit_s = args.hours * 3600

    def ready() -> Tensor:
        size = plan(min(1.0, state["elapsed_s"] / limit_s), bool(args.init))[1]
        return pictures.batch(args.batch, size, rng)

    probe = random.Random(1)
    x = (pictures.batch(args.batch, 128, probe).to(device) - norm[0]) / norm[1]
    distillation.calibrate(fast(x))
    batches = prefetched(ready)
    student.train()
    log = (args.out / "log.jsonl").open("a")
    tick, last_save = time.monotonic(), state["elapsed_s"]
    while state["elapsed_s"] < limit_s:
        progress = state["elapsed_s"] / limit_s
        phase, _, factor, weight = plan(progress, bool(args.init))
        for group in optimizer.param_groups:
            group["lr"] = args.lr * factor
        x = ((next(batches).to(device) - norm[0]) / norm[1]).contiguous(memory_format=torch.channels_last)
        targets = fast(x.contiguous())
        with torch.autocast(device.type, torch.bfloat16, enabled=args.bf16):
            forced = phase == "forced"
            loss, parts = distillation.forced(x, targets) if forced else distillation.joined(x, targets, weight)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(student.parameters(), 5.0)
        optimizer.step()
        average.update_parameters(student)
        now = time.monotonic()
        state["elapsed_s"] += min(now - tick, 60.0)  # a process that was stopped for a while has not trained meanwhile
        tick = now
        state["steps"] += 1
        state["crops"] += args.batch
        if state["steps"] % 50 == 0:
            rate = state["crops"] / state["elapsed_s"]
            record = {
                "progress": round(progress, 4),
                "phase": phase,
                "size": x.shape[-1],
                "crops_per_s": round(rate, 1),
            }
            record |= state | {"loss": round(loss.item(), 4)} | {k: round(v, 4) for k, v in parts.items()}
            log.write(json.dumps(record) + "\n")
            log.flush()
        if state["elapsed_s"] - last_save > 300:
            save()
            last_save = state["elapsed_s"]
            if 0.74 < progress < 0.75:
                save("before_cooldown.pt")
    save()


if __name__ == "__main__":
    main()
