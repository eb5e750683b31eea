"""From a folder of images to shards: plan, jobs, run, report."""
