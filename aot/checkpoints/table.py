"""The published weights that aot can download: where they are hosted, their size, SHA-256 and licence."""

from __future__ import annotations

from dataclasses import dataclass

_SAM2_URL = "https://dl.fbaipublicfiles.com/segment_anything_2/092824"
_COTRACKER3 = "facebook/cotracker3"
_TAPNET = "google/tapnet"


@dataclass(frozen=True)
class Checkpoint:
    """One published file of weights."""

    name: str
    """The name that commands and options use."""
    file: str
    """The file name, in the folder of weights and at its host."""
    url: str
    """The address of the folder that holds the file."""
    sha256: str | None
    """None if not published: that of the first download is recorded beside the file."""
    licence: str
    num_bytes: int | None = None
    """The size of the file; None if not known beforehand. The SHA-256 is checked in any case."""
    is_commercial_use_allowed: bool = True
    """False: the download command asks for consent first."""
    unrestricted_option: str | None = None
    """For files without commercial use: the option whose weights may be used for it."""
    holds_only_weights: bool = True
    """False: the file also holds what only training needs, and can be reduced to its weights."""
    hub_repository: str | None = None
    """The repository on huggingface.co, for files that are hosted there; None: `url` is an ordinary web folder."""


CHECKPOINTS = {
    checkpoint.name: checkpoint
    for checkpoint in (
        Checkpoint(
            "sam2.1_hiera_tiny",
            "sam2.1_hiera_tiny.pt",
            _SAM2_URL,
            "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69",
            "Apache-2.0",
            156008466,
        ),
        Checkpoint(
            "sam2.1_hiera_small",
            "sam2.1_hiera_small.pt",
            _SAM2_URL,
            "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38",
            "Apache-2.0",
            184416285,
        ),
        Checkpoint(
            "sam2.1_hiera_base_plus",
            "sam2.1_hiera_base_plus.pt",
            _SAM2_URL,
            "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5",
            "Apache-2.0",
        ),
        Checkpoint(
            "sam2.1_hiera_large",
            "sam2.1_hiera_large.pt",
            _SAM2_URL,
            "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318",
            "Apache-2.0",
            898083611,
        ),
        Checkpoint(
            "cotracker3_offline",
            "scaled_offline.pth",
            f"https://huggingface.co/{_COTRACKER3}/resolve/main",
            "2670d4562ed69326dda775a26e54883925cd11b6fc9b24cb7aa9f8078bce7834",
            "CC-BY-NC-4.0",
            is_commercial_use_allowed=False,
            unrestricted_option="tracker=tapnext",
            hub_repository=_COTRACKER3,
        ),
        Checkpoint(
            "cotracker3_online",
            "scaled_online.pth",
            f"https://huggingface.co/{_COTRACKER3}/resolve/main",
            "205d34789f19699d64b22cf93f9b697f15f28d4025240e31532e504109837218",
            "CC-BY-NC-4.0",
            is_commercial_use_allowed=False,
            unrestricted_option="tracker=tapnext",
            hub_repository=_COTRACKER3,
        ),
        Checkpoint(
            "tapnextpp",
            "tapnextpp_ckpt.pt",
            "https://storage.googleapis.com/dm-tapnet/tapnextpp",
            None,
            "Apache-2.0",
            holds_only_weights=False,
        ),
        Checkpoint(
            "tapnextpp_512",
            "tapnextpp_512.ckpt",
            "https://storage.googleapis.com/gresearch/tapnextpp",
            None,
            "Apache-2.0",
            holds_only_weights=False,
        ),
        Checkpoint(
            "bootstapnext",
            "bootstapnext.pth",
            f"https://huggingface.co/{_TAPNET}/resolve/main",
            "425eeff19437554a74742e1a9e1077dd1059248ecdd77a84c689ea2847fa80a4",
            "Apache-2.0",
            hub_repository=_TAPNET,
        ),
    )
}


@dataclass(frozen=True)
class Model:
    """A published model of several files, on huggingface.co."""

    repository: str
    licence: str
    is_gated: bool = False
    """True: its licence has to be accepted on huggingface.co, and the download needs a login."""


MODELS = {
    "grounding_dino": Model("IDEA-Research/grounding-dino-tiny", "Apache-2.0"),
    "owlv2": Model("google/owlv2-base-patch16-ensemble", "Apache-2.0"),
    "sam3": Model("facebook/sam3", "SAM License", is_gated=True),
}
"""The default models of the detectors, by the names that commands use; their sizes and SHA-256 are listed there."""


def model_name(repository: str) -> str:
    """The name that commands use for a model: that in the table, or its repository."""
    return next((name for name, known in MODELS.items() if known.repository == repository), repository)
