"""VILA-U's release: reading and writing its three-folder checkpoints (``llm/ vision_tower/ mm_projector/``)."""
