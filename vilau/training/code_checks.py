"""Whether stored codes are the model's own: codes mean nothing to a model with another tower."""

from typing import Any

from vilau.errors import DataError
from vilau.models.interface import VisualTokenizer
from vilau.types import ReadsCodes


def check_codes(data: Any, tokenizer: VisualTokenizer) -> None:
    """Raise ``DataError`` if sets that ``data`` opened hold codes of another tower than ``tokenizer``.

    ``data`` is the trainer's data module; other kinds of data hold no codes.
    """
    sets = data.coded_sets() if isinstance(data, ReadsCodes) else []
    own = tokenizer.identity() if sets else ""
    for coded in sets:
        if coded.tower != own:
            raise DataError(
                f"{coded.name} holds codes of tower {coded.tower} ({coded.encoded_by}), but this model's tower is "
                f"{own}; train a model with that tower, or encode the set again with `vilau data tokenize` and "
                "this model's tower."
            )
