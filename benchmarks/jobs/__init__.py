"""The jobs own the workloads: which files are carried, changed or watched, and the bars that each of them has to meet."""
