"""Cards: rendered from facts by the templates of `model_cards/`, checked by the Hub's classes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import CardData, ModelCard, ModelCardData
from huggingface_hub.repocard_data import eval_results_to_model_index
from transformers import PreTrainedConfig, PreTrainedModel

from modeling import EXTRACTORS
from tse_ser import resources
from tse_ser.conversion.checkpoint_card import PIPELINE_TAGS, TITLES, usage
from tse_ser.paper import PROTOCOLS
from tse_ser.publishing.calibration import Calibration, read_calibration
from tse_ser.publishing.corpora import Corpus, find_corpora, known_facts, titles
from tse_ser.publishing.errors import PublishingError
from tse_ser.publishing.licenses import UNKNOWN, License, LicensedPart, choose_license
from tse_ser.publishing.lineage import FACTS_NAME, Lineage, published_facts, read_lineage
from tse_ser.publishing.options import PublishingOptions, Samples
from tse_ser.publishing.repository import CARD_NAME
from tse_ser.publishing.results import Result, read_results
from tse_ser.publishing.training_description import (
    corpora_of,
    is_conversion,
    number,
    snr_words,
    span,
    targets_of,
)

TAGS = {
    "tse_ser": ("speech-emotion-recognition", "target-speaker-extraction", "speakerbeam"),
    "shift_cnn": ("speech-emotion-recognition",),
    "td_speakerbeam": ("target-speaker-extraction", "speech-separation", "speakerbeam"),
}
METRICS = {
    "tse_ser": ["recall", "accuracy", "si_sdr"],
    "shift_cnn": ["recall", "accuracy"],
    "td_speakerbeam": ["si_sdr"],
}
WIDGET = [
    {"example_title": "A mixture", "src": "sample/mixture.wav"},
    {"example_title": "The target speaker alone", "src": "sample/enrollment.wav"},
]
# The table that the extraction benchmark writes; the tests of a study are JSON.
BENCHMARK_SUFFIX = ".md"
NEEDED = ("license", "library_name", "pipeline_tag", "tags")
# What a template leaves behind where a fact was missing, or somebody meant to write on.
UNFILLED = re.compile(
    r"\{\{|\}\}|\{%|%\}|\{#|More Information Needed|\bNone\b|\bnan\b|\bTODO\b|\[\]\("
)
EMPTY_SECTION = re.compile(r"^(#+ .*)\n+(?=#+ |\Z)", re.MULTILINE)
CODE_BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """All that a card says; each field is filled."""

    repo_id: str  # where the model goes
    model_type: str  # "td_speakerbeam", "shift_cnn" or "tse_ser"; names the template
    title: str  # heading
    extractor: str  # what its extractor is called; the classifier's own name without one
    usage: str  # lines of Python
    num_parameters: int  # of the model
    sampling_rate: int  # in Hz
    labels: tuple[str, ...]  # emotions; empty of an extractor
    license: License  # of the weights
    languages: tuple[str, ...]  # of the speech it heard as targets, ISO 639-1 codes
    corpora: tuple[Corpus, ...]  # that it heard, in this training or an earlier one
    parts: tuple[LicensedPart, ...]  # parts with weights of others
    stages: tuple[str, ...]  # trainings in words, the earliest first
    base_models: tuple[str, ...]  # hub ids
    results: tuple[Result, ...]  # empty only where the model was not evaluated
    samples: Samples | None  # recordings in the repository
    chooses_by_similarity: bool = False  # its extractor hears the enrollment only to choose
    chooses_in_projection: bool = False  # and compares voices in a projection that was learned
    notices_absence: bool = False  # it says where the enrolled speaker is not heard
    calibration: Calibration | None = None  # what its answers are worth
    limits: tuple[str, ...] = ()  # what its makers found that it cannot do, in sentences
    dtype: str | None = None  # what the weights were rounded to, after they were measured
    benchmark: str = ""  # table of the extraction benchmark; empty where it did not run

    @property
    def pipeline_tag(self) -> str:
        """The task, as the Hub calls it."""
        return PIPELINE_TAGS[self.model_type]


def collect_facts(
    model: PreTrainedModel, model_dir: Path, repo_id: str, options: PublishingOptions
) -> tuple[CardFacts, Lineage]:
    """Reads config, facts of training and results of a model.

    Args:
        model (`PreTrainedModel`): the model.
        model_dir (`Path`): its folder.
        repo_id (`str`): where it goes.
        options (`PublishingOptions`): what the user says.

    Returns:
        `tuple[CardFacts, Lineage]`: the facts, and the trainings they were read from.

    Raises:
        PublishingError: a fact is missing; the message says where it comes from.
    """
    config = model.config
    extractor_config = getattr(config, "extractor_config", config)
    lineage = read_lineage(model_dir, options.earlier_stages, options.base_model)
    corpora = find_corpora(
        (name for stage in lineage.stages for name in corpora_of(stage)), options.descriptions
    )
    parts = _parts(config, lineage)
    targets = find_corpora(targets_of(lineage.stages[-1]), options.descriptions)
    return CardFacts(
        repo_id=repo_id,
        model_type=config.model_type,
        title=f"{_title(config.model_type)}: {repo_id.split('/')[-1]}",
        extractor=_title(extractor_config.model_type),
        usage=usage(config, repo_id),
        num_parameters=sum(one.numel() for one in model.parameters()),
        sampling_rate=config.sampling_rate,
        labels=_labels(config),
        license=choose_license([*(one.part for one in corpora), *parts], options.given_license),
        languages=tuple(
            sorted({*options.languages, *(one for each in targets for one in each.languages)})
        ),
        corpora=corpora,
        parts=parts,
        stages=tuple(describe_stage(published_facts(stage)) for stage in lineage.stages),
        base_models=lineage.base_models,
        results=_results(model_dir, config.model_type, options),
        samples=options.samples,
        chooses_by_similarity=getattr(extractor_config, "output_choice", "order") == "similarity",
        chooses_in_projection=getattr(extractor_config, "similarity_projection", False),
        notices_absence=getattr(config, "presence_threshold", None) is not None,
        calibration=read_calibration(options.calibration, config),
        limits=options.limits,
        dtype=options.dtype,
        benchmark=_benchmark(repo_id, config.model_type, options),
    ), lineage


def _title(model_type: str) -> str:
    if model_type not in TITLES:
        raise PublishingError(
            f"--model: nothing is written yet for the card of a {model_type!r} model: "
            "docs/new_extractor.md says where its words go"
        )
    return TITLES[model_type]


def _labels(config: PreTrainedConfig) -> tuple[str, ...]:
    is_extractor = config.model_type in EXTRACTORS
    return () if is_extractor else tuple((config.id2label or {}).values())


def _parts(config: PreTrainedConfig, lineage: Lineage) -> tuple[LicensedPart, ...]:
    """Weights of others: the speaker encoder inside, converted checkpoints, and base models."""
    extractor = getattr(config, "extractor_config", config)
    encoder = known_facts()["speaker_encoders"].get(getattr(extractor, "speaker_encoder", None))
    parts = []
    if encoder is not None:
        parts.append(LicensedPart(encoder["title"], encoder["license"], encoder["url"]))
    for stage in lineage.stages:
        if is_conversion(stage):
            title = stage["source_model"] or stage["checkpoint"]
            parts.append(LicensedPart(title, stage["license"]))
    told = {part.title for part in parts}
    encoders = known_facts()["speech_encoders"]
    for name in lineage.base_models:
        if name in encoders:
            parts.append(LicensedPart(encoders[name]["title"], encoders[name]["license"]))
        elif name not in told:  # by the facts of its conversion
            parts.append(LicensedPart(name, UNKNOWN))
    return tuple(dict.fromkeys(parts))


def _benchmark(repo_id: str, model_type: str, options: PublishingOptions) -> str:
    """The rows of an extractor in a table of the extraction benchmark, by the repository's name."""
    if options.results is None or options.results.suffix != BENCHMARK_SUFFIX:
        return ""
    lines = options.results.read_text(encoding="utf-8").splitlines()
    heading, rule, *rows = (line for line in lines if line.startswith("|"))
    scored = [row.split("|")[1].strip() for row in rows]
    own = [row for row, name in zip(rows, scored, strict=True) if name == repo_id.split("/")[-1]]
    if model_type not in EXTRACTORS or not own:
        raise PublishingError(
            f"--results {options.results}: an extraction benchmark of "
            f"{', '.join(dict.fromkeys(scored))}, not of {repo_id}: score the extractor from a "
            "folder of the repository's name"
        )
    return "\n".join([heading, rule, *own])


