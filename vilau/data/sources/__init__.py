"""Forms of a user's data: where each keeps its images and texts, and how they are read."""
