"""No figure: the small data sets of `safety_net.py`, and its jobs: commands with all that fixes what comes out.

The sets are copies and reductions of real ones, always the first files by name. Every job is a command line of
`regraft` as a person types it, in a folder that holds `data/`; what it writes goes to a folder of the job's name. None
has a budget of time, but for the demo, whose one second decides alike on every machine.
"""

from __future__ import annotations

import csv
import gzip
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("dog", "elephant", "house")
DOMAINS = ("photo", "art_painting", "cartoon")
IDX = ("images-idx3", "labels-idx1")
STYLES = ("composition", "scream", "shipwreck", "starry-night", "wave")
#: What every training is told, so that a graphics card or a processor with bf16 changes nothing.
CPU = "--device cpu --precision fp32"
TINY = f"--backbone scion:size=64 {CPU} --json"
LA_MUSE = "--style data/paintings/la_muse.png"
TRANSLATOR = "--size 32 --width 4 --blocks 1 --discriminator-width 4 --discriminator-layers 1 --scales 2 --pool 4"


@dataclass(frozen=True)
class Job:
    """`regraft` with these arguments. needs: jobs whose results it reads; stdin: what it is handed there."""

    name: str
    arguments: str
    needs: tuple[str, ...] = ()
    stdin: str = ""


def write_sets(shared: Path, data: Path) -> None:
    """Everything that the jobs read, from `shared/data` into the folder `data`."""
    real = shared / "data"
    for part, source, count in (("train", "train", 16), ("test", "val", 8)):
        for name in ("ants", "bees"):
            copy_first(real / "hymenoptera" / source / name, data / "bugs" / part / name, count)
    for name in ("ants", "bees"):
        copy_first(real / "hymenoptera" / "train" / name, data / "new" / name, 8, start=16)
        copy_first(data / "bugs" / "train" / name, data / "few" / name, 12)
        copy_first(data / "bugs" / "train" / name, data / "grouped" / name, 14, prefix=True)
    for domain in DOMAINS:
        for name in CLASSES:
            copy_first(real / "pacs" / domain / name, data / domain / name, 10)
    for name in CLASSES[:2]:
        copy_first(real / "pacs" / "photo" / name, data / "two_of_photo" / name, 20)
        copy_first(data / "cartoon" / name, data / "two_of_cartoon" / name, 10)
    write_rough(data / "grouped", data / "rough")
    write_table(data / "photo", data / "photo.csv")
    write_table(data / "cartoon", data / "cartoon.csv")
    for name in ("mnist", "usps"):
        write_digits(real / name, data / name, 120, 40)
    write_pngs(real / "usps", data / "digits", 75)
    write_style(real / "style", data)
    for kind in "AB":
        copy_first(real / "photo2painting" / f"train{kind}", data / f"set_{kind}", 14)


def copy_first(source: Path, target: Path, count: int, *, start: int = 0, prefix: bool = False) -> None:
    """The first pictures by name, from `start` on; with `prefix` named after groups of three: g0_….jpg."""
    target.mkdir(parents=True)
    for number, path in enumerate(sorted(source.iterdir())[start : start + count]):
        shutil.copyfile(path, target / (f"g{number // 3}_{path.name}" if prefix else path.name))


def write_rough(source: Path, target: Path) -> None:
    """A copy with a cut file, a duplicate, one that contradicts, grey of 16 bits, CMYK and a palette."""
    shutil.copytree(source, target)
    one, two, three, four, *_ = sorted((target / "ants").iterdir())
    (target / "ants" / "cut.jpg").write_bytes(one.read_bytes()[:900])
    shutil.copyfile(one, target / "ants" / "copy.jpg")
    shutil.copyfile(two, target / "bees" / "contradiction.jpg")
    with Image.open(three) as picture:
        deep = np.asarray(picture.convert("L")).astype(np.uint16) * 257
        picture.convert("P").save(target / "ants" / "palette.png")
    Image.fromarray(deep).save(target / "bees" / "deep.png")
    with Image.open(four) as picture:
        picture.convert("CMYK").save(target / "bees" / "print.tiff")


