"""Training: the loop, what it reads, and the losses of the classifier and the segmenter."""
