"""Reading Liquid's release: a plain causal language model whose last rows are codes (reference B2).

Its image tokenizer comes in a file of its own; it is looked for in ``image_tokenizer/`` beside the weights.
"""

from pathlib import Path

import torch

from vilau.errors import CheckpointError
from vilau.models.interface import VisualTokenizer
from vilau.models.language import CLASSES, described
from vilau.models.liquid.config import PUBLISHED_MARKS, UNCONDITIONAL
from vilau.models.liquid.model import Liquid
from vilau.models.pretrained import pretrained_config, pretrained_kind
from vilau.models.sequence.config import PromptConfig
from vilau.models.sizes import IMAGE_TOKENIZER_FOLDER, LanguageConfig
from vilau.models.storage import building_on_meta
from vilau.models.tokenizers import load_tokenizer
from vilau.models.weight_files import Unfilled, check_fit, fill, read_tensors

KINDS = tuple(CLASSES)


def load_published(
    folder: Path,
    tokenizer: VisualTokenizer,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    allow_pickle: bool = False,
) -> Liquid:
    """Load a checkpoint in transformers' layout, with the image tokenizer that its codes are of.

    The codes are the last rows of its vocabulary, as many as the tokenizer has. ``dtype`` None keeps the stored format.
    Raises ``CheckpointError`` where the words and the codes have more rows than there are, or the words lack the tokens
    that images stand between.
    """
    kind = CLASSES[pretrained_kind(str(folder), KINDS)]
    own = pretrained_config(kind, str(folder))
    words = load_tokenizer(str(folder))
    for mark in PUBLISHED_MARKS:
        if mark not in words.get_vocab():
            raise CheckpointError(
                f"the tokenizer in {folder} has no {mark}, but Liquid needs {', '.join(PUBLISHED_MARKS)}; give a "
                "checkpoint of Liquid with the tokenizer files that it was trained with."
            )
    num_codes = tokenizer.spec.codebook_size
    offset = own.vocab_size - num_codes
    if offset < len(words):
        raise CheckpointError(
            f"{folder} has {own.vocab_size} rows, too few for the {len(words)} words of its tokenizer and the "
            f"{num_codes} codes of {folder / IMAGE_TOKENIZER_FOLDER}; put the image tokenizer there that it was "
            "trained with."
        )
    own._attn_implementation = "sdpa"
    with Unfilled():
        language = kind(own)  # type: ignore[arg-type]  # the kind's own config
    state = {
        name: tensor
        for name, tensor in read_tensors(folder, allow_pickle=allow_pickle).items()
        if not name.endswith("rotary_emb.inv_freq")  # old releases
    }
    check_fit(language, state, folder)
    if not building_on_meta():
        fill(language, state, dtype=dtype, device=device)
    limit = own.max_position_embeddings
    config = described(language, LanguageConfig(tokenizer=str(folder), max_length=limit))
    learned = UNCONDITIONAL in words.get_vocab()
    prompt = PromptConfig(
        system="",
        form="published",
        null="learned" if learned else "prompt",
        null_token=UNCONDITIONAL,
    )
    model = Liquid(tokenizer, language, config, prompt, words, code_offset=offset)
    return model.eval().to(device=device)
