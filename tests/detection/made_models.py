"""Small models of the real architectures, with synthetic weights and tokenizers, in the files of a repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

WORDS = "red green blue bright square mug hat cup of the . ?".split()
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def make_grounding_dino(folder: Path, *, kind: str = "GroundingDino") -> None:
    """A model of the kind GroundingDino or MMGroundingDino."""
    import transformers
    from transformers import (
        BertConfig,
        BertTokenizerFast,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
        SwinConfig,
    )

    # The network knows the ids of these tokens.
    known = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103, ".": 1012, "?": 1029}
    vocabulary = [f"[unused{number}]" for number in range(1100)]
    for token, number in known.items():
        vocabulary[number] = token
    others = [*(word for word in WORDS if word not in known), *_LETTERS, *(f"##{letter}" for letter in _LETTERS)]
    vocabulary[1030 : 1030 + len(others)] = others
    torch.manual_seed(0)
    backbone = SwinConfig(
        image_size=64, embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 2], window_size=4,
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    text = BertConfig(
        vocab_size=1100, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64,
    )  # fmt: skip
    config = getattr(transformers, f"{kind}Config")(
        backbone_config=backbone, text_config=text, d_model=32, encoder_layers=1, decoder_layers=2, num_queries=20,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32,
        num_feature_levels=4, max_text_len=32,
    )  # fmt: skip
    save(getattr(transformers, f"{kind}ForObjectDetection")(config), folder)
    images = GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    tokenizer = BertTokenizerFast(vocab={token: number for number, token in enumerate(vocabulary)})
    GroundingDinoProcessor(images, tokenizer).save_pretrained(folder)


def make_owlv2(folder: Path, *, kind: str = "Owlv2") -> None:
    """A model of the kind Owlv2 or OwlViT."""
    import transformers

    def of_kind(name: str) -> Any:
        return getattr(transformers, f"{kind}{name}")

    torch.manual_seed(0)
    vocabulary = clip_vocabulary()
    config = of_kind("Config")(
        text_config={
            "vocab_size": len(vocabulary), "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2, "max_position_embeddings": 16, "bos_token_id": len(vocabulary) - 2,
            "eos_token_id": len(vocabulary) - 1, "pad_token_id": 0,
        },
        vision_config={
            "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
            "image_size": 96, "patch_size": 16,
        },
        projection_dim=32,
    )  # fmt: skip
    model = of_kind("ForObjectDetection")(config)
    with torch.no_grad():
        for weights in model.box_head.parameters():  # as they are made, every box has no extent
            weights.mul_(0.15)
    save(model, folder, spread=0.02)
    size = {"height": 96, "width": 96}
    images = of_kind("ImageProcessor")(size=size, **({"crop_size": size} if kind == "OwlViT" else {}))
    of_kind("Processor")(images, clip_tokenizer(vocabulary, 16)).save_pretrained(folder)


def make_sam3(folder: Path) -> None:
    import transformers
    from transformers import Sam3Config, Sam3Model, Sam3Processor

    # Its name in 5.0.
    images_class = getattr(transformers, "Sam3ImageProcessorFast", None) or transformers.Sam3ImageProcessor
    torch.manual_seed(0)
    vocabulary = clip_vocabulary()
    common = {"hidden_size": 32, "num_attention_heads": 2}
    layers = common | {"num_layers": 1, "intermediate_size": 32}
    vision = {
        "backbone_config": {
            "model_type": "sam3_vit_model", "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2,
            "num_attention_heads": 2, "image_size": 112, "patch_size": 14, "window_size": 4,
            "global_attn_indexes": [1], "pretrain_image_size": 112,
        },
        "fpn_hidden_size": 32, "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
    }  # fmt: skip
    text = {
        "model_type": "clip_text_model", "vocab_size": len(vocabulary), "hidden_size": 32, "intermediate_size": 32,
        "projection_dim": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 32,
        "bos_token_id": len(vocabulary) - 2, "eos_token_id": len(vocabulary) - 1, "pad_token_id": 0,
    }  # fmt: skip
    config = Sam3Config(
        vision_config=vision,
        text_config=text,
        geometry_encoder_config=layers,
        detr_encoder_config=layers,
        detr_decoder_config=layers | {"num_queries": 12},
        mask_decoder_config=common | {"num_upsampling_stages": 3},
    )
    save(Sam3Model(config), folder)
    images = images_class(size={"height": 112, "width": 112}, mask_size={"height": 32, "width": 32})
    Sam3Processor(images, clip_tokenizer(vocabulary, 32)).save_pretrained(folder)


def save(model: torch.nn.Module, folder: Path, *, spread: float = 0.15) -> None:
    """Save a model after spreading its weights, so that scores and boxes differ."""
    with torch.no_grad():
        for weights in model.parameters():
            if weights.dim() > 1:
                weights.add_(spread * torch.randn_like(weights))
    model.eval().save_pretrained(folder)


def clip_vocabulary() -> dict[str, int]:
    letters = [*_LETTERS, *(f"{letter}</w>" for letter in _LETTERS), ".", ".</w>"]
    tokens = ["<pad>", *letters, "<|startoftext|>", "<|endoftext|>"]
    return {token: number for number, token in enumerate(tokens)}


def clip_tokenizer(vocabulary: dict[str, int], length: int) -> object:
    from transformers import CLIPTokenizerFast

    return CLIPTokenizerFast(
        vocab=vocabulary, merges=[], unk_token="<|endoftext|>", pad_token="<pad>", model_max_length=length
    )
