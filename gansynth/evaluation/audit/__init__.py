"""What exported files hold beside images: readers behind ``gansynth.evaluation.audit.audit``.

``names`` says what is looked for; ``files`` looks through a file of a kind that gansynth writes.
"""
