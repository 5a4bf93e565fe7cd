"""Hard cases on inner folds of the training cases, and conditions sampled towards them.

``gansynth hard-cases`` writes a file of every lesion of a fold's training cases. Each is evaluated
by a segmenter that was not trained on its case (``scoring``). ``gansynth.conditions`` samples
conditions by that file. The fold's own held-out cases are never opened.
"""
