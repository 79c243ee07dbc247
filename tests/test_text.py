"""Texts: read in any usual encoding, audited, cut into tokens, learned from, and answered about by the run alone."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from regraft.core.errors import DataError, UnreadableError, UsageError, WeightsError
from regraft.data.audit import audit
from regraft.data.encoding import decode_text
from regraft.data.modality import StreamOptions
from regraft.data.reading import Reading, read_source
from regraft.data.sample import Sample
from regraft.tasks.modalities import modality_in, modality_named
from regraft.text.inputs import expand_inputs, shortened
from regraft.text.look import near_pairs, words_of
from regraft.text.modality import TEXTS
from regraft.text.read import read_text
from regraft.text.shown import Excerpts
from regraft.text.spec import TextSpec

pytest.importorskip("transformers")
pytest.importorskip("tokenizers")

GOOD, BAD = ["good", "fine", "warm", "bright"], ["bad", "dull", "cold", "grey"]
FILLER = ["film", "story", "scene", "the", "a", "with", "and", "long"]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the transformers layout: two small layers with random weights and a tokenizer of whole words."""
    import tokenizers
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModel

    folder = tmp_path_factory.mktemp("nets") / "tiny-bert"
    folder.mkdir()
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *GOOD, *BAD, *FILLER])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_truncation(7)  # baked in, as in many files: the backbone's own limit replaces it
    tokenizer.save(str(folder / "tokenizer.json"))
    described = {
        "model_type": "bert", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 32, "max_position_embeddings": 40, "vocab_size": len(vocabulary), "pad_token_id": 0,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(described))
    torch.manual_seed(0)
    net = AutoModel.from_config(AutoConfig.for_model(**described))
    save_file({k: v.half().contiguous() for k, v in net.state_dict().items()}, folder / "model.safetensors")
    return folder


def sentences(n: int, seed: int = 0) -> list[tuple[str, str]]:
    """Texts whose class hangs on their words, no two alike."""
    draw = np.random.default_rng(seed)
    found: dict[str, str] = {}
    while len(found) < n:
        label = ("up", "down")[len(found) % 2]
        words = [*draw.choice(GOOD if label == "up" else BAD, 3), *draw.choice(FILLER, 6)]
        found[" ".join(draw.permutation(words))] = label
    return list(found.items())


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "reviews.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["body", "stars"])
        rows.writerows(sentences(60))
    return path


# ---- reading and the audit


@pytest.mark.parametrize(
    ("data", "text", "encoding"),
    [
        ("déjà vu".encode(), "déjà vu", "utf-8"),
        (b"\xef\xbb\xbfplain", "plain", "utf-8-sig"),
        ("déjà vu".encode("utf-16"), "déjà vu", "utf-16"),
        ("“déjà” vu".encode("cp1252"), "“déjà” vu", "cp1252"),
    ],
)
def test_encodings_are_told_apart(data: bytes, text: str, encoding: str) -> None:
    assert decode_text(data, "x") == (text, encoding)


@pytest.mark.parametrize("data", [b"a\0b", b"\x81\x8d", b"\xff\xfea"])
def test_what_is_no_text_is_refused(data: bytes) -> None:
    with pytest.raises(UnreadableError) as told:
        decode_text(data, "x")
    assert told.value.kind == "binary"


def test_the_audit_names_what_is_wrong(tmp_path: Path) -> None:
    for label, texts in {
        "up": [b"good film", b"Good, FILM!", b"warm story", b"same words", b"", "d\xe9j\xe0".encode("cp1252")],
        "down": [b"bad film", b"same words", b"cold story", b"\0\0", b"dull", b"grey scene"],
    }.items():
        (tmp_path / label).mkdir()
        for i, data in enumerate(texts):
            (tmp_path / label / f"{i}.txt").write_bytes(data)
    source = read_source([tmp_path], TEXTS)
    usable, facts, found = audit(source, TEXTS, max_bad=0.5)
    counts = {finding.kind: finding.count for finding in found.findings}
    assert counts["empty"] == 1 and counts["binary"] == 1 and counts["cp1252"] == 1
    assert counts["label-conflict"] == 2 and counts["near-duplicate"] == 2
    assert len(usable) == len(facts) == found.n_usable == 8 and found.n_files == 12
    said = " ".join(finding.sentence for finding in found.findings)
    assert "texts" in said and "picture" not in said
    assert len({sample.group for sample in usable.samples if sample.group}) == 1


def test_words_are_what_near_copies_share() -> None:
    assert words_of("It's  GREAT!") == words_of("it s great") and words_of("!?") == "!?"
    looks = [TEXTS.look(Sample(Path("t"), text=text, row=2)) for text in ("One two", "one, TWO", "two one", "ONE TWO.")]
    assert near_pairs(looks) == [(0, 1), (0, 3)]