def write_table(folder: Path, out: Path) -> None:
    """image, label, group, part and grey, the picture's mean level, per picture of a folder per class."""
    with out.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter=";")
        writer.writerow(["image", "label", "group", "part", "grey"])
        for path in sorted(folder.rglob("*.jpg")):
            with Image.open(path) as picture:
                grey = float(np.asarray(picture.convert("L"), dtype=np.float64).mean())
            number = sorted(path.parent.iterdir()).index(path)
            part = ("train", "train", "val", "val", "test")[number % 5]
            group = f"{path.parent.name}{number // 2}"
            writer.writerow([path.relative_to(out.parent), path.parent.name, group, part, f"{grey:.3f}"])


def write_digits(source: Path, target: Path, train: int, test: int) -> None:
    """The first digits of a set in idx form, again in idx form."""
    target.mkdir()
    for part, count in (("train", train), ("t10k", test)):
        for kind, head in zip(IDX, (16, 8), strict=True):
            name = f"{part}-{kind}-ubyte"
            data = gzip.decompress((source / f"{name}.gz").read_bytes())
            shape = struct.unpack(f">{head // 4 - 1}I", data[4:head])
            body = data[head : head + count * int(np.prod(shape[1:]))]
            (target / name).write_bytes(data[:4] + struct.pack(f">{len(shape)}I", count, *shape[1:]) + body)


def write_pngs(source: Path, target: Path, count: int) -> None:
    """The first pictures of the digits 0, 1 and 2 as PNG in a folder per class."""
    pixels, labels = (gzip.decompress((source / f"train-{kind}-ubyte.gz").read_bytes()) for kind in IDX)
    rows, columns = struct.unpack(">II", pixels[8:16])
    pictures = np.frombuffer(pixels, np.uint8, offset=16).reshape(-1, rows, columns)
    for label in range(3):
        (target / str(label)).mkdir(parents=True)
        for index in np.flatnonzero(np.frombuffer(labels, np.uint8, offset=8) == label)[:count]:
            Image.fromarray(pictures[index]).save(target / str(label) / f"{index:05d}.png")


