"""What users give: prompts, images, codes to begin with."""

from collections.abc import Sequence

from torch import Tensor

from vilau.errors import ConfigError, DataError
from vilau.models.causal.parts import Parts


def given_images(model: Parts, images: Tensor | None) -> Tensor | None:
    """Return images on the model's device, or None where there are none.

    Raises ``DataError`` for anything but float ``(N, 3, H, W)``.
    """
    if images is None or (images.dim() == 4 and not len(images)):
        return None
    if images.dim() != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise DataError(
            f"images is {str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}; give float "
            "(N, 3, H, W) with values in [-1, 1]."
        )
    if not images.abs().max() <= 2.0:  # decoders overshoot 1 a little; NaN is refused too
        raise DataError(
            f"images holds values up to {images.abs().max():.4g}; scale them to [-1, 1] (x / 127.5 - 1)."
        )
    return images.to(model.device)


def repeated(prompts: str | Sequence[str], count: int, *, name: str) -> list[str]:
    """Return each prompt ``count`` times; ``name`` is what the argument ``count`` is called.

    Raises ``DataError`` where there is nothing to draw.
    """
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    if not texts:
        raise DataError("prompts is empty; give at least one text to draw ('' draws anything).")
    if count < 1:
        raise ConfigError(f"{name} is {count}; write 1 or more.")
    return [text for text in texts for _ in range(count)]


def leading_codes(
    model: Parts, first_frames: Tensor | None, given_codes: Tensor | None
) -> Tensor | None:
    """Return the codes that clips begin with: those given, or those of their first frames.

    Raises ``ConfigError`` for both at once, ``DataError`` for frames that are no images.
    """
    if first_frames is None:
        return given_codes
    if given_codes is not None:
        raise ConfigError(
            "first_frames and given_codes both say how a clip begins; give one of them."
        )
    lone = first_frames.dim() == 4
    frames = given_images(model, first_frames if lone else first_frames.flatten(0, 1))
    if frames is None:
        return None
    codes = model.tokenizer.encode(frames)
    return codes if lone else codes.unflatten(0, first_frames.shape[:2]).flatten(1, 2)


def checked_codes(model: Parts, codes: Tensor, rows: int, num_positions: int) -> Tensor:
    """Return the codes that ``rows`` results begin with, on the model's device; ``DataError`` where they do not fit."""
    spec, shape = model.tokenizer.spec, tuple(codes.shape)
    fits = len(shape) == 3 and shape[0] in (1, rows) and shape[2] == spec.depth
    if not fits or not 0 < shape[1] <= num_positions:
        raise DataError(
            f"given_codes has the shape {shape}; give int64 codes of {rows} or 1 results, at most "
            f"{num_positions} positions and {spec.depth} depths."
        )
    if codes.is_floating_point() or codes.min() < 0 or codes.max() >= spec.codebook_size:
        raise DataError(
            f"given_codes holds other values than codes 0 to {spec.codebook_size - 1}; give what "
            "tokenizer.encode returned."
        )
    return codes.to(model.device).expand(rows, -1, -1)
