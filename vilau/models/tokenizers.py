"""Text tokenizers: the kit's own small one, and any transformers tokenizer by folder or hub name."""

from importlib import resources
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from vilau.errors import CheckpointError
from vilau.models.sizes import WORLD_TOKENIZER


def asset(name: str) -> Path:
    """Return the folder of a part that ships inside the package (``vilau/assets/<name>``)."""
    return Path(str(resources.files("vilau") / "assets" / name))


def load_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer: ``world-tokenizer`` (shipped), a local folder, or a hub name.

    A hub name is looked up in the local cache first. Raises ``CheckpointError`` when it is nowhere.
    """
    path = asset(source) if source == WORLD_TOKENIZER else Path(source)
    name = str(path) if path.exists() else source
    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"tokenizer {source} is neither a local folder nor in the hub cache nor downloadable "
            f"({str(error).splitlines()[0]}); copy it to a folder and give that folder."
        ) from None
