"""Runs many functions, each once: content-addressed jobs, on one machine or on several.

    from gansynth_benchmark.jobs.executor import parse_executor
    from gansynth_benchmark.jobs.graph import run_jobs
    from gansynth_benchmark.jobs.store import JobSpec
    from gansynth_benchmark.jobs.store import ResultStore
    from gansynth_benchmark.jobs.table import JobTable

    store = ResultStore("out/jobs")
    fit = JobSpec(key, "cgan, N=6", "fit", "package.module:function", document={"steps": 2000})
    with JobTable() as table:
        report = run_jobs([fit], store, parse_executor("local:2"), on_change=table)
    report.raise_if_failed()
    document = store.result(key)["document"]        # what the function returned

``graph`` decides what runs when. An ``executor`` starts a process for each job. That process,
``attempt``, runs the job and publishes to the ``store``. A killed run leaves only files from which
the next run resumes. Runs of the same jobs, on any machines that see the store, share them.
"""
