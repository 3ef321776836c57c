"""Retrieval: sentence_transformers, open_clip, and encoders of transformers with late interaction."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from experiments.zoo.packages_models.inputs import images, tokens
from experiments.zoo.packages_models.network import Field, Part

RETRIEVAL = Field()
_network = RETRIEVAL.network
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}


class Features(nn.Module):
    """Modules of sentence_transformers as the function from token vectors and a mask to sentence embeddings."""

    def __init__(self, *modules: nn.Module, part: str = "sentence_embedding") -> None:
        super().__init__()
        self.parts = nn.ModuleList(modules)
        self.part = part

    def forward(self, **features: Any) -> Tensor:
        for module in self.parts:
            features = module(features)
        found: Tensor = features[self.part]
        return found


class Words(nn.Module):
    """An encoder of transformers as sentence_transformers calls it."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        found = self.encoder(input_ids=features["input_ids"], attention_mask=features["attention_mask"])
        return {**features, "token_embeddings": found[0]}


def _encoder() -> nn.Module:
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig(**SIZES, vocab_size=99), add_pooling_layer=False)


def masked(batch: int) -> dict[str, Tensor]:
    """Sentences of several lengths."""
    mask = (torch.arange(9) < torch.randint(4, 10, (batch, 1))).long()
    return {**tokens(batch), "attention_mask": mask}


@_network("sentence-transformers", masked)
def sentence_encoder() -> nn.Module:
    from sentence_transformers.models import Dense, Normalize, Pooling

    return Features(Words(_encoder()), Pooling(32), Dense(32, 24), Normalize())


@_network("sentence-transformers", lambda batch: {"input_ids": masked(batch)["input_ids"]})
def sentence_convolutions() -> nn.Module:
    from sentence_transformers.models import CNN

    class Embedded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(99, 16)

        def forward(self, features: dict[str, Any]) -> dict[str, Any]:
            return {**features, "token_embeddings": self.words(features["input_ids"])}

    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(72, 8)

        def forward(self, features: dict[str, Any]) -> dict[str, Any]:
            return {"sentence_embedding": self.head(features["token_embeddings"].mean(1))}

    return Features(Embedded(), CNN(16, out_channels=24), Mean())


def sentences_with_lengths(batch: int) -> dict[str, Tensor]:
    found = masked(batch)
    return {**found, "sentence_lengths": found["attention_mask"].sum(1)}


@_network("sentence-transformers", sentences_with_lengths)
def sentence_lstm() -> nn.Module:
    from sentence_transformers.models import LSTM, Pooling

    class Embedded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(99, 16)

        def forward(self, features: dict[str, Any]) -> dict[str, Any]:
            return {**features, "token_embeddings": self.words(features["input_ids"])}

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(48, 8)

        def forward(self, features: dict[str, Any]) -> dict[str, Any]:
            return {"sentence_embedding": self.head(features["sentence_embedding"])}

    return Features(Embedded(), LSTM(16, 24), Pooling(48, "max"), Head())


class LateInteraction(nn.Module):
    """The score of a query and a document: for each word of the query its best match, as in ColBERT."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.project = _encoder(), nn.Linear(32, 16, bias=False)

    def forward(self, query: Tensor, document: Tensor) -> Tensor:
        left, right = (
            nn.functional.normalize(self.project(self.encoder(words)[0]), dim=-1)
            for words in (query, document)
        )
        return (left @ right.transpose(1, 2)).amax(2).sum(1)


@_network("transformers", lambda batch: (tokens(batch)["input_ids"], torch.randint(5, 90, (batch, 12))))
def late_interaction() -> nn.Module:
    return LateInteraction()


@_network("sentence-transformers", masked)
def sparse_encoder() -> nn.Module:
    from sentence_transformers.sparse_encoder.models import SpladePooling
    from transformers import BertConfig, BertForMaskedLM

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = BertForMaskedLM(BertConfig(**SIZES, vocab_size=99))

        def forward(self, features: dict[str, Any]) -> dict[str, Any]:
            found = self.encoder(input_ids=features["input_ids"], attention_mask=features["attention_mask"])
            return {**features, "token_embeddings": found.logits}

    return Features(Logits(), SpladePooling("max"))


@_network("transformers", tokens)
def passage_encoder() -> nn.Module:
    from transformers import DPRConfig, DPRQuestionEncoder

    return Part(DPRQuestionEncoder(DPRConfig(**SIZES, vocab_size=99, projection_dim=24)), "pooler_output")


@_network("open-clip-torch", lambda batch: (images(32)(batch), torch.randint(1, 90, (batch, 9))))
def open_clip() -> nn.Module:
    from open_clip import CLIP

    vision = {"layers": 2, "width": 32, "head_width": 8, "patch_size": 8, "image_size": 32}
    text = {"context_length": 9, "vocab_size": 99, "width": 32, "heads": 4, "layers": 2}
    return CLIP(16, vision, text)


@_network("open-clip-torch", lambda batch: (images(32)(batch), torch.randint(1, 90, (batch, 9))))
def captioner() -> nn.Module:
    from open_clip import CoCa

    vision = {"layers": 2, "width": 32, "head_width": 8, "patch_size": 8, "image_size": 32}
    vision |= {
        "attentional_pool": True,
        "attn_pooler_queries": 6,
        "attn_pooler_heads": 4,
        "output_tokens": True,
    }
    text = {
        "context_length": 9,
        "vocab_size": 99,
        "width": 32,
        "heads": 4,
        "layers": 2,
        "embed_cls": True,
        "output_tokens": True,
    }
    multimodal = {"context_length": 9, "vocab_size": 99, "width": 32, "heads": 4, "layers": 1}
    return Part(CoCa(32, multimodal, text, vision), "logits")
