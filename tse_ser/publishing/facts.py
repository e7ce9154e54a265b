"""The facts of a card: collected once, complete, or refused with what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from transformers import PreTrainedConfig, PreTrainedModel

from tse_ser.conversion.checkpoint_card import PIPELINE_TAGS, TITLES, usage
from tse_ser.publishing.corpora import Corpus, find_corpora, known_facts
from tse_ser.publishing.errors import PublishingError
from tse_ser.publishing.licenses import License, LicensedPart, choose_license
from tse_ser.publishing.lineage import Lineage, published_facts, read_lineage
from tse_ser.publishing.results import Result, read_results
from tse_ser.publishing.samples import Samples
from tse_ser.publishing.stages import Stage, corpora_of, describe_stage, is_conversion, targets_of


@dataclass(frozen=True, kw_only=True)
class PublishingOptions:
    """What the user says of a model, beyond what its folder holds.

    Attributes:
        results (`Path`, *optional*): cells of evaluation, a file or a folder.
        not_evaluated (`bool`): say in the card that the model was not evaluated.
        license (`License`, *optional*): by default the freest that the training data allow.
        base_models (`Sequence[str]`): hub ids of models of others that it builds on.
        earlier_stages (`Sequence[Path]`): folders of earlier trainings that have been moved.
        descriptions (`Mapping[str, str]`): what corpora are that are not known here, by name.
        samples (`Samples`, *optional*): a mixture and an enrollment that may be shared.
        dtype (`str`, *optional*): round the weights to "float16" or "bfloat16"; half the size.
    """

    results: Path | None = None
    not_evaluated: bool = False
    license: License | None = None
    base_models: Sequence[str] = ()
    earlier_stages: Sequence[Path] = ()
    descriptions: Mapping[str, str] = field(default_factory=dict)
    samples: Samples | None = None
    dtype: str | None = None


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """All that a card says; each field is filled.

    Attributes:
        repo_id (`str`): where the model goes.
        model_type (`str`): "td_speakerbeam", "shift_cnn" or "tse_ser"; names the template.
        title (`str`): heading.
        usage (`str`): lines of Python.
        num_parameters (`int`): of the model.
        sampling_rate (`int`): in Hz.
        labels (`tuple[str, ...]`): emotions; empty of an extractor.
        license (`License`): of the weights.
        languages (`tuple[str, ...]`): of the target speakers, ISO 639-1 codes.
        corpora (`tuple[Corpus, ...]`): that it heard, in this training or an earlier one.
        parts (`tuple[LicensedPart, ...]`): parts with weights of others.
        stages (`tuple[Stage, ...]`): trainings, the earliest first.
        base_models (`tuple[str, ...]`): hub ids.
        results (`tuple[Result, ...]`): empty only where the model was not evaluated.
        samples (`Samples`, *optional*): recordings in the repository.
        dtype (`str`, *optional*): what the weights were rounded to, after they were measured.
    """

    repo_id: str
    model_type: str
    title: str
    usage: str
    num_parameters: int
    sampling_rate: int
    labels: tuple[str, ...]
    license: License
    languages: tuple[str, ...]
    corpora: tuple[Corpus, ...]
    parts: tuple[LicensedPart, ...]
    stages: tuple[Stage, ...]
    base_models: tuple[str, ...]
    results: tuple[Result, ...]
    samples: Samples | None
    dtype: str | None = None

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
    lineage = read_lineage(model_dir, options.earlier_stages, options.base_models)
    corpora = find_corpora(
        (name for stage in lineage.stages for name in corpora_of(stage)), options.descriptions
    )
    parts = _parts(config, lineage)
    targets = find_corpora(targets_of(lineage.stages[-1]), options.descriptions)
    return CardFacts(
        repo_id=repo_id,
        model_type=config.model_type,
        title=f"{TITLES[config.model_type]}: {repo_id.split('/')[-1]}",
        usage=usage(config, repo_id),
        num_parameters=sum(one.numel() for one in model.parameters()),
        sampling_rate=config.sampling_rate,
        labels=_labels(config),
        license=choose_license([*(one.part for one in corpora), *parts], options.license),
        languages=tuple(sorted({one for corpus in targets for one in corpus.languages})),
        corpora=corpora,
        parts=parts,
        stages=tuple(describe_stage(published_facts(stage)) for stage in lineage.stages),
        base_models=lineage.base_models,
        results=_results(model_dir, config.model_type, options),
        samples=options.samples,
        dtype=options.dtype,
    ), lineage


def _labels(config: PreTrainedConfig) -> tuple[str, ...]:
    is_extractor = config.model_type == "td_speakerbeam"
    return () if is_extractor else tuple((config.id2label or {}).values())


def _parts(config: PreTrainedConfig, lineage: Lineage) -> tuple[LicensedPart, ...]:
    """Weights of others: the speaker encoder inside, and converted checkpoints."""
    extractor = getattr(config, "extractor_config", config)
    encoder = known_facts()["speaker_encoders"].get(getattr(extractor, "speaker_encoder", None))
    parts = []
    if encoder is not None:
        parts.append(LicensedPart(encoder["title"], encoder["license"], encoder["url"]))
    for stage in lineage.stages:
        if is_conversion(stage):
            title = stage["source_model"] or stage["checkpoint"]
            parts.append(LicensedPart(title, stage["license"]))
    return tuple(dict.fromkeys(parts))


def _results(model_dir: Path, model_type: str, options: PublishingOptions) -> tuple[Result, ...]:
    if options.results is not None and options.not_evaluated:
        raise PublishingError("--results and --not_evaluated exclude each other: give one")
    if options.not_evaluated:
        return ()
    if options.results is None:
        raise PublishingError(
            "--results is missing: give the cells that evaluation wrote for this model (a file or "
            "the folder of a study), or say --not_evaluated, and the card will say so"
        )
    return read_results(options.results, model_dir, model_type)
