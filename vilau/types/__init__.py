"""What travels between rooms: batches, step outputs, and the small Protocols that callbacks ask for.

The shape alphabet of the whole kit:
``B`` images or sequences in a batch, ``N`` images of a batch (several or none per sequence), ``F`` frames,
``H W`` pixels, ``h w`` code grid, ``P`` positions (h*w), ``Z`` code width, ``D`` residual depth,
``K`` codebook size, ``T`` sequence length, ``E`` language-model width, ``V`` vocabulary, ``C`` feature width.

Images on the host are ``uint8`` in 0..255; inside models they are float in [-1, 1].
"""

from vilau.types.batches import (
    LETTERS,
    ClipPromptBatch,
    ImageTextBatch,
    LabelledImageBatch,
    Movable,
    PromptBatch,
    QuestionBatch,
)
from vilau.types.codes import CodedSet
from vilau.types.documents import (
    Document,
    ImageSegment,
    MultimodalBatch,
    Segment,
    TextSegment,
    VideoSegment,
)
from vilau.types.outputs import (
    WITHOUT_IMAGES,
    AnswerOutput,
    ClipOutput,
    DrawingOutput,
    EmbeddingOutput,
    GuidedDrawings,
    TowerOutput,
)
from vilau.types.passport import (
    Passport,
)
from vilau.types.protocols import (
    Averages,
    Draws,
    EmbedsImages,
    EmbedsPairs,
    EmbedsTexts,
    Exports,
    ReadsCodes,
    Rebuilds,
    Reconstructs,
)

__all__ = [
    "LETTERS",
    "WITHOUT_IMAGES",
    "AnswerOutput",
    "Averages",
    "ClipOutput",
    "ClipPromptBatch",
    "CodedSet",
    "Document",
    "DrawingOutput",
    "Draws",
    "EmbeddingOutput",
    "EmbedsImages",
    "EmbedsPairs",
    "EmbedsTexts",
    "Exports",
    "GuidedDrawings",
    "ImageSegment",
    "ImageTextBatch",
    "LabelledImageBatch",
    "Movable",
    "MultimodalBatch",
    "Passport",
    "PromptBatch",
    "QuestionBatch",
    "ReadsCodes",
    "Rebuilds",
    "Reconstructs",
    "Segment",
    "TextSegment",
    "TowerOutput",
    "VideoSegment",
]
