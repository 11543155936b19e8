"""The workloads: the files that are carried, changed or watched, and the targets of each job."""
