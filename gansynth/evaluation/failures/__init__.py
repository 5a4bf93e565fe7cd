"""What a host gets wrong on inner folds of its training cases, and conditions drawn towards that.

``gansynth failures`` writes a file of every lesion of a fold's training cases, each judged by a
host that had not seen its case; ``gansynth.conditions.weights`` draws conditions by that file. The
fold's own held-out cases are never opened.
"""