def write_style(source: Path, data: Path) -> None:
    """photos/ and paintings/ of 128 px, a photo with a transparent corner, a mask that is white on the left, and four
    photos to prune by, one of them cut off."""
    for kind, out in (("content", "photos"), ("style", "paintings")):
        (data / out).mkdir()
        for path in sorted((source / kind).iterdir())[:6]:
            with Image.open(path) as picture:
                small = picture.convert("RGB")
            small.thumbnail((128, 128), Image.Resampling.LANCZOS)
            small.save(data / out / f"{path.stem}.png")
    with Image.open(data / "photos" / "cat.png") as picture:
        seen = np.asarray(picture.convert("RGBA")).copy()
    seen[:30, :30, 3] = 60
    Image.fromarray(seen).save(data / "cut_out.png")
    mask = np.zeros(seen.shape[:2], np.uint8)
    mask[:, : seen.shape[1] // 2] = 255
    Image.fromarray(mask).save(data / "mask.png")
    (data / "four").mkdir()
    for path in sorted((data / "photos").iterdir())[:4]:
        shutil.copyfile(path, data / "four" / path.name)
    (data / "four" / "cat.png").write_bytes((data / "photos" / "cat.png").read_bytes()[:900])


def jobs() -> list[Job]:
    """All of them, each after those that it needs."""
    found = [*longest(), *fits(), *adaptations(), *of_models(), *styles(), *own_styles(), *rest()]
    names = [job.name for job in found]
    assert len(set(names)) == len(names) and all(set(job.needs) <= set(names[:i]) for i, job in enumerate(found))
    return found


def longest() -> list[Job]:
    """What is waited for least if it begins first. Pruning measures each channel of a student by itself."""
    train = f"style train {LA_MUSE} --content data/photos --name mine --folder {{out}}/models --runs {{out}} --json"
    prune = f"style prune style-train/models/mine.safetensors --content data/four {LA_MUSE} --json"
    return [
        Job("style-train", f"{train} --steps 3 --student-steps 3 --side 64 --batch 2"),
        # One second leaves no time to train on any machine: the probe is the answer.
        Job("demo", "demo --budget 1s --backbone scion:size=32 --runs {out} --json"),
        Job("style-prune", f"{prune} --steps 2 -o {{out}}/small.safetensors", ("style-train",)),
    ]


def fits() -> list[Job]:
    """`fit` on folders, tables, groups, folds, numbers; every kind of features; every candidate."""
    options = (
        "--optimizer sgd --mixup 0.2 --cutmix 0.5 --accumulate 2 --batch-size 8 --label-smoothing 0.1 --last 2 --ema 0 "
        "--augment affine --no-flip --no-refit --patience 1 --metric nll --lr 0.001 --deterministic --seed 3"
    )
    timm = "mobilenetv2_100:pad_type=same,size=96 --weights {shared}/weights/mobilenetv2_100_timm_same.safetensors"
    torchvision = "torchvision/squeezenet1_1:size=96 --weights {shared}/weights/squeezenet1_1.safetensors"
    probe = f"{CPU} --strategies probe --json --runs {{out}}"
    train = f"{TINY} --runs {{out}}"
    table = "fit --table data/photo.csv"
    return [
        Job("fit-folder", f"fit data/bugs {CPU} --epochs 1 --json --runs {{out}}"),
        Job("fit-folds", f"fit data/few {train} --epochs 0.5"),
        Job("fit-numbers", f"{table} --label grey --split part {train} --epochs 1"),
        Job("fit-table", f"{table} --split part {train} --epochs 1 --metric macro_f1"),
        Job("fit-options", f"fit data/bugs/train --test data/bugs/test {options} {train} --epochs 2 --tensorboard"),
        Job("fit-processes", f"fit data/bugs {train} --epochs 1 --devices 2 --strategies finetune"),
        Job("fit-layers", f"fit data/bugs --backbone scion:size=96,readout=layers {probe}"),
        Job("fit-readout", f"fit data/bugs --backbone scion:size=96,readout=auto,crop_pct=1.0 {probe}"),
        Job("fit-groups", f"{table} --label grey --group group --backbone scion:size=64 {probe}"),
        Job("fit-rough", f"fit data/rough --group patient --max-bad 0.2 --backbone scion:size=64 {probe}"),
        # From 64 pictures on OpenVINO or ONNX Runtime compute the features, from 200 on a part is held out.
        Job("fit-holdout", f"fit data/digits --no-flip --backbone scion:size=64 {probe}"),
        Job("fit-timm", f"fit data/bugs --backbone {timm} {probe}"),
        Job("fit-torchvision", f"fit data/bugs --backbone {torchvision} {probe}"),
        Job("fit-plan", f"fit data/bugs {CPU} --print-plan --last 2"),
    ]


def adaptations() -> list[Job]:
    """`adapt` with every method and setting, `generalise`, `distance`; several domains by their full paths."""
    pair, train = "data/photo data/cartoon", f"{TINY} --runs {{out}}"
    maps = "standardise,CORAL,SA,TCA,OT,AdaBN,BBSE,EM-prior,acquisition,BigAug,restyle"
    trained = (
        "MCC SHOT AFN BNM entropy infomax pseudo-label FixMatch mean-teacher TENT DDAN JAN",
        "DANN DomainConfusion ADDA CDAN CDAN+E BSP MCD MDD DDC DAN DeepCORAL CMD",
    )
    short = [",".join(f"{name}:length=0.05" for name in names.split()) for names in trained]
    three = " ".join(f"{{data}}/{domain}" for domain in DOMAINS)
    network = "--tune network --epochs 1 --batch-size 8"
    general = f"generalise {three} --backbone scion:size=64 --device cpu --steps 10 --json --runs {{out}}"
    return [
        Job("adapt-maps", f"adapt {pair} {train} --method {maps} --oracle data/cartoon"),
        Job("adapt-self", f"adapt {pair} {train} --method {short[0]} --validator SND,infomax,DEV"),
        Job("adapt-adversarial", f"adapt {pair} {train} --method {short[1]} --seed 1 --weight 0.5"),
        Job("adapt-several", f"adapt {three} {train} --method source-weighting,M3SDA:length=0.1"),
        Job("adapt-open", f"adapt data/two_of_photo data/cartoon {train} --setting open "
            "--method OSBP:length=0.1,AdaBN,CORAL --oracle data/cartoon"),
        Job("adapt-partial", f"adapt data/photo data/two_of_cartoon {train} --setting partial "
            "--method DANN:length=0.1,AdaBN --keep AdaBN"),
        Job("adapt-numbers", f"adapt --task regression --table data/photo.csv --label grey data/cartoon {train} "
            "--method CORAL,DANN:length=0.1 --oracle data/cartoon.csv"),
        Job("adapt-network", f"adapt {pair} {train} {network} --method DANN,AdaBN --restyle 0.5 --last 2 --lr 0.001"),
        Job("adapt-digits", f"adapt data/mnist data/usps --backbone lenet {CPU} {network} --json --runs {{out}} "
            "--method AdaBN,MCC,SHOT,FixMatch,mean-teacher --no-flip --augment affine --oracle data/usps"),
        Job("adapt-source-free", f"adapt --source-free fit-folder/LAST data/few {CPU} --epochs 1 --json "
            "--batch-size 8 --method AdaBN,SHOT --runs {out}", ("fit-folder",)),
        Job("generalise", general),
        Job("generalise-left-out", f"{general} --method ERM,IRM --choose leave-one-out"),
        Job("distance", "distance data/photo data/cartoon --backbone scion:size=64 --json"),
    ]  # fmt: skip


def of_models() -> list[Job]:
    """What a finished run is used for: `predict`, `evaluate`, `export`, `report`."""
    bugs, numbers, to = "fit-folder/LAST", "fit-numbers/LAST", "--device cpu --json --runs {out}"
    return [
        Job("predict-names", f"predict {bugs} data/new", ("fit-folder",)),
        Job("predict-json", f"predict {bugs} - --top 2 --threshold 0.8 --json", ("fit-folder",),
            "data/new/bees/*.jpg\ndata/cut_out.png\ndata/rough/ants\nnowhere.jpg\n"),
        Job("predict-numbers", f"predict {numbers} data/cartoon --json", ("fit-numbers",)),
        Job("predict-unknown", "predict adapt-open/LAST data/cartoon --json", ("adapt-open",)),
        Job("evaluate", f"evaluate {bugs} data/new {to}", ("fit-folder",)),
        Job("evaluate-numbers", f"evaluate {numbers} --table data/cartoon.csv --label grey --group group {to}",
            ("fit-numbers",)),
        Job("export", "export fit-layers/LAST --onnx {out}/model.onnx --json", ("fit-layers",)),
        Job("export-numbers", f"export {numbers} --onnx {{out}}/model.onnx --pictures data/cartoon --json",
            ("fit-numbers",)),
        # Of an evaluation, whose table shows no seconds.
        Job("report", "report evaluate/RUN", ("evaluate",)),
    ]  # fmt: skip


def styles() -> list[Job]:
    """`style` by every method, and every option that changes what a method does."""
    cat = f"style data/photos/cat.png {LA_MUSE} -o {{out}}/cat.png"
    shares = f"{LA_MUSE}:0.7 --style data/paintings/seated-nude.png:0.3"
    fixed = " ".join(f"--style {name}" for name in STYLES)
    return [
        Job("style-colour", f"style data/photos {LA_MUSE} --method colour --strength 0.6 -o {{out}}"),
        Job("style-reinhard", f"style data/cut_out.png {LA_MUSE} --method reinhard --report --ssim 0.9 --json "
            "-o {out}/cat.png"),
        Job("style-adain", cat),
        Job("style-adain-dial", f"{cat} --ssim 0.85 --refine 3"),
        Job("style-adaattn", f"{cat} --style data/paintings/seated-nude.png --mask data/mask.png:la_muse.png "
            "--method adaattn --keep 0.3 --passes 2 --keep-colour"),
        Job("style-mixture", f"style data/photos/cat.png {shares} --keep-colour-by histogram -o {{out}}/cat.jpg"),
        Job("style-gatys", f"{cat} --steps 6 --every 3 --kept data/mask.png --kept-weight 0.5"),
        Job("style-gatys-dial", f"{cat} --method gatys --steps 6 --ssim 0.85 --size 96"),
        Job("style-gatys-losses", f"{cat} --steps 3 --optimizer lbfgs --style-loss gram+wasserstein+histogram "
            "--tv-weight 0.1 --edge-weight 0.5 --content-weight 0.1 --start noise --seed 5 --size 96"),
        Job("style-gatys-large", f"{cat} --method gatys --steps 1 --size 1600 --perceptual scion"),
        Job("style-fixed", f"style data/photos/cat.png {fixed} --mask data/mask.png:wave -o {{out}}/cat.png"),
        # Above 4 million px in tiles. Under --max-memory their size would depend on what the process happens to hold.
        Job("style-tiles", "style data/photos/cat.png --style wave --size 2600 -o {out}/cat.png"),
        Job("style-evaluate", f"style evaluate style-adain/cat.png --content data/photos/cat.png {LA_MUSE} "
            "--method colour --repeats 2 --json", ("style-adain",)),
    ]  # fmt: skip


def own_styles() -> list[Job]:
    """A student of one's own, used and exported; CycleGAN, trained and applied."""
    mine, own = "style-train/models/mine.safetensors", ("style-train",)
    # So few steps that the time of an evaluation, which decides how many there are, allows the one at the end alone.
    epochs = "--epochs 0.5 --device cpu --precision fp32 --json"
    return [
        Job("style-own", f"style data/photos --style {mine} --runtime openvino -o {{out}}", own),
        Job("style-export", f"style export {mine} --onnx {{out}}/model.onnx --content data/photos --json", own),
        Job("style-export-int8", f"style export {mine} --onnx {{out}}/model.onnx --int8 --content data/photos "
            "--pixels float --json", own),
        Job("style-pruned", "style data/photos/cat.png --style style-prune/small.safetensors --runtime onnxruntime "
            "-o {out}/cat.png", ("style-prune",)),
        Job("style-translate", f"style translate data/set_A data/set_B -o {{out}}/run {TRANSLATOR} {epochs}"),
        Job("style-translate-on", f"style translate data/set_A data/set_B --test-a data/two_of_photo --test-b data/few "
            f"--runs {{out}} --from-picture --upsampling pixelshuffle --no-flip --ema 0 {TRANSLATOR} {epochs}"),
        Job("style-apply", "style apply style-translate/run data/set_A -o {out} --device cpu --json",
            ("style-translate",)),
        Job("style-apply-back", "style apply style-translate-on/LAST data/set_B -o {out} --direction BtoA --size 80",
            ("style-translate-on",)),
    ]  # fmt: skip


def rest() -> list[Job]:
    """What says something about the installation, mistakes, and the help of every verb."""
    verbs = ["fit", "adapt", "generalise", "distance", "predict", "evaluate", "export", "report", "models", "doctor"]
    verbs += ["demo", "style"]
    verbs += [f"style {verb}" for verb in ("picture", "evaluate", "train", "prune", "export", "translate", "apply")]
    return [
        Job("models", "models mobilenet --json"),
        Job("doctor", "doctor"),
        Job("mistake-backbone", "fit data/bugs --backbone lenet --runs {out}"),
        Job("mistake-folder", "adapt data/photo data/nowhere --runs {out}"),
        Job("mistake-style", "style data/photos/cat.png --style wave --steps 3 -o {out}/cat.png"),
        Job("help", "--help"),
        *(Job(f"help-{verb.replace(' ', '-')}", f"{verb} --help") for verb in verbs),
    ]
