"""Cards of models: complete, true to their facts, and readable by the Hub's own library."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results
from hypothesis import given
from hypothesis import strategies as st
from tiny_publishing import REPO_ID, cell_of, facts_of, write_cell, write_training

from modeling import ShiftCnnConfig, TdSpeakerBeamConfig, TseSerConfig
from tse_ser.conversion.checkpoint_card import TITLES, usage
from tse_ser.publishing.calibration import Calibration, read_calibration
from tse_ser.publishing.cards import (
    UNFILLED,
    CardFacts,
    check_card,
    describe_stage,
    render_card,
)
from tse_ser.publishing.corpora import find_corpora, known_facts
from tse_ser.publishing.errors import PublishingError
from tse_ser.publishing.licenses import (
    FREE,
    SAME_LICENSE,
    License,
    LicensedPart,
    choose_license,
    conditions,
    is_known,
)
from tse_ser.publishing.lineage import (
    STAGE_ARGUMENTS,
    published_facts,
    read_lineage,
)
from tse_ser.publishing.options import Samples
from tse_ser.publishing.results import (
    Result,
    as_result,
    paper_figures,
    read_results,
)
from tse_ser.publishing.training_description import corpora_of
from tse_ser.training.facts import PLACES, write_facts

GOLDEN = Path(__file__).with_name("cards") / "tse_ser.md"
# Under licences that contradict each other: the card of such a model states its own terms.
RAVDESS = ["--targets", "ravdess", "--interferers", "ravdess", "emodb", "asterisk"]
LICENSES = {*FREE, *SAME_LICENSE, "cc-by-3.0", "cc-by-4.0", "cc-by-nc-4.0", "research-only"}
# Found on four mixtures of validation speakers, measured on two of others.
PRESENCE = {"threshold": 0.25, "false_alarms": 0.06, "hits": 0.64}
FOUND: dict[str, Any] = {
    "split": "validation",
    "num_examples": 4,
    "false_alarm_rate": 0.05,
    "temperature": 1.5,
    "expected_calibration_error": {"before": 0.1, "after": 0.05},
    "reliability": {
        "before": [],
        "after": [
            {"from": 0.3, "to": 0.4, "num_examples": 3, "confidence": 0.35, "accuracy": 2 / 3},
            {"from": 0.5, "to": 0.6, "num_examples": 1, "confidence": 0.55, "accuracy": 1.0},
        ],
    },
    "presence": PRESENCE,
    "one_voice": None,
}
TESTED: dict[str, Any] = {
    **FOUND,
    "split": "test",
    "num_examples": 2,
    "expected_calibration_error": {"before": 0.2, "after": 0.125},
    "reliability": {
        "before": [],
        "after": [{"from": 0.9, "to": 1.0, "num_examples": 2, "confidence": 0.95, "accuracy": 0.5}],
    },
}
JOINT = ["--stage", "joint", "--condition", "noisy", *RAVDESS]
CONFIGS = {"td_speakerbeam": TdSpeakerBeamConfig, "shift_cnn": ShiftCnnConfig}
CONVERTED = {
    "form": "ESPnet",
    "checkpoint": "valid.loss.ave.pth",
    "license": "cc-by-4.0",
    "source_model": "lab/extractor",
}


def result(**changed: Any) -> Result:
    return as_result(cell_of("../model", **changed), has_emotions=True)


def card_facts(**changed: Any) -> CardFacts:
    extraction = facts_of(["--stage", "extraction", *RAVDESS])
    stages = [extraction, facts_of([*JOINT, "--enrollment_seconds", "3"])]
    corpora = find_corpora((name for one in stages for name in corpora_of(one)), {})
    facts = CardFacts(
        repo_id=REPO_ID,
        model_type="tse_ser",
        title="TSE-SER: tse-ser-ft",
        extractor="TD-SpeakerBeam",
        usage=usage(TseSerConfig(), REPO_ID),
        num_parameters=4321,
        sampling_rate=16000,
        labels=("neutral", "happy", "sad", "angry"),
        license=License("cc-by-nc-sa-4.0"),
        languages=("en",),
        corpora=corpora,
        parts=(LicensedPart("a speaker encoder", "apache-2.0", "https://example.com"),),
        stages=tuple(describe_stage(one) for one in stages),
        base_models=("openai/whisper-tiny.en",),
        results=(result(), result(name="same", gender_state="same", si_sdri_db=None)),
        samples=Samples(Path("mixture.wav"), Path("enrollment.wav"), "cc0-1.0"),
    )
    return replace(facts, **changed)


def variants() -> dict[str, CardFacts]:
    """Cards of every model, with and without what may be missing."""
    bare: dict[str, Any] = {"results": (), "samples": None, "base_models": (), "parts": ()}
    own_terms = License("other", "research-only", "https://example.com/terms")
    cards = {"everything": card_facts(), "bare": card_facts(**bare)}
    cards["other licence"] = card_facts(license=own_terms)
    cards["explained licence"] = card_facts(license=replace(own_terms, note="For research."))
    cards["calibrated"] = card_facts(calibration=Calibration(validation=FOUND, test=TESTED))
    cards["chosen"] = card_facts(chooses_by_similarity=True, limits=("It knows no whispering.",))
    cards["rounded"] = card_facts(dtype="float16")
    cards["optimistic"] = card_facts(results=(result(protocol="best_on_test", optimistic=True),))
    for model_type, config in CONFIGS.items():
        own: dict[str, Any] = {
            "model_type": model_type,
            "title": TITLES[model_type],
            "usage": usage(config(), REPO_ID),
            "labels": () if model_type == "td_speakerbeam" else ("sad", "angry"),
        }
        cards[model_type] = card_facts(**own)
        cards[f"bare {model_type}"] = card_facts(**own, **bare)
    cards["benchmark"] = replace(
        cards["bare td_speakerbeam"], benchmark="| Extractor | Voices |\n|---|---|\n| a | b |"
    )
    cards["converted"] = replace(
        cards["bare td_speakerbeam"],
        stages=(describe_stage(CONVERTED),),
        corpora=(),
        languages=(),
    )
    return cards


VARIANTS = variants()


def test_the_card_of_a_joint_model_reads_as_agreed() -> None:
    # To accept a change: render_card(card_facts()), read it, and write it there.
    assert render_card(card_facts()) == GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", VARIANTS)
def test_a_card_leaves_nothing_unfilled(name: str) -> None:
    text = render_card(VARIANTS[name])
    assert not UNFILLED.search(text)
    assert "\n\n\n" not in text
    assert "undefined" not in text.lower()
    for heading in ("Use", "How it was trained", "Results", "Limits and misuse", "Licence"):
        assert f"\n## {heading}\n\n" in text
    # Lists and paragraphs do not run into each other.
    assert not [line for line in text.splitlines() if ".- " in line or ".#" in line]


def test_a_card_says_what_answers_are_worth_on_both_splits() -> None:
    text = " ".join(render_card(VARIANTS["calibrated"]).split())
    assert "5.0 points in validation (without it 10.0) and 12.5 in test (without it 20.0)" in text
    assert "Said of 6 % of the test mixtures in which the speaker talks, and of 64 %" in text
    assert "Two voices" not in text  # not measured
    rows = "| 0.3 to 0.4 | 3: 0.67 | 0 | | 0.5 to 0.6 | 1: 1.00 | 0 | | 0.9 to 1.0 | 0 | 2: 0.50 |"
    assert rows in text
    assert "answers are worth" not in render_card(VARIANTS["everything"])


def test_the_files_of_a_calibration_are_a_pair_and_of_this_model(tmp_path: Path) -> None:
    config = TseSerConfig(temperature=1.50004, presence_threshold=0.25)
    files = tmp_path / "test.json", tmp_path / "validation.json"
    for file, content in zip(files, (TESTED, FOUND), strict=True):
        file.write_text(json.dumps(content), encoding="utf-8")
    assert read_calibration(files, config) == Calibration(validation=FOUND, test=TESTED)
    assert read_calibration((), config) is None
    for wrong in (files[:1], (files[0], files[0]), (*files, files[0])):
        with pytest.raises(PublishingError, match="expected two files"):
            read_calibration(wrong, config)
    for other in (TseSerConfig(temperature=1.2, presence_threshold=0.25), ShiftCnnConfig()):
        with pytest.raises(PublishingError, match=r"a temperature of 1[.]5, the model"):
            read_calibration(files, other)
    with pytest.raises(PublishingError, match=r"threshold of 0[.]25, the model None"):
        read_calibration(files, TseSerConfig(temperature=1.5))


@pytest.mark.parametrize("name", VARIANTS)
def test_the_metadata_pass_through_the_hubs_library_unchanged(name: str) -> None:
    facts = VARIANTS[name]
    card = ModelCard(render_card(facts))
    assert str(ModelCard(str(card))) == str(card)
    data: Any = card.data
    assert data.library_name == "transformers"
    assert data.pipeline_tag == facts.pipeline_tag
    assert data.license == facts.license.id
    assert (data.get("widget") is not None) == (facts.samples is not None)
    assert data.get("base_model") == (list(facts.base_models) or None)
    if facts.results:
        index = eval_results_to_model_index(data.model_name, data.eval_results)
        assert model_index_to_eval_results(index) == (data.model_name, data.eval_results)
        assert data.model_name == "tse-ser-ft"
    else:
        assert "model-index" not in data.to_dict()
        unmeasured = "**This checkpoint was not evaluated.**" in card.text
        assert unmeasured != bool(facts.benchmark)


def test_the_model_index_has_this_models_numbers_and_never_the_papers() -> None:
    data: Any = ModelCard(render_card(card_facts())).data
    assert [(one.metric_type, one.metric_value) for one in data.eval_results] == [
        ("recall", 51.56),
        ("accuracy", 50.0),
        ("si_sdr", 2.72),
        ("recall", 51.56),
        ("accuracy", 50.0),
    ]
    text = render_card(card_facts())
    assert "| 51.56 | 50.00 | 2.72 | 68.27 | 67.02 | 12.90 |" in text
    assert "† The paper's figure" in text


def test_an_optimistic_number_is_called_so_wherever_it_stands() -> None:
    measured = result(protocol="best_on_test", wa_checkpoint="../model/best_wa")
    text = render_card(card_facts(results=(measured,)))
    data: Any = ModelCard(text).data
    assert all("optimistic" in one.metric_name for one in data.eval_results)
    assert "best_on_test (optimistic) | 16 | 51.56 |  | 2.72" in text
    # WA was measured with the weights of another epoch, which are not those of the repository.
    assert [one.metric_type for one in data.eval_results] == ["recall", "si_sdr"]
    assert "wa" not in measured.published
    facts = facts_of([*JOINT, "--protocol", "best_on_test"])
    assert re.search("Protocol: .* on that session: optimistic", describe_stage(facts))
    assert re.search("Selection: .* on the test session: optimistic", describe_stage(facts))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("{{ facts.title }}", "is left unfilled"),
        ("{% if %}", "is left unfilled"),
        ("More Information Needed", "is left unfilled"),
        ("Trained for None epochs.", "'None' is left unfilled"),
        ("It reached nan dB.", "'nan' is left unfilled"),
        ("From [](https://example.com).", "is left unfilled"),
        ("## Empty\n\n## Next\n\nText.", "'## Empty' has no text"),
        ("Text.\n\n## Last", "'## Last' has no text"),
    ],
)
def test_a_card_that_is_not_complete_is_refused(broken: str, message: str) -> None:
    head = "license: mit\nlibrary_name: transformers\npipeline_tag: audio-to-audio\ntags: [a]"
    check_card(f"---\n{head}\n---\n\n# Title\n\nText, and none of it empty.\n")
    with pytest.raises(PublishingError, match=r"README\.md, line \d+") as raised:
        check_card(f"---\n{head}\n---\n\n# Title\n\nText.\n\n{broken}\n")
    assert message in str(raised.value)


def test_metadata_that_lack_something_or_cannot_be_read_are_refused() -> None:
    with pytest.raises(PublishingError, match="lack license, pipeline_tag, tags"):
        check_card("---\nlibrary_name: transformers\n---\n\n# Title\n\nText.\n")
    with pytest.raises(PublishingError, match="the metadata cannot be read"):
        check_card("---\nlicense: [\n---\n\n# Title\n\nText.\n")
    with pytest.raises(PublishingError, match="the metadata cannot be read"):
        check_card("---\nlicense: mit\nmodel-index: [{name: a}]\n---\n\n# Title\n\nText.\n")


@pytest.mark.parametrize(
    ("licenses", "expected"),
    [
        ([], "apache-2.0"),
        (["cc0-1.0", "apache-2.0"], "apache-2.0"),
        (["cc0-1.0", "cc-by-4.0"], "cc-by-4.0"),
        (["cc-by-sa-3.0", "cc-by-4.0"], "cc-by-sa-4.0"),
        (["cc-by-nc-sa-4.0", "cc-by-nc-4.0", "cc0-1.0"], "cc-by-nc-sa-4.0"),
        (["cc-by-4.0", "cc-by-nc-4.0"], "cc-by-nc-4.0"),
        (["cc-by-4.0", "cc-by-nc-4.0", "research-only"], "other"),
        (["gpl-3.0", "mit", "cc-by-4.0", "lgpl-3.0"], "gpl-3.0"),
        (["odbl", "cc-by-4.0"], "odbl"),
        (["openrail", "apache-2.0"], "openrail"),
    ],
)
def test_a_model_takes_the_freest_licence_that_its_data_allow(
    licenses: list[str], expected: str
) -> None:
    parts = [LicensedPart(f"corpus {one}", one, "https://example.com") for one in licenses]
    assert choose_license(parts).id == expected


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("cc-by-sa-3.0", "cc-by-nc-sa-4.0"),
        ("cc-by-sa-4.0", "cc-by-nc-4.0"),
        ("gpl-3.0", "cc-by-sa-4.0"),
        ("gpl-3.0", "cc-by-nc-4.0"),
        ("openrail", "creativeml-openrail-m"),
        ("odbl", "cc-by-nc-sa-4.0"),
        ("cc-by-nc-sa-4.0", "research-only"),
    ],
)
def test_terms_that_contradict_each_other_stop_a_publication(first: str, second: str) -> None:
    for one, other in ((first, second), (second, first)):
        parts = [LicensedPart(f"corpus {name}", name) for name in ("mit", one, other)]
        with pytest.raises(PublishingError, match="no licence keeps the terms of both") as raised:
            choose_license(parts)
        assert f"corpus {first}" in str(raised.value) and f"corpus {second}" in str(raised.value)
        for choice in (first, second, "cc-by-nc-sa-4.0", "apache-2.0"):
            with pytest.raises(PublishingError, match=f"--license {choice}"):
                choose_license(parts, License(choice))
        own = License("other", "by agreement", "https://example.com")
        assert choose_license(parts, own) == own


@pytest.mark.parametrize("license_id", ["unknown", "other", "llama3", "gpl", "my-terms", "", "cc"])
def test_unknown_terms_stop_a_publication(license_id: str) -> None:
    parts = [LicensedPart("a corpus", license_id), LicensedPart("another", "mit")]
    with pytest.raises(PublishingError, match="a corpus has no licence that is known here"):
        choose_license(parts)


@given(parts=st.lists(st.sampled_from(sorted(LICENSES)).map(lambda one: LicensedPart(one, one))))
def test_what_is_chosen_may_be_chosen_and_keeps_every_condition(parts: list[LicensedPart]) -> None:
    try:
        chosen = choose_license(parts)
    except PublishingError:
        return
    if chosen.id != "other":
        assert choose_license(parts, chosen) == chosen
        asked = set().union(*(conditions(part.license_id) for part in parts))
        assert asked - {"by"} <= conditions(chosen.id)
    assert choose_license(reversed(parts)) == chosen


def test_a_licence_that_says_less_than_the_data_is_refused() -> None:
    ravdess = LicensedPart("RAVDESS", "cc-by-nc-sa-4.0")
    with pytest.raises(PublishingError, match=r"RAVDESS is under cc-by-nc-sa-4\.0, which asks"):
        choose_license([ravdess], License("apache-2.0"))
    with pytest.raises(PublishingError, match="sharing under the same licence"):
        choose_license([ravdess], License("cc-by-nc-4.0"))
    assert choose_license([ravdess], License("cc-by-nc-sa-4.0")).id == "cc-by-nc-sa-4.0"
    with pytest.raises(PublishingError, match="needs --license_name and --license_link"):
        choose_license([ravdess], License("other"))
    unknown = LicensedPart("my recordings", "unknown")
    with pytest.raises(PublishingError, match="say by --license"):
        choose_license([unknown])
    assert choose_license([unknown], License("mit")).id == "mit"
    for slip in ("MIT", "foo", "research-only", "cc-by-nc"):
        with pytest.raises(PublishingError, match="no licence that is known here, so that"):
            choose_license([LicensedPart("a corpus", "cc0-1.0")], License(slip))
    with pytest.raises(PublishingError, match="allows no adaptation"):
        choose_license([LicensedPart("a corpus", "cc-by-nd-4.0")])


def test_every_corpus_of_the_recipes_is_known_or_has_to_be_described() -> None:
    from data_builders.corpora import CORPORA

    # A set of one's own, and one that is made of another.
    assert set(CORPORA) - {"folder", "denoised"} == set(known_facts()["corpora"])
    assert find_corpora(["librispeech:hours=10", "librispeech"], {})[0].title == "LibriSpeech"
    for corpus in find_corpora(known_facts()["corpora"], {}):  # no field is missing
        assert is_known(corpus.license_id) and corpus.speech, corpus.name
    with pytest.raises(PublishingError, match="say what they are by --describe folder=TEXT"):
        find_corpora(["folder:metadata=calls.csv"], {})
    # Each has a description of its own, and the terms of no corpus that it is called like.
    names = ["folder:metadata=calls.csv,name=calls", "folder:name=generated", "generated"]
    with pytest.raises(PublishingError, match="by --describe generated=TEXT"):
        find_corpora(names, {"calls": "ten hours of calls"})
    described = {"calls": "ten hours of calls", "generated": "drama"}
    assert [(one.title, one.license_id) for one in find_corpora(names, described)] == [
        ("ten hours of calls", "unknown"),
        ("drama", "unknown"),
        ("generated speech", "cc0-1.0"),
    ]


def test_a_training_counts_the_corpora_that_it_heard() -> None:
    clean = facts_of(["--stage", "classification", "--condition", "clean", *RAVDESS])
    assert corpora_of(clean) == ["ravdess"]
    assert "Interferers" not in describe_stage(clean)
    noisy = facts_of([*JOINT, "--noise_dir", "rain"])
    assert corpora_of(noisy) == ["ravdess", "ravdess", "emodb", "asterisk", "noise"]
    librimix = ["--stage", "extraction", "--librimix_subset", "train-clean-100", *RAVDESS]
    assert corpora_of(facts_of(librimix)) == ["librispeech"]
    assert "Speech: LibriMix train-clean-100" in describe_stage(facts_of(librimix))
    # The noise of LibriMix is somebody's too.
    assert corpora_of(facts_of([*librimix, "--noise_dir", "wham"])) == ["librispeech", "noise"]


def test_a_card_tells_what_was_heard_in_which_share_of_the_examples() -> None:
    words = ["--noise_dir", "rain", "--noise_share", "0.25", "--reverberation", "direct"]
    words += ["--reverberation_share", "0.5", "--clean_share", "0.1", "--absent_share", "0.05"]
    words += ["--lowpass_hz", "5000", "--speed_factors", "0.9", "1", "--interferer_draw", "speaker"]
    words += ["--targets", "ravdess:test_speakers=*_21+*_22"]
    words += ["--target_pause_range_seconds", "0", "0.5"]
    told = describe_stage(published_facts(facts_of([*JOINT, *words])))
    for line in (
        "Corpora as named in the recipe: `ravdess:test_speakers=*_21+*_22`",
        "Noise: SNR 5 to 20 dB, in 25% of the examples",
        "Rooms: RT60 0.2 to 0.6 s, in 50% of the examples",
        "Pauses: 0 to 0.5 s before the target's speech and after it",
        "Shares: nobody interferes, in 10% of the examples",
        "Shares: the target is silent, in 5% of the examples",
        "Low-pass: 5000 Hz",
        "Speeds: 0.9, 1",
        "every speaker drawn alike",
    ):
        assert line in told


def test_a_card_tells_that_nothing_but_the_comparison_of_voices_was_trained() -> None:
    told = describe_stage(published_facts(facts_of([*JOINT, "--train_similarity_projection"])))
    assert "How the voices of the extractor's outputs are compared" in told
    assert "Extractor and classifier together" not in told


def test_facts_that_lack_something_are_refused_by_its_name() -> None:
    facts = facts_of(JOINT)
    del facts["num_examples"]
    with pytest.raises(PublishingError, match=r"training_facts\.json lacks 'num_examples'"):
        describe_stage(facts)


def test_the_trainings_before_are_found_where_they_were_or_where_they_were_put(
    tmp_path: Path,
) -> None:
    encoder = ["--encoder_name_or_path", "facebook/hubert-base-ls960"]
    classification = ["--stage", "classification", "--condition", "clean", *RAVDESS]
    write_training(tmp_path / "extractor", None, ["--stage", "extraction", *RAVDESS])
    write_training(tmp_path / "classifier", None, [*classification, *encoder])
    paths = [
        *("--extractor_name_or_path", str(tmp_path / "extractor")),
        *("--classifier_name_or_path", str(tmp_path / "classifier")),
    ]
    joint = write_training(tmp_path / "joint", None, [*JOINT, *paths])
    lineage = read_lineage(joint)
    stages = [stage["training"]["stage"] for stage in lineage.stages]
    assert stages == ["extraction", "classification", "joint"]
    assert lineage.base_models == ("facebook/hubert-base-ls960",)
    moved = tmp_path / "archive" / "extractor"
    moved.parent.mkdir()
    (tmp_path / "extractor").rename(moved)
    with pytest.raises(PublishingError, match=r"`extractor_name_or_path` is .*--earlier_stages"):
        read_lineage(joint)
    assert read_lineage(joint, [moved]).stages == lineage.stages
    # A copy from the Hub has all of it in one file.
    *before, own = lineage.stages
    (tmp_path / "copy").mkdir()
    text = json.dumps({**own, "earlier_stages": before})
    (tmp_path / "copy" / "training_facts.json").write_text(text)
    assert read_lineage(tmp_path / "copy").stages == lineage.stages


def test_an_encoder_or_a_checkpoint_of_others_is_named(tmp_path: Path) -> None:
    classification = ["--stage", "classification", "--condition", "clean", *RAVDESS]
    local = ["--encoder_name_or_path", str(tmp_path / "whisper-tiny.en-encoder")]
    folder = write_training(tmp_path / "classifier", None, [*classification, *local])
    with pytest.raises(PublishingError, match=r"the speech encoder came from .*--base_model"):
        read_lineage(folder)
    named = read_lineage(folder, base_models=["openai/whisper-tiny.en"])
    assert named.base_models == ("openai/whisper-tiny.en",)
    converted = tmp_path / "converted"
    converted.mkdir()
    (converted / "conversion_facts.json").write_text(json.dumps(CONVERTED))
    paths = ["--extractor_name_or_path", str(converted)]
    joint = write_training(tmp_path / "joint", None, [*JOINT, *paths])
    assert read_lineage(joint).stages[0] == CONVERTED
    assert read_lineage(joint).base_models == ("lab/extractor",)
    from_hub = ["--extractor_name_or_path", "lab/extractor"]
    joint = write_training(tmp_path / "from_hub", None, [*JOINT, *from_hub])
    with pytest.raises(PublishingError, match="its id by --base_model"):
        read_lineage(joint)
    assert read_lineage(joint, base_models=["lab/extractor"]).base_models == ("lab/extractor",)
    with pytest.raises(PublishingError, match=r"holds no training_facts\.json"):
        read_lineage(tmp_path)


# Parts of paths that a person may have: spaces, commas and equal signs among them.
SECRET = st.text("anna Müller,=:.-_ß", min_size=3, max_size=12).map("Zq{}qZ".format)


@given(
    parts=st.lists(SECRET, min_size=1, max_size=3),
    root=st.sampled_from(["/home/", "~/", "C:\\Users\\", "../", "sub/", "\\\\server\\"]),
)
def test_no_folder_of_this_machine_leaves_it(parts: list[str], root: str) -> None:
    separator = "\\" if "\\" in root else "/"
    folder = root + separator.join(parts)
    facts = facts_of([*JOINT, "--noise_dir", folder + separator + "rain"])
    facts["recipe"] = f"{folder}{separator}recipe.yaml"
    for key in (*STAGE_ARGUMENTS, "encoder_name_or_path", "speaker_encoder_dir"):
        facts["model"][key] = f"{folder}{separator}extractor"
    facts["data"]["targets"] = ["ravdess", f"folder:metadata={folder}{separator}a.csv,name=calls"]
    for key in PLACES:
        facts["data"][key] = folder
    facts["data"]["a_new_option"] = facts["a_new_fact"] = folder
    facts["data"]["corpus_dirs"] = {"ravdess": folder}
    facts["machine"]["host"] = facts["versions"][folder] = facts["last_log"] = folder
    facts["training"]["optim"] = folder
    told = published_facts(facts)
    assert "Zq" not in json.dumps(told) and "qZ" not in json.dumps(told)
    assert told["recipe"] == "recipe.yaml"
    assert told["model"]["model_name_or_path"] == "extractor"
    assert told["data"]["targets"][0] == "ravdess"
    assert told["data"]["targets"][1].endswith("a.csv,name=calls")
    assert corpora_of(told)[-1] == "noise"
    assert published_facts(told) == told


def test_every_fact_of_a_training_is_published_or_kept_by_decision() -> None:
    facts = facts_of([*JOINT, "--encoder_name_or_path", "facebook/hubert-base-ls960"])
    told = published_facts(facts)
    assert facts.keys() == told.keys()
    assert facts["data"].keys() - told["data"].keys() <= {*PLACES}
    assert facts["model"].keys() - told["model"].keys() == {
        *("extractor_config", "classifier_config", "speaker_encoder_dir")
    }
    assert facts["training"].keys() == told["training"].keys()
    assert told["model"]["encoder_name_or_path"] == "facebook/hubert-base-ls960"
    for section in ("data", "training", "model"):
        assert told[section] == {key: facts[section][key] for key in told[section]}
    assert published_facts(CONVERTED) == CONVERTED
    local = {**CONVERTED, "checkpoint": "/data/anna b/valid.pth", "source_model": None}
    assert published_facts(local)["checkpoint"] == "valid.pth"


def test_a_training_that_went_on_in_its_own_folder_keeps_what_was_before(tmp_path: Path) -> None:
    extraction = facts_of(["--stage", "extraction", *RAVDESS])
    own = ["--model_name_or_path", str(tmp_path)]
    longer = facts_of(["--stage", "extraction", *RAVDESS, *own, "--learning_rate", "1e-5"])
    write_facts(extraction, tmp_path)
    write_facts(longer, tmp_path)
    assert list(read_lineage(tmp_path).stages) == [extraction, longer]
    write_facts({**longer, "minutes": 20.0}, tmp_path)  # resumed after its end
    assert list(read_lineage(tmp_path).stages) == [extraction, {**longer, "minutes": 20.0}]
    # Facts of before that was so.
    (tmp_path / "training_facts.json").write_text(json.dumps(longer))
    with pytest.raises(PublishingError, match="wrote over the facts of the training before"):
        read_lineage(tmp_path)
    kept = tmp_path / "kept" / tmp_path.name
    kept.mkdir(parents=True)
    write_facts(extraction, kept)
    assert list(read_lineage(tmp_path, [kept]).stages) == [extraction, longer]


def test_a_folder_that_is_gone_is_no_model_of_the_hub(tmp_path: Path) -> None:
    classification = ["--stage", "classification", "--condition", "clean", *RAVDESS]
    relative = ["--encoder_name_or_path", "encoders/hubert"]
    folder = write_training(tmp_path / "classifier", None, [*classification, *relative])
    with pytest.raises(PublishingError, match="encoders/hubert, which is no model of the Hub that"):
        read_lineage(folder)
    named = read_lineage(folder, base_models=["facebook/hubert-large-ll60k"])
    assert named.base_models == ("facebook/hubert-large-ll60k",)


def test_only_cells_that_measured_this_checkpoint_count(tmp_path: Path) -> None:
    model = tmp_path / "steps" / "joint"
    model.mkdir(parents=True)
    cells = tmp_path / "cells"
    write_cell(cells / "other.json", "../steps/extractor")
    write_cell(cells / "pair.json", "../steps/joint", classifier_checkpoint="../steps/sb_sc")
    (cells / "notes.json").write_text("[1, 2]")
    with pytest.raises(PublishingError, match="none of 2 cells was measured with"):
        read_results(tmp_path, model, "tse_ser")
    write_cell(cells / "own.json", "../steps/joint", ua=0.75)
    (own,) = read_results(tmp_path, model, "tse_ser")
    assert own.ua_percent == 75.0
    assert own.paper == {"ua_percent": 68.27, "wa_percent": 67.02, "si_sdri_db": 12.9}
    assert own.published["ua"] == 0.75
    assert not {"utterances", "checkpoint"} & own.published.keys()
    # Behind an extractor stands another classifier: SI-SDRi is the extractor's, UA is not.
    pair, alone = read_results(cells, model, "td_speakerbeam")[::-1]
    assert (pair.ua_percent, pair.si_sdri_db) == (None, 2.72)
    assert alone.wa_percent is None


def test_a_study_says_what_its_tests_are_called(tmp_path: Path) -> None:
    model = tmp_path / "steps" / "sb_plus_sc" / "fold-1_seed-0"
    model.mkdir(parents=True)
    labels = {"tables": ["IV"], "system": "SB+SC", "method": "TSE-SER-ft"}
    (tmp_path / "study.json").write_text(json.dumps({"tests": {"joint": labels}}))
    bare = dict.fromkeys(["name", *labels])  # as an evaluation by hand, which knows no tables
    path = tmp_path / "tests" / "joint" / "fold-1_seed-0.json"
    write_cell(path, "../../steps/sb_plus_sc/fold-1_seed-0", **bare)
    (result,) = read_results(tmp_path, model, "tse_ser")
    assert result.paper == {"ua_percent": 68.27, "wa_percent": 67.02, "si_sdri_db": 12.9}


def test_the_papers_figure_is_that_of_the_same_row() -> None:
    assert paper_figures(cell_of("x", tables=[])) == {}
    assert paper_figures(cell_of("x", tables=["IV"], method="another")) == {}
    same = cell_of(
        "x",
        tables=["V"],
        method="TSE-SER-base",
        system="SB_SC",
        train_set="Denoised",
        test_set="Denoised",
        gender_state="same",
    )
    expected = {"wa_percent": 55.09, "ua_percent": 55.95, "si_sdri_db": 1.09}
    assert paper_figures(same) == expected
    assert "same gender" in as_result(same, has_emotions=True).test_set


def test_samples_are_shared_under_licences_that_allow_it() -> None:
    files = Path("mixture.wav"), Path("enrollment.wav")
    for license_id in ("apache-2.0", "cc-by-nd-4.0", "research-only"):
        with pytest.raises(PublishingError, match="--sample_license"):
            Samples(*files, license_id)
    with pytest.raises(PublishingError, match="--sample_credit is missing"):
        Samples(*files, "cc-by-4.0")
    assert Samples(*files, "cc-by-4.0", "Anna").credit == "Anna"
