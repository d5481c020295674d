"""Images and clips: encoded files to pixels, pixels to what a model reads."""