def _results(model_dir: Path, model_type: str, options: PublishingOptions) -> tuple[Result, ...]:
    if options.not_evaluated or (options.results and options.results.suffix == BENCHMARK_SUFFIX):
        return ()
    if options.results is None:
        raise PublishingError(
            "--results is missing: give the cells that evaluation wrote for this model (a file or "
            "the folder of a study), or say --not_evaluated, and the card will say so"
        )
    return read_results(options.results, model_dir, model_type)


def render_card(facts: CardFacts) -> str:
    """The card of a model: the content of `README.md`, checked. Raises `PublishingError` where
    something is left unfilled, or the metadata are none."""
    used = {result.published["protocol"] for result in facts.results}
    protocols = {name: words for name, words in PROTOCOLS.items() if name in used}
    return render(
        f"{facts.model_type}.md.jinja", _card_metadata(facts), facts=facts, protocols=protocols
    )


def render(
    template: str, metadata: CardData, needed: Iterable[str] = NEEDED, **context: Any
) -> str:
    """Fills a template of `model_cards/`.

    Args:
        template (`str`): its file name.
        metadata (`CardData`): the card's head.
        needed (`Iterable[str]`): what the head must hold.
        context: what the template names.

    Returns:
        `str`: Markdown, checked, with at most one empty line in a row.

    Raises:
        PublishingError: something is left unfilled, or the metadata are none.
    """
    text = _templates().get_template(template).render(metadata=metadata.to_yaml(), **context)
    text = re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
    check_card(text, needed)
    return text


