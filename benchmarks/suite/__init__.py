"""The suite owns a measurement from its start to the report: stores, turns, clocks, results, bars and charts."""
