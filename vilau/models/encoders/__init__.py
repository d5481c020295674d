"""The networks that encode images and texts for a tower, from wherever their weights come."""