def describe_stage(facts: Mapping[str, Any]) -> str:
    """The facts of a training, or of a conversion, as Markdown.

    Args:
        facts (`Mapping[str, Any]`): what `training_facts.json` or `conversion_facts.json` holds.

    Returns:
        `str`: a title, and a line a fact.

    Raises:
        PublishingError: a fact is missing; the message names it.
    """
    named = dict.fromkeys(corpora_of(facts))
    with_options = [name for name in named if ":" in name]
    try:
        text = _templates().get_template("stage.md.jinja")
        return text.render(stage=facts, with_options=with_options, protocols=PROTOCOLS).strip()
    except jinja2.UndefinedError as error:
        lacking = str(error).rpartition("attribute ")[2]
        raise PublishingError(
            f"{FACTS_NAME} lacks {lacking}: train with the current train.py, or add the fact by "
            "hand"
        ) from error


@cache
def _templates() -> jinja2.Environment:
    # `ModelCard.from_template` knows neither templates that extend each other nor strict names.
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(resources.folder("model_cards")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    templates.filters |= {
        "figure": _figure,
        "number": number,
        "points": lambda share: f"{100 * share:.1f}",
        "percent": lambda share: f"{100 * share:.0f}",
    }
    templates.globals |= {"corpora": titles, "snr_words": snr_words, "span": span}
    return templates


def _card_metadata(facts: CardFacts) -> ModelCardData:
    """The head of a model's card, with the `model-index` of this model's own numbers."""
    measured = [one for result in facts.results for one in result.eval_results(facts.pipeline_tag)]
    return ModelCardData(
        license=facts.license.id,
        license_name=facts.license.name,
        license_link=facts.license.link,
        library_name="transformers",
        pipeline_tag=facts.pipeline_tag,
        language=list(facts.languages) or None,
        tags=[*TAGS[facts.model_type], "arxiv:2409.19585"],
        datasets=[corpus.hub_id or corpus.name for corpus in facts.corpora] or None,
        metrics=METRICS[facts.model_type],
        base_model=list(facts.base_models) or None,
        widget=WIDGET if facts.samples else None,
        model_name=facts.repo_id.split("/")[-1] if measured else None,
        eval_results=measured or None,
    )


def check_card(text: str, needed: Iterable[str] = NEEDED) -> None:
    """Refuses a card that is not complete.

    Args:
        text (`str`): the content of `README.md`.
        needed (`Iterable[str]`): what the head must hold.

    Raises:
        PublishingError: something is left unfilled, a section is empty, or the Hub's library cannot
            read the metadata.
    """
    _refuse(UNFILLED, text, "is left unfilled")
    # Comments of code look like headings.
    _refuse(EMPTY_SECTION, CODE_BLOCK.sub("(code)", text), "has no text")
    try:
        data: Any = ModelCard(text).data
    except Exception as error:  # of whatever YAML and the Hub's library raise
        raise PublishingError(f"{CARD_NAME}: the metadata cannot be read: {error}") from error
    missing = [name for name in needed if not data.get(name)]
    if missing:
        raise PublishingError(f"{CARD_NAME}: the metadata lack {', '.join(missing)}")
    if data.get("eval_results"):
        eval_results_to_model_index(data.model_name, data.eval_results)


def _refuse(pattern: re.Pattern[str], text: str, problem: str) -> None:
    found = pattern.search(text)
    if found:
        line = text[: found.start()].count("\n") + 1
        raise PublishingError(
            f"{CARD_NAME}, line {line}: {found.group().strip()!r} {problem}: complete the "
            "facts that it comes from"
        )


def _figure(value: Any) -> str:
    return "" if value is None or isinstance(value, jinja2.Undefined) else f"{value:.2f}"
