"""From a trained run to samples: the run, the sampler, filters, exports."""
