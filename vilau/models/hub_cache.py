"""Files of the hub that were downloaded before, without a word to the network."""

import re
from pathlib import Path

# transformers' own ways into the cache ask the network for other things even with local_files_only.
from transformers.utils.hub import try_to_load_from_cache


def cached_folder(name: str, *files: str) -> Path | None:
    """Return the local folder of a hub name such as ``google/siglip-…`` that holds one of ``files``."""
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        return None
    for file in files:
        found = try_to_load_from_cache(name, file)
        if isinstance(found, str):
            return Path(found).parent
    return None
