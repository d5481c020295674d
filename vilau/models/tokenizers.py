"""Text tokenizers: the kit's own small one, and any transformers tokenizer by folder or hub name."""

from importlib import resources
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from vilau.errors import CheckpointError
from vilau.models.hub_cache import cached_folder
from vilau.models.sizes import WORLD_TOKENIZER

SENTENCEPIECE_FILE = "tokenizer.model"
"""LLaMA's own tokenizer file, which the published code reads; transformers writes another in its place."""
VOCABULARY_FILES = (
    "tokenizer.json", SENTENCEPIECE_FILE, "spiece.model", "vocab.json", "vocab.txt",
)  # fmt: skip


def asset(name: str) -> Path:
    """Return the folder of a part that ships inside the package (``vilau/assets/<name>``)."""
    return Path(str(resources.files("vilau") / "assets" / name))


def load_tokenizer(source: str, *, download: bool = False) -> PreTrainedTokenizerBase:
    """Load a tokenizer: ``world-tokenizer`` (shipped), a local folder, or a hub name in the local cache.

    With ``download`` a hub name that is not in the cache is fetched. Raises ``CheckpointError`` when it is
    nowhere or broken.
    """
    path = asset(source) if source == WORLD_TOKENIZER else Path(source)
    folder = path if path.exists() else cached_folder(source, *VOCABULARY_FILES)
    if folder is not None:
        if not any((folder / name).is_file() for name in VOCABULARY_FILES):
            # transformers would make an empty tokenizer up
            raise CheckpointError(
                f"{folder} holds no tokenizer ({', '.join(VOCABULARY_FILES)}); copy its files there."
            )
        return _opened(
            str(folder), f"the tokenizer in {folder} cannot be read", "restore its files"
        )
    lacking = f"tokenizer {source} is neither a local folder nor in the hub cache"
    remedy = "copy it to a folder and give that folder"
    if not download:
        raise CheckpointError(f"{lacking}; {remedy}.")
    return _opened(source, f"{lacking} nor downloadable", remedy)


def _opened(name: str, problem: str, remedy: str) -> PreTrainedTokenizerBase:
    try:
        words = AutoTokenizer.from_pretrained(name, local_files_only=Path(name).is_dir())
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError) as error:
        # sentencepiece and tokenizers raise what they like over a broken file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{problem} ({reason}); {remedy}.") from None
    for how in ("local_files_only", "is_local"):  # of this call alone: not to be saved with it
        words.init_kwargs.pop(how, None)
    return words


def sentencepiece_file(words: PreTrainedTokenizerBase) -> Path | None:
    """Return the ``tokenizer.model`` that a tokenizer was read from; None when it never had one."""
    file: Any = getattr(words, "vocab_file", None)
    return Path(file) if file and Path(file).name == SENTENCEPIECE_FILE else None


def save_tokenizer(words: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a tokenizer's files, and the ``tokenizer.model`` it came from if that is still there."""
    file = sentencepiece_file(words)
    kept = file.read_bytes() if file is not None and file.is_file() else None
    words.save_pretrained(str(folder))
    if kept is not None:
        part = folder / f"{SENTENCEPIECE_FILE}.part"
        part.write_bytes(kept)
        part.replace(folder / SENTENCEPIECE_FILE)
