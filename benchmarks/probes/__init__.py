"""The probes own single measurements: each looks at one cost, and most of them run as commands of their own."""
