"""The export worker: from an accepted request to the objects of an image in a bucket."""
