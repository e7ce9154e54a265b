"""Whether the enrolled speaker is in what was extracted: the cosine of two speaker embeddings."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .modeling_td_speakerbeam import TdSpeakerBeamForSpeechExtraction

POWER_FLOOR = 1e-8


def speaker_similarity(
    extractor: TdSpeakerBeamForSpeechExtraction,
    extracted_values: Tensor,
    speaker_embeddings: Tensor,
    attention_mask: Tensor | None = None,
) -> Tensor:
    """
    Cosine between the enrollment's embedding and that of the extracted speech.

    It costs one pass of the auxiliary network (or of the speaker encoder that is built in) over the
    extracted speech, which is brought to unit power first: SI-SNR leaves its level free, and the
    feature extractor gives enrollments that power.

    Args:
        extractor: what embeds speech.
        extracted_values (`torch.Tensor` of shape `(batch_size, num_samples)`): its output.
        speaker_embeddings (`torch.Tensor` of shape `(batch_size, embedding_size)`): of the
            enrollments, from `get_speaker_embeddings`; one row serves all mixtures.
        attention_mask (`torch.Tensor` of shape `(batch_size, num_samples)`, *optional*): 1 for
            valid samples.

    Returns:
        `torch.Tensor` of shape `(batch_size,)`: from -1 to 1, in float32 (float64 in such a model).

    Raises:
        ValueError: the extractor has no network that embeds speech.
    """
    config = extractor.config
    if config.auxiliary_type == "projection" and config.speaker_encoder is None:
        raise ValueError(
            "The speaker similarity needs an extractor that embeds speech, and this one projects "
            "the embedding of an outside encoder (`speaker_encoder=None`): embed "
            "`extracted_values` with that encoder and compare there."
        )
    dtype = torch.promote_types(extracted_values.dtype, torch.float32)
    values = extracted_values.to(dtype)
    if attention_mask is None:
        power = values.square().mean(dim=-1, keepdim=True)
    else:
        values = values * attention_mask
        power = values.square().sum(dim=-1, keepdim=True) / attention_mask.sum(dim=-1, keepdim=True)
    values = (values * torch.rsqrt(power + POWER_FLOOR)).to(extracted_values.dtype)
    embeddings = extractor.get_speaker_embeddings(values, attention_mask)
    return F.cosine_similarity(embeddings.to(dtype), speaker_embeddings.to(dtype), dim=-1)


__all__ = ["speaker_similarity"]
