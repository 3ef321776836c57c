"""Encoders of text."""

from __future__ import annotations

from experiments.zoo.transformers_models.recipe import EMBEDDED, SMALL, Recipe, tokens

RECIPES: list[Recipe] = [
    Recipe("albert", "AlbertForMaskedLM", EMBEDDED, tokens),
    Recipe("bert", "BertForMaskedLM", SMALL, tokens),
    Recipe("bigbird", "BigBirdForMaskedLM", {**SMALL, "attention_type": "original_full"}, tokens),
    Recipe("camembert", "CamembertForMaskedLM", SMALL, tokens),
    Recipe("convbert", "ConvBertForMaskedLM", {**SMALL, "embedding_size": 32}, tokens),
    Recipe("deberta", "DebertaForMaskedLM", SMALL, tokens),
    Recipe("deberta_v2", "DebertaV2ForMaskedLM", SMALL, tokens),
    Recipe(
        "distilbert",
        "DistilBertForMaskedLM",
        {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "vocab_size": 99},
        tokens,
    ),
    Recipe("electra", "ElectraForMaskedLM", EMBEDDED, tokens),
    Recipe("ernie", "ErnieForMaskedLM", SMALL, tokens),
    Recipe("fnet", "FNetForMaskedLM", SMALL, tokens),
    Recipe(
        "funnel",
        "FunnelForMaskedLM",
        {
            "d_model": 32,
            "n_head": 4,
            "d_head": 8,
            "d_inner": 48,
            "block_sizes": [1, 1],
            "num_decoder_layers": 1,
            "vocab_size": 99,
        },
        tokens,
    ),
    Recipe("ibert", "IBertForMaskedLM", SMALL, tokens),
    Recipe("longformer", "LongformerForMaskedLM", {**SMALL, "attention_window": 4}, tokens),
    Recipe(
        "mobilebert",
        "MobileBertForMaskedLM",
        {**SMALL, "embedding_size": 32, "intra_bottleneck_size": 32, "true_hidden_size": 32},
        tokens,
    ),
    Recipe("modernbert", "ModernBertForMaskedLM", {**SMALL, "pad_token_id": 0}, tokens),
    Recipe("mpnet", "MPNetForMaskedLM", SMALL, tokens),
    Recipe("nystromformer", "NystromformerForMaskedLM", SMALL, tokens),
    Recipe(
        "rembert",
        "RemBertForMaskedLM",
        {**SMALL, "input_embedding_size": 16, "output_embedding_size": 24},
        tokens,
    ),
    Recipe("roberta", "RobertaForMaskedLM", SMALL, tokens),
    Recipe("roformer", "RoFormerForMaskedLM", {**SMALL, "embedding_size": 32}, tokens),
    Recipe("squeezebert", "SqueezeBertForMaskedLM", {**SMALL, "embedding_size": 32}, tokens),
    Recipe("xlm_roberta", "XLMRobertaForMaskedLM", SMALL, tokens),
    Recipe("bert_classifier", "BertForSequenceClassification", SMALL, tokens),
    Recipe(
        "xlnet",
        "XLNetLMHeadModel",
        {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48, "vocab_size": 99},
        tokens,
        "XLNetConfig",
    ),
]