def test_a_table_holds_its_texts(table: Path) -> None:
    source = read_source([], TEXTS, Reading(table=table, column="body", label="stars"))
    assert len(source) == 60 and source.classes == ("down", "up") and source.many == "texts"
    assert source.samples[0].name == "reviews.csv:2" and source.samples[0].text == sentences(60)[0][0]
    with pytest.raises(DataError, match=r"--text.*Did you mean 'body'"):
        read_source([], TEXTS, Reading(table=table, column="bodi", label="stars"))


def test_rows_that_say_the_same_are_rows_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": "one", "label": "a"}\n\n{"text": "one", "label": "a"}\n{"label": "b"}\n')
    source = read_source([], TEXTS, Reading(table=path))
    assert [sample.text for sample in source.samples] == ["one", "one", ""]
    assert [finding.kind for finding in audit(source, TEXTS, max_bad=0.5)[2].findings if finding.left_out] == ["empty"]


def test_a_table_in_another_encoding_is_read_and_said(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("text;label\nd\xe9j\xe0;a\nvu;b\n".encode("cp1252"))
    source = read_source([], TEXTS, Reading(table=path))
    assert source.samples[0].text == "déjà" and "cp1252" in source.skipped[0]


def test_folders_say_which_modality_they_are_of(tmp_path: Path) -> None:
    assert modality_in([tmp_path]).name == "image"
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.txt").write_text("x")
    assert modality_in([tmp_path]).name == "text"
    (tmp_path / "a" / "1.png").write_bytes(b"")
    assert modality_in([tmp_path]).name == "image"
    with pytest.raises(UsageError, match="'text'"):
        modality_named("texts")


# ---- the backbone


def features(backbone: Any, texts: list[str]) -> Any:
    reader = TEXTS.reader(backbone)
    with torch.no_grad():
        return backbone.eval()(reader.collate([reader.read(text) for text in texts]))


def test_groups_are_total_disjoint_and_ordered(tiny: Path) -> None:
    backbone = TEXTS.create(str(tiny))
    groups = backbone.layer_groups()
    assert list(groups) == ["embeddings", "layer0", "layer1"]
    named = [name for names in groups.values() for name in names]
    assert sorted(named) == sorted(name for name, _ in backbone.named_parameters())
    assert all(parameter.dtype == torch.float32 for parameter in backbone.parameters())


def test_pooled_is_the_mean_of_what_is_no_padding(tiny: Path) -> None:
    backbone = TEXTS.create(str(tiny))
    both = features(backbone, ["good film", "the long story with a bad scene"])
    alone = features(backbone, ["good film"])
    torch.testing.assert_close(both.pooled[:1], alone.pooled, atol=1e-5, rtol=0)
    torch.testing.assert_close(alone.pooled, alone.maps[-1].mean(dim=1))
    assert len(both.maps) == 3 and both.pooled.shape == (2, backbone.feature_dim)


def test_a_layer_can_be_chosen(tiny: Path) -> None:
    whole, first = TEXTS.create(str(tiny)), TEXTS.create(f"{tiny}:layer=1,tokens=5")
    expected = features(whole, ["good film"]).maps[1].mean(dim=1)
    torch.testing.assert_close(features(first, ["good film"]).pooled, expected)
    assert list(first.layer_groups()) == ["embeddings", "layer0"]
    assert len(TEXTS.reader(first).read("good film and a warm story")) == 5
    assert len(TEXTS.reader(whole).read("good " * 60)) == 40  # as many as it has positions for


def test_fresh_weights_are_other_weights(tiny: Path) -> None:
    backbone = TEXTS.create(str(tiny))
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    backbone.reset_parameters()
    after = backbone.state_dict()
    assert before.keys() == after.keys()
    drawn = [name for name in before if "LayerNorm" not in name and "bias" not in name]
    assert len(drawn) > 10 and all(not torch.equal(before[name], after[name]) for name in drawn)


def test_companions_rebuild_the_network(tiny: Path) -> None:
    backbone = TEXTS.create(f"{tiny}:layer=1")
    spec = TextSpec.from_json(json.loads(json.dumps(backbone.input_spec.to_json())))
    again = TEXTS.build(backbone.recipe, spec, backbone.companions())
    again.load_state_dict(backbone.state_dict())
    torch.testing.assert_close(features(again, ["bad film"]).pooled, features(backbone, ["bad film"]).pooled)
    assert spec == backbone.input_spec and str(tiny.parent) not in json.dumps(backbone.recipe)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("scion", "transformers layout"),
        ("/nowhere/net", "no folder"),
        ("{tiny}:layers=1", "layer=N"),
        ("{tiny}:layer=9", "from 1 to 2"),
        ("{tiny}:tokens=99", "positions for 40"),
    ],
)
def test_names_that_cannot_be(tiny: Path, name: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        TEXTS.create(name.format(tiny=tiny))


def test_code_of_a_folder_is_not_run(tiny: Path, tmp_path: Path) -> None:
    for file in ("tokenizer.json", "model.safetensors"):
        (tmp_path / file).write_bytes((tiny / file).read_bytes())
    config = json.loads((tiny / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "evil.Net"}}))
    with pytest.raises(WeightsError, match="code of its own"):
        TEXTS.create(str(tmp_path))


