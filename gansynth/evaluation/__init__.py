"""What samples are worth: realism, faithfulness to labels, memorisation, and the report on it."""
