"""Classification of one's own images with the weights of a run, from a few labelled examples of each class."""