# ---- streams and inputs


def test_streams_resume_and_share_their_batches(tiny: Path) -> None:
    backbone = TEXTS.create(str(tiny))
    samples = [Sample(Path("t"), text=text, row=i) for i, (text, _) in enumerate(sentences(20))]
    labels = np.arange(20)
    streams = TEXTS.streams(backbone, samples, labels, StreamOptions(batch_size=4, seed=3))

    def of(stream: Any, epoch: int, start: int = 0) -> list[list[int]]:
        return [batch.y.tolist() for batch in stream.epoch(epoch, start)]

    train = streams.train(np.arange(20))
    whole = of(train, 1)
    assert of(train, 1, start=2) == whole[2:] and of(train, 2) != whole
    assert sorted(i for batch in whole for i in batch) == list(range(20))
    first, second = (of(streams.train(np.arange(20), rank, 2), 1) for rank in (0, 1))
    assert [a + b for a, b in zip(first, second, strict=True)] == whole
    plain = list(streams.plain(np.array([5, 1, 7])).epoch(0))
    assert plain[0].y is not None and plain[0].y.tolist() == [5, 1, 7]


def test_what_is_no_file_is_a_text(tmp_path: Path, table: Path) -> None:
    (tmp_path / "a.txt").write_text("from a file")
    items = expand_inputs(
        [str(tmp_path / "a.txt"), "a quoted film", str(tmp_path / "gone.txt"), str(table)], "body", TEXTS
    )
    assert [read_text(items[0]), read_text(items[1])] == ["from a file", "a quoted film"]
    assert items[2] == tmp_path / "gone.txt" and len(items) == 63 and items[3].name == "reviews.csv:2"
    with pytest.raises(UsageError, match="body, stars"):
        expand_inputs([str(table)], None, TEXTS)
    assert shortened("a  b\nc" * 9, 10) == "a b ca b…"


# ---- the whole way


@pytest.fixture(scope="module")
def run(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import regraft

    folder = tmp_path_factory.mktemp("texts")
    path = folder / "reviews.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["body", "stars"])
        rows.writerows([*sentences(220), ("<b>bold</b> film", "up")])
    options: dict[str, Any] = {"backbone": str(tiny), "epochs": 1, "resamples": 100, "threads": 1}
    done = regraft.fit(path, text="body", label="stars", runs=folder / "runs", **options)
    return Path(done.path)


def test_a_fit_of_texts_is_a_fit(run: Path, tiny: Path) -> None:
    report = json.loads((run / "report.json").read_text())
    assert report["modality"] == "text"
    assert {one["name"] for one in report["candidates"]} == {"probe", "finetune", "scratch"}
    assert "texts" in report["evaluated_on"] and run.name.split("-fit-")[1].startswith("reviews-tiny_bert")
    assert {"config.json", "tokenizer.json"} <= {file.name for file in (run / "artifact").iterdir()}


def test_the_artifact_alone_answers(run: Path, tmp_path: Path) -> None:
    import shutil

    import regraft

    shutil.copytree(run / "artifact", tmp_path / "moved")
    answers = regraft.load(tmp_path / "moved").predict(["good fine warm film", "bad dull cold film", "  "])
    assert [answer.error is None for answer in answers] == [True, True, False]
    assert answers[0].path == "good fine warm film"
    tokenizer = tmp_path / "moved" / "tokenizer.json"
    tokenizer.write_bytes(tokenizer.read_bytes() + b" ")
    with pytest.raises(Exception, match=r"tokenizer\.json is not the file"):
        regraft.load(tmp_path / "moved")


def test_excerpts_are_escaped(run: Path) -> None:
    shown = Excerpts(run)
    import pyarrow.parquet as parquet

    rows = parquet.read_table(run / "predictions.parquet").to_pylist()
    drawn = str(shown(run / rows[0]["path"]))
    assert drawn.startswith("<blockquote") and rows[0]["excerpt"] in drawn
    shown._known = {"t.csv:2": "<script>"}
    assert "&lt;script&gt;" in str(shown(run / "t.csv:2", small=True)) and shown(run / "t.csv:9", small=True) is None


def test_the_shared_network_tells_sentiment(shared: Path) -> None:
    folder = shared / "weights" / "all-MiniLM-L6-v2"
    if not folder.is_dir():
        pytest.skip("no shared text network")
    close, far = ["a wonderful film", "a great movie"], "the train to the airport is late"
    found = torch.nn.functional.normalize(features(TEXTS.create(str(folder)), [*close, far]).pooled)
    assert float(found[0] @ found[1]) > 0.6 > 0.4 > float(found[0] @ found[2])
