"""A measurement from its start to the report.

The parts are stores, turns, clocks, results, targets and charts.
"""
