"""Sampling from a trained run: the run, the sampler, filters, exports."""
