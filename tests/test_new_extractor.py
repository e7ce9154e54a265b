"""The extractor of docs/new_extractor.md, added as the page says, in the programs."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from documented_blocks import read_blocks
from tiny_publishing import facts_of
from tiny_training import CLASSIFIER_FIELDS, tiny_trainer
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel

from data_builders.option_reader import OptionError
from modeling import (
    EXTRACTOR_CONFIGS,
    EXTRACTORS,
    TargetSpeakerEmotionPipeline,
    TseSerFeatureExtractor,
    enroll,
    load_voice,
    save_voice,
)
from tse_ser.cli.recognition import load_pipeline
from tse_ser.conversion.checkpoint_card import TITLES
from tse_ser.evaluation.evaluate_checkpoint import load_model
from tse_ser.evaluation.prediction import run_model
from tse_ser.options import ModelOptions
from tse_ser.publishing.cards import collect_facts, render_card
from tse_ser.publishing.errors import PublishingError
from tse_ser.publishing.options import PushOptions
from tse_ser.training.build_model import build_model

PAGE = Path(__file__).resolve().parents[1] / "docs" / "new_extractor.md"


@pytest.fixture(scope="module")
def added(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the page's file of sizes; its extractor is in the tables meanwhile."""
    folder = tmp_path_factory.mktemp("new")
    blocks = read_blocks(PAGE)
    (code,) = (block for block in blocks if block.file_name == "gru_mask.py")
    (sizes,) = (block for block in blocks if block.language == "json")
    (folder / "gru_mask.py").write_text(code.text)
    (folder / "extractor.json").write_text(json.dumps(json.loads(sizes.text) | {"hidden_size": 8}))
    (folder / "classifier.json").write_text(json.dumps(CLASSIFIER_FIELDS))
    spec = importlib.util.spec_from_file_location("gru_mask", folder / "gru_mask.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "gru_mask", module)
        spec.loader.exec_module(module)
        patch.setitem(EXTRACTOR_CONFIGS, "gru_mask", module.GruMaskConfig)
        patch.setitem(EXTRACTORS, "gru_mask", module.GruMaskForSpeechExtraction)
        AutoConfig.register("gru_mask", module.GruMaskConfig)
        AutoModel.register(module.GruMaskConfig, module.GruMaskForSpeechExtraction)
        AutoFeatureExtractor.register(module.GruMaskConfig, TseSerFeatureExtractor)
        yield folder


def model_arguments(folder: Path, **given: Any) -> ModelOptions:
    sizes = {f"{part}_config": str(folder / f"{part}.json") for part in ("extractor", "classifier")}
    return ModelOptions(**{**sizes, **given})


def test_both_stages_train_it_and_the_evaluation_loads_it(added: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    extractor = build_model(model_arguments(added), "extraction")
    trainer = tiny_trainer(extractor, tmp_path / "extractor", "extraction")
    trainer.train()
    trainer.save_model()
    arguments = model_arguments(added, extractor_name_or_path=str(tmp_path / "extractor"))
    joint = build_model(arguments, "joint")
    before = {name: values.clone() for name, values in joint.named_parameters()}
    trainer = tiny_trainer(joint, tmp_path / "joint", "joint", learning_rate=1e-2)
    trainer.train()
    trainer.save_model()
    moved = [name for name, values in joint.named_parameters() if (values != before[name]).any()]
    assert {name.split(".")[0] for name in moved} == {"extractor", "classifier"}
    rng = np.random.default_rng(0)
    long, short = (
        {"mixture": rng.standard_normal(size), "enrollment": rng.standard_normal(size)}
        for size in (8000, 6000)
    )
    for name in ("extractor", "joint"):
        model = load_model(str(tmp_path / name))
        alone = run_model(model, [short])["extracted_values"][0]
        padded = run_model(model, [long, short])["extracted_values"][1, :6000]
        torch.testing.assert_close(padded, alone, atol=1e-5, rtol=0)
    # What a user of the trained folder does.
    recognize = TargetSpeakerEmotionPipeline(
        model=model, feature_extractor=TseSerFeatureExtractor(), device="cpu"
    )
    emotions = recognize(short)
    assert sum(one["score"] for one in emotions) == pytest.approx(1)
    TseSerFeatureExtractor().save_pretrained(tmp_path / "extractor")
    extract = load_pipeline(str(tmp_path / "extractor"))
    assert extract(short, return_extracted=True)["extracted"]["array"].shape == (6000,)
    voice = enroll(extract.model, [short["enrollment"]])
    save_voice(tmp_path / "voice.safetensors", voice, extract.model)
    torch.testing.assert_close(load_voice(tmp_path / "voice.safetensors", extract.model), voice)


def test_a_card_says_nothing_of_an_extractor_that_nobody_described(
    added: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    extractor = build_model(model_arguments(added), "extraction")
    joint = build_model(model_arguments(added), "joint")
    facts = facts_of(["--interferers", "generated"])
    (tmp_path / "training_facts.json").write_text(json.dumps(facts))
    options = PushOptions(model=tmp_path, repo_id="lab/gru", not_evaluated=True)
    for model in (extractor, joint):
        with pytest.raises(PublishingError, match="the card of a 'gru_mask' model"):
            collect_facts(model, tmp_path, "lab/gru", options)
    monkeypatch.setitem(TITLES, "gru_mask", "a GRU mask")
    card = render_card(collect_facts(joint, tmp_path, "lab/gru", options)[0])
    assert "enrollment, guide a GRU mask, which extracts the voice" in card


def test_a_misspelt_type_or_field_is_refused(added: Path, tmp_path: Path) -> None:
    for fields, message in (
        ({"model_type": "gru_musk"}, "unknown extractor 'gru_musk': choose one of td_speakerbeam"),
        ({"model_type": "gru_mask", "hidden": 8}, "has no field 'hidden'"),
    ):
        (tmp_path / "wrong.json").write_text(json.dumps(fields))
        with pytest.raises(OptionError, match=message):
            build_model(
                model_arguments(added, extractor_config=str(tmp_path / "wrong.json")), "extraction"
            )
